#!/usr/bin/env python3
"""Compare pgweir with PgBouncer and with no proxy at all, interleaved in one run.

usage: benches/proxy.py [--modes simple,extended,prepared,throughput,stream,latency,idle,burst,churn] [--rounds 5]
                        [--seconds 4] [--clients 16] [--pool 8] [--workers N] [--pgweir target/release/pgweir]
                        [--only pgweir,pgbouncer,direct] [--json FILE]

Starts one PostgreSQL in a temporary directory, PgBouncer and pgweir in front of it, and sends the same work
through each in turn. CPU is the proxy process's own utime + stime over a run (/proc/PID/schedstat of its threads
where the system has it, in nanoseconds, else /proc/PID/stat), so PostgreSQL's and the client's share are left out.
Medians over the rounds; ratios are medians of the rounds' paired ratios.

  simple, extended, prepared   `pgbench -S -M MODE`: CPU per 1000 transactions
  throughput                   `pgbench -S` with 64 clients: transactions a second
  stream                       one client reads a million rows: CPU per GB
  latency                      one client, one query at a time, through each target in turn: microseconds added
  idle                         memory per client of --herd clients, before and after a query of each
  burst                        --herd clients (at most 4000) send a query at once over a pool of 40
  churn                        connect, query, close: connections a second

PgBouncer before 1.21 cannot keep named prepared statements in transaction mode, so for `prepared` it runs in
session mode, with a pool as large as the number of clients.

Needs: postgresql, pgbench, pgbouncer (Debian packages) and a release build of pgweir. Traffic stays on 127.0.0.1.
"""
import argparse, glob, json, os, pwd, re, resource, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

import client

TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def find_bin(name):
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    return found[-1] if found else shutil.which(name) or sys.exit(f"{name} is not installed")


def unprivileged():
    """PostgreSQL and PgBouncer refuse to run as root."""
    if os.getuid():
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def cpu_seconds(pid):
    """CPU time of a process with all its threads."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        return sum(int(open(f"/proc/{pid}/task/{task}/schedstat").read().split()[0]) for task in tasks) / 1e9
    except OSError:
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK


def resident_kib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read()).group(1))


def wait_for(port, process, name):
    for _ in range(200):
        if process.poll() is not None:
            sys.exit(f"{name} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{name} does not listen on {port}")


class Bench:
    def __init__(self, args):
        self.args, self.children, self.targets = args, [], {}
        self.dir = tempfile.mkdtemp(prefix="pgweir-bench-")
        os.chmod(self.dir, 0o755)
        if not os.getuid():
            shutil.chown(self.dir, "postgres", "postgres")

    def spawn(self, name, command, port, **options):
        log = open(f"{self.dir}/{name}.log", "w")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)
        self.children.append(process)
        wait_for(port, process, name)
        return process

    def start_postgres(self):
        data, self.pg = f"{self.dir}/data", free_port()
        pw = f"{self.dir}/pw"
        open(pw, "w").write("secret")
        os.chmod(pw, 0o644)
        subprocess.run([find_bin("initdb"), "-D", data, "-U", "bench", "--pwfile", pw, "-A", "scram-sha-256", "-N", "-E", "UTF8",
                        "--locale=C"], check=True, stdout=subprocess.DEVNULL, **unprivileged())
        self.spawn("postgres", [find_bin("postgres"), "-D", data, "-p", str(self.pg), "-k", self.dir, "-c", "listen_addresses=127.0.0.1",
                                "-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=256MB"], self.pg, **unprivileged())
        self.env = dict(os.environ, PGPASSWORD="secret", PGUSER="bench", PGHOST="127.0.0.1", PGSSLMODE="disable")
        for _ in range(100):
            if subprocess.run([find_bin("psql"), "-XAtc", "create database bench", "-p", str(self.pg), "postgres"], env=self.env,
                              capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        subprocess.run([find_bin("pgbench"), "-i", "-s", "10", "-q", "-p", str(self.pg), "bench"], env=self.env, check=True, capture_output=True)
        self.targets["direct"] = (self.pg, None)

    def start_pgbouncer(self, name, mode, pool):
        port = free_port()
        ini = f"{self.dir}/{name}.ini"
        open(f"{self.dir}/users.txt", "w").write('"bench" "secret"\n')
        open(ini, "w").write(f"""[databases]
bench = host=127.0.0.1 port={self.pg} dbname=bench
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {self.dir}/users.txt
pool_mode = {mode}
default_pool_size = {pool}
max_client_conn = 8000
listen_backlog = 4096
ignore_startup_parameters = extra_float_digits
""")
        process = self.spawn(name, [shutil.which("pgbouncer") or "/usr/sbin/pgbouncer", ini], port, **unprivileged())
        self.targets[name] = (port, process.pid)

    def start_pgweir(self, name, pool):
        port = free_port()
        config = f"{self.dir}/{name}.yaml"
        workers = f"workers: {self.args.workers}\n" if self.args.workers else ""
        open(config, "w").write(f"""listen: 127.0.0.1:{port}
{workers}users:
  bench: {{password: secret}}
databases:
  bench:
    primary: "postgres://bench:secret@127.0.0.1:{self.pg}/bench?sslmode=disable"
    pool: {{mode: transaction, size: {pool}}}
""")
        process = self.spawn(name, [self.args.pgweir, "proxy", "-c", config], port)
        self.targets[name] = (port, process.pid)

    def pgbench(self, target, mode, clients=None):
        port, pid = self.targets[target]
        before, start = cpu_seconds(pid) if pid else 0, time.monotonic()
        done = subprocess.run([find_bin("pgbench"), "-S", "-n", "-M", mode, "-c", str(clients or self.args.clients), "-j", "2", "-T",
                               str(self.args.seconds), "-p", str(port), "bench"], env=self.env, capture_output=True, text=True)
        transactions = re.search(r"transactions actually processed: (\d+)", done.stdout)
        failed = re.search(r"number of failed transactions: (\d+)", done.stdout)
        if done.returncode or not transactions or failed and int(failed.group(1)):
            sys.exit(f"pgbench -M {mode} through {target} failed:\n{done.stdout}{done.stderr}")
        n, wall = int(transactions.group(1)), time.monotonic() - start
        return {"tps": n / wall, "cpu_ms_per_1000": (cpu_seconds(pid) - before) * 1e6 / n if pid else None}

    def stream(self, target):
        """A million rows to a client that reads as fast as it can."""
        port, pid = self.targets[target]
        sock, buffer = client.connect(port), bytearray(256 * 1024)
        before, start = cpu_seconds(pid) if pid else 0, time.monotonic()
        total = client.drain(sock, "select * from pgbench_accounts", buffer)
        wall, after = time.monotonic() - start, cpu_seconds(pid) if pid else 0
        sock.close()
        return {"mb_per_s": total / wall / 1e6, "cpu_s_per_gb": (after - before) * 1e9 / total if pid else None}

    def latency(self, names, queries=3000):
        """One query through each target in turn, so that all see the same machine; medians in microseconds."""
        socks = {n: client.connect(self.targets[n][0]) for n in names}
        times = {n: [] for n in names}
        ask, buffer = client.query("select abalance from pgbench_accounts where aid = 1"), bytearray(4096)
        for round in range(queries + 200):
            for n in names:
                start = time.perf_counter_ns()
                socks[n].sendall(ask)
                socks[n].recv_into(buffer)
                if round >= 200:
                    times[n].append((time.perf_counter_ns() - start) / 1e3)
        for sock in socks.values():
            sock.close()
        added = {n: statistics.median(a - b for a, b in zip(times[n], times["direct"])) for n in names if n != "direct"}
        return {n: {"us": statistics.median(times[n]), "added_us": added.get(n)} for n in names}

    def herd(self, target):
        """Memory of clients that do nothing: after their login, after a query of each, after a long answer to each tenth."""
        port, pid = self.targets[target]
        client.connect(port).close()
        empty, socks, out = resident_kib(pid), [], {}
        for step in ("connected", "queried", "streamed"):
            if step == "connected":
                socks = [client.connect(port) for _ in range(self.args.herd)]
            elif step == "queried":
                for sock in socks:
                    client.answer(sock, "select 1, repeat('x', 100)")
            else:
                for sock in socks[::10]:
                    client.answer(sock, "select repeat('x', 1000) from generate_series(1, 1000)")
            time.sleep(1)
            out[step] = (resident_kib(pid) - empty) / self.args.herd
        for sock in socks:
            sock.close()
        return out

    def burst(self, target):
        """All clients ask at once; nobody may be refused."""
        port, count = self.targets[target][0], min(self.args.herd, 4000)
        socks = [client.connect(port, timeout=60) for _ in range(count)]
        start, failures = time.monotonic(), 0
        for sock in socks:
            sock.sendall(client.query("select abalance from pgbench_accounts where aid = 1"))
        for sock in socks:
            data = b""
            while not data.endswith(b"Z\0\0\0\x05I"):
                more = sock.recv(4096)
                data += more
                if not more or data.startswith(b"E"):
                    failures += 1
                    break
        wall = time.monotonic() - start
        for sock in socks:
            sock.close()
        return {"clients": count, "seconds": wall, "failures": failures}

    def churn(self, target, connections=4000):
        port, pid = self.targets[target]
        before = cpu_seconds(pid) if pid else 0
        wall, failures = client.storm(port, connections, 32, "select 1")
        if failures:
            print(f"churn through {target}: {len(failures)} failures, the first: {failures[0]}")
        cpu = (cpu_seconds(pid) - before) * 1e6 / connections if pid else None
        return {"per_s": connections / wall, "failures": len(failures), "cpu_us": cpu}

    def run(self):
        self.start_postgres()
        self.start_pgweir("pgweir", self.args.pool)
        self.start_pgbouncer("pgbouncer", "transaction", self.args.pool)
        self.start_pgbouncer("pgbouncer-session", "session", self.args.clients)
        result = {}
        for mode in self.args.modes.split(","):
            result[mode] = getattr(self, f"run_{mode}")(mode)
            print(flush=True)
            if self.args.json:
                json.dump(result, open(self.args.json, "w"), indent=1)

    def interleaved(self, names, once):
        """Runs `once` for each name in turn, round after round, after one run to warm up."""
        names = [n for n in names if n.split("-")[0] in self.args.only.split(",")]
        runs = {n: [] for n in names}
        for n in names:
            once(n)
        for _ in range(self.args.rounds):
            for n in names:
                runs[n].append(once(n))
        return runs

    def summary(self, mode, runs, peer, keys, against):
        """Medians of `keys`, and the paired ratios of `against`."""
        out = {}
        for n in runs:
            out[n] = {key: statistics.median(r[key] for r in runs[n]) for key in keys if runs[n][0][key] is not None}
            print(f"{mode:10} {n:18} " + "  ".join(f"{key} {value:10.2f}" for key, value in out[n].items()))
        if "pgweir" in runs and peer in runs:
            ratios = [a[against] / b[against] for a, b in zip(runs["pgweir"], runs[peer])]
            out["ratio"] = statistics.median(ratios)
            print(f"{mode:10} pgweir / {peer}: {out['ratio']:.2f} x {against} (min {min(ratios):.2f}, max {max(ratios):.2f})", flush=True)
        return out

    def run_simple(self, mode):
        peer = "pgbouncer-session" if mode == "prepared" else "pgbouncer"
        runs = self.interleaved(["pgweir", peer, "direct"], lambda n: self.pgbench(n, mode))
        return self.summary(mode, runs, peer, ["tps", "cpu_ms_per_1000"], "cpu_ms_per_1000")

    run_extended = run_prepared = run_simple

    def run_throughput(self, mode):
        runs = self.interleaved(["pgweir", "pgbouncer", "direct"], lambda n: self.pgbench(n, "simple", 64))
        return self.summary(mode, runs, "pgbouncer", ["tps", "cpu_ms_per_1000"], "tps")

    def run_stream(self, mode):
        runs = self.interleaved(["pgweir", "pgbouncer", "direct"], self.stream)
        return self.summary(mode, runs, "pgbouncer", ["mb_per_s", "cpu_s_per_gb"], "cpu_s_per_gb")

    def run_latency(self, mode):
        rounds = [self.latency(["direct", "pgweir", "pgbouncer"]) for _ in range(self.args.rounds)]
        out = {n: {key: statistics.median(r[n][key] for r in rounds) for key in rounds[0][n] if rounds[0][n][key] is not None} for n in rounds[0]}
        for n in out:
            print(f"{mode:10} {n:18} " + "  ".join(f"{key} {value:8.1f}" for key, value in out[n].items()))
        return out

    def run_idle(self, mode):
        self.start_pgweir("pgweir-idle", self.args.pool)
        self.start_pgbouncer("pgbouncer-idle", "transaction", self.args.pool)
        out = {n: self.herd(f"{n}-idle") for n in ("pgweir", "pgbouncer")}
        for n in out:
            print(f"{mode:10} {n:18} KiB per client of {self.args.herd}: " + "  ".join(f"{step} {kib:.2f}" for step, kib in out[n].items()))
        return out

    def run_burst(self, mode):
        self.start_pgweir("pgweir-burst", 40)
        self.start_pgbouncer("pgbouncer-burst", "transaction", 40)
        out = {}
        for n in ("pgweir", "pgbouncer"):
            rounds = [self.burst(f"{n}-burst") for _ in range(3)]
            out[n] = {"seconds": statistics.median(r["seconds"] for r in rounds), "failures": sum(r["failures"] for r in rounds)}
            print(f"{mode:10} {n:18} {rounds[0]['clients']} queries in {out[n]['seconds']:.2f} s, {out[n]['failures']} failures")
        return out

    def run_churn(self, mode):
        runs = self.interleaved(["pgweir", "pgbouncer"], self.churn)
        return self.summary(mode, runs, "pgbouncer", ["per_s", "failures", "cpu_us"], "cpu_us")

    def stop(self):
        for process in reversed(self.children):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self.children:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--pool", type=int, default=8)
    parser.add_argument("--modes", default="simple,extended,prepared,throughput,stream,latency,idle,burst,churn")
    parser.add_argument("--workers", type=int, default=0, help="pgweir's workers setting; 0: its default")
    parser.add_argument("--pgweir", default="target/release/pgweir")
    parser.add_argument("--only", default="pgweir,pgbouncer,direct")
    parser.add_argument("--herd", type=int, default=5000, help="clients of idle and burst")
    parser.add_argument("--json")
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    bench = Bench(parser.parse_args())
    try:
        bench.run()
    finally:
        bench.stop()


if __name__ == "__main__":
    main()
