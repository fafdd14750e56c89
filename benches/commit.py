#!/usr/bin/env python3
"""The commit of a transaction over two shards, beside that of one shard, interleaved in one run.

usage: benches/commit.py [--rounds 400] [--pgweir target/release/pgweir]

Starts two PostgreSQL servers with their disks synced (fsync = on) and pgweir with `commit: atomic` and
`commit: best-effort` in front of them. One client, one transaction of two updates at a time, in turn:

  direct     both rows on one server, without pgweir
  one        both rows on one shard
  best       on two shards, committed one after the other
  atomic     on two shards, committed on both or none

Reports the median milliseconds of COMMIT alone
"""
import argparse, os, shutil, signal, statistics, subprocess, sys, tempfile, time

import client
from proxy import find_bin, free_port, unprivileged, wait_for

PAUSE = 0.002


class Stage:
    def __init__(self, args):
        self.args, self.children = args, []
        self.dir = tempfile.mkdtemp(prefix="pgweir-commit-")
        os.chmod(self.dir, 0o755)
        self.shards = [self.shard(number) for number in (0, 1)]
        self.proxies = {}

    def shard(self, number):
        data, port = f"{self.dir}/shard{number}", free_port()
        os.makedirs(data)
        if not os.getuid():
            shutil.chown(data, "postgres", "postgres")
        run = dict(check=True, stdout=subprocess.DEVNULL, **unprivileged())
        subprocess.run([find_bin("initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"], **run)
        options = ["-c", "max_prepared_transactions=20", "-c", "unix_socket_directories="]
        server = subprocess.Popen([find_bin("postgres"), "-D", data, "-p", str(port), *options],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **unprivileged())
        self.children.append(server)
        wait_for(port, server, "PostgreSQL")
        self.psql(port, "create table a (id bigint primary key, n bigint not null)")
        return port

    def psql(self, port, sql):
        for _ in range(100):
            done = subprocess.run([find_bin("psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-Atqc", sql, "postgres"],
                                  capture_output=True, text=True)
            if done.returncode == 0:
                return done.stdout.strip()
            if "starting up" not in done.stderr:
                break
            time.sleep(0.05)
        sys.exit(done.stderr)

    def proxy(self, commit):
        port = free_port()
        path = f"{self.dir}/{commit}.yaml"
        shards = "".join(f"      - {{name: s{at}, primary: \"postgres://postgres@127.0.0.1:{shard}/postgres?sslmode=disable\"}}\n"
                         for at, shard in enumerate(self.shards))
        with open(path, "w") as file:
            file.write(f"listen: 127.0.0.1:{port}\nusers: {{bench: {{password: secret}}}}\ndatabases:\n  bench:\n"
                       f"    shards:\n{shards}    sharding: {{tables: {{a: {{key: id}}}}}}\n    commit: {commit}\n")
        if commit == "atomic":
            subprocess.run([self.args.pgweir, "init", "-c", path], check=True, stdout=subprocess.DEVNULL)
        process = subprocess.Popen([self.args.pgweir, "proxy", "-c", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.children.append(process)
        wait_for(port, process, "pgweir")
        return port

    def close(self):
        for child in reversed(self.children):
            child.send_signal(signal.SIGINT)
        for child in self.children:
            child.wait(30)
        shutil.rmtree(self.dir, ignore_errors=True)


def transaction(sock, rows):
    client.answer(sock, "begin")
    for row in rows:
        client.answer(sock, f"update a set n = n + 1 where id = {row}")
    started = time.perf_counter()
    client.answer(sock, "commit")
    return (time.perf_counter() - started) * 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--pgweir", default="target/release/pgweir")
    args = parser.parse_args()
    stage = Stage(args)
    try:
        measure(stage, args)
    finally:
        stage.close()


def measure(stage, args):
    atomic, best = stage.proxy("atomic"), stage.proxy("best-effort")
    socks = {"atomic": client.connect(atomic), "best": client.connect(best)}
    socks["one"] = socks["atomic"]
    socks["direct"] = client.connect(stage.shards[0], user="postgres", database="postgres")
    for row in range(1, 41):
        client.answer(socks["atomic"], f"insert into a values ({row}, 0)")
    here = [[int(row) for row in stage.psql(port, "select id from a order by id").split()] for port in stage.shards]
    rows = {"direct": here[0][:2], "one": here[0][:2], "best": [here[0][2], here[1][2]], "atomic": [here[0][3], here[1][3]]}
    times = {name: [] for name in rows}
    for _ in range(args.rounds):
        for name in rows:
            times[name].append(transaction(socks[name], rows[name]))
            time.sleep(PAUSE)
    one = statistics.median(times["one"])
    print(f"{'':8} {'commit ms':>10} {'to one':>7}")
    for name in rows:
        median = statistics.median(times[name])
        print(f"{name:8} {median:10.3f} {median / one:7.2f}")


if __name__ == "__main__":
    main()
