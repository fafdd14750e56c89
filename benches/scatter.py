#!/usr/bin/env python3
"""What a query over four shards costs, beside one PostgreSQL with all rows, interleaved in one run.

usage: benches/scatter.py [--rows 1000000] [--rounds 5] [--pgweir target/release/pgweir]

Starts a PostgreSQL with five databases (all rows in one, their shards in four) and pgweir in front of the four. In each round every
query runs once on the one database and once through pgweir; medians are reported:

  order      all rows ORDER BY an integer, read to the end
  top        ORDER BY .. LIMIT 10
  count      count(*)
  group      seven groups with count, sum and average

`cpu` is what pgweir itself used; `per core` what it passes on in a second of it, to what the one PostgreSQL sends in a second.
"""
import argparse, os, shutil, signal, statistics, subprocess, sys, tempfile, time

import client
from proxy import cpu_seconds, find_bin, free_port, unprivileged, wait_for

SHARDS = 4
QUERIES = {
    "order": "select id, pad, n from t order by id",
    "top": "select id, n from t order by n desc limit 10",
    "count": "select count(*) from t",
    "group": "select n % 7 as g, count(*), sum(n), avg(n) from t group by n % 7 order by 1",
}


class Stage:
    def __init__(self, args):
        self.args, self.children = args, []
        self.dir = tempfile.mkdtemp(prefix="pgweir-scatter-")
        os.chmod(self.dir, 0o755)
        data, self.server = f"{self.dir}/data", free_port()
        os.makedirs(data)
        if not os.getuid():
            shutil.chown(data, "postgres", "postgres")
        run = dict(check=True, stdout=subprocess.DEVNULL, **unprivileged())
        subprocess.run([find_bin("initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"], **run)
        options = ["-c", "fsync=off", "-c", "shared_buffers=512MB", "-c", "unix_socket_directories="]
        self.start([find_bin("postgres"), "-D", data, "-p", str(self.server), *options], self.server, **unprivileged())
        self.proxy = free_port()
        path = f"{self.dir}/pgweir.yaml"
        for name in ["one"] + [f"s{at}" for at in range(SHARDS)]:
            self.psql("postgres", f"create database {name}")
        shards = "".join(f"      - {{name: s{at}, primary: \"postgres://postgres@127.0.0.1:{self.server}/s{at}?sslmode=disable\"}}\n"
                         for at in range(SHARDS))
        with open(path, "w") as file:
            file.write(f"listen: 127.0.0.1:{self.proxy}\nusers: {{bench: {{password: secret}}}}\ndatabases:\n  bench:\n"
                       f"    shards:\n{shards}    sharding: {{tables: {{t: {{key: id}}}}, max_collected: 4GB}}\n    commit: best-effort\n")
        self.pgweir = self.start([args.pgweir, "proxy", "-c", path], self.proxy)

    def start(self, command, port, **more):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
        self.children.append(child)
        wait_for(port, child, command[0])
        return child.pid

    def psql(self, database, sql):
        command = [find_bin("psql"), "-h", "127.0.0.1", "-p", str(self.server), "-U", "postgres", "-Atqc", sql, database]
        for _ in range(100):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                return
            if "starting up" not in done.stderr:
                sys.exit(done.stderr)
            time.sleep(0.05)

    def close(self):
        for child in reversed(self.children):
            child.send_signal(signal.SIGINT)
        for child in self.children:
            child.wait(30)
        shutil.rmtree(self.dir, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pgweir", default="target/release/pgweir")
    args = parser.parse_args()
    stage = Stage(args)
    try:
        measure(stage, args)
    finally:
        stage.close()


def measure(stage, args):
    one = client.connect(stage.server, user="postgres", database="one", timeout=600)
    several = client.connect(stage.proxy, timeout=600)
    for sock in (one, several):
        client.answer(sock, "create table t (id bigint primary key, n bigint not null, pad text not null)")
    chunk = 100_000
    for start in range(0, args.rows, chunk):
        rows = f"select i, i::bigint * 7919 % 1000003, repeat('x', 60) from generate_series({start + 1}, {min(start + chunk, args.rows)}) i"
        for sock in (one, several):
            client.answer(sock, f"insert into t {rows}")
    for database in ["one"] + [f"s{at}" for at in range(SHARDS)]:
        stage.psql(database, "vacuum analyze t")
    buffer = bytearray(1 << 20)
    took = {(name, who): [] for name in QUERIES for who in ("one", "pgweir", "cpu", "bytes")}
    for _ in range(args.rounds):
        for name, sql in QUERIES.items():
            started = time.perf_counter()
            client.drain(one, sql, buffer)
            took[name, "one"].append(time.perf_counter() - started)
            cpu, started = cpu_seconds(stage.pgweir), time.perf_counter()
            took[name, "bytes"].append(client.drain(several, sql, buffer))
            took[name, "pgweir"].append(time.perf_counter() - started)
            took[name, "cpu"].append(cpu_seconds(stage.pgweir) - cpu)
    size = statistics.median(took["order", "bytes"]) / 1e6
    print(f"{args.rows} rows, {size:.0f} MB in order")
    print(f"{'':6} {'one s':>8} {'pgweir s':>9} {'cpu s':>7} {'per core':>9}")
    for name in QUERIES:
        plain, routed, cpu, size = (statistics.median(took[name, who]) for who in ("one", "pgweir", "cpu", "bytes"))
        share = f"{plain / cpu:9.2f}" if name == "order" and cpu > 0 else ""
        print(f"{name:6} {plain:8.3f} {routed:9.3f} {cpu:7.3f} {share}")


if __name__ == "__main__":
    main()
