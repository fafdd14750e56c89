#!/usr/bin/env python3
"""Compare pgweir with PgBouncer and with no proxy at all, interleaved in one run.

usage: benches/proxy.py [--rounds 5] [--seconds 4] [--clients 16] [--pool 8] [--modes simple,extended,prepared]
                        [--workers N] [--pgweir target/release/pgweir] [--only pgweir,pgbouncer,direct] [--json FILE]

Starts one PostgreSQL in a temporary directory, PgBouncer and pgweir in front of it, and runs `pgbench -S`
through each in turn. CPU is the proxy process's own utime + stime over a run (/proc/PID/stat), so PostgreSQL's
and pgbench's share are left out. Medians over the rounds; ratios are medians of the rounds' paired ratios.

PgBouncer before 1.21 cannot keep named prepared statements in transaction mode, so for `prepared` it runs in
session mode, with a pool as large as the number of clients.

Needs: postgresql, pgbench, pgbouncer (Debian packages) and a release build of pgweir. Traffic stays on 127.0.0.1.
"""
import argparse, glob, json, os, pwd, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

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
    """utime + stime of a process with all its threads."""
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
        subprocess.run([find_bin("pgbench"), "-i", "-s", "5", "-q", "-p", str(self.pg), "bench"], env=self.env, check=True, capture_output=True)
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
max_client_conn = 6000
ignore_startup_parameters = extra_float_digits
""")
        process = self.spawn(name, [shutil.which("pgbouncer") or "/usr/sbin/pgbouncer", ini], port, **unprivileged())
        self.targets[name] = (port, process.pid)

    def start_pgweir(self):
        port = free_port()
        config = f"{self.dir}/pgweir.yaml"
        workers = f"workers: {self.args.workers}\n" if self.args.workers else ""
        open(config, "w").write(f"""listen: 127.0.0.1:{port}
{workers}users:
  bench: {{password: secret}}
databases:
  bench:
    primary: "postgres://bench:secret@127.0.0.1:{self.pg}/bench?sslmode=disable"
    pool: {{mode: transaction, size: {self.args.pool}}}
""")
        process = self.spawn("pgweir", [self.args.pgweir, "proxy", "-c", config], port)
        self.targets["pgweir"] = (port, process.pid)

    def pgbench(self, target, mode):
        port, pid = self.targets[target]
        before, start = cpu_seconds(pid) if pid else 0, time.monotonic()
        done = subprocess.run([find_bin("pgbench"), "-S", "-n", "-M", mode, "-c", str(self.args.clients), "-j", "2", "-T",
                               str(self.args.seconds), "-p", str(port), "bench"], env=self.env, capture_output=True, text=True)
        transactions = re.search(r"transactions actually processed: (\d+)", done.stdout)
        failed = re.search(r"number of failed transactions: (\d+)", done.stdout)
        if done.returncode or not transactions or failed and int(failed.group(1)):
            sys.exit(f"pgbench -M {mode} through {target} failed:\n{done.stdout}{done.stderr}")
        n, wall = int(transactions.group(1)), time.monotonic() - start
        return {"tps": n / wall, "cpu_ms_per_1000": (cpu_seconds(pid) - before) * 1e6 / n if pid else None}

    def run(self):
        self.start_postgres()
        self.start_pgweir()
        self.start_pgbouncer("pgbouncer", "transaction", self.args.pool)
        self.start_pgbouncer("pgbouncer-session", "session", self.args.clients)
        result = {}
        for mode in self.args.modes.split(","):
            peer = "pgbouncer-session" if mode == "prepared" else "pgbouncer"
            names = [n for n in ("pgweir", peer, "direct") if n.split("-")[0] in self.args.only.split(",")]
            runs = {n: [] for n in names}
            for n in names:
                self.pgbench(n, mode)
            for _ in range(self.args.rounds):
                for n in names:
                    runs[n].append(self.pgbench(n, mode))
            result[mode] = self.summary(mode, runs, peer)
        for name in ("pgweir", "pgbouncer"):
            print(f"{name}: {resident_kib(self.targets[name][1]) / 1024:.1f} MiB resident at the end")
        if self.args.json:
            json.dump(result, open(self.args.json, "w"), indent=1)

    def summary(self, mode, runs, peer):
        median = lambda n, key: statistics.median(r[key] for r in runs[n])
        out = {}
        for n in runs:
            cpu = median(n, "cpu_ms_per_1000") if runs[n][0]["cpu_ms_per_1000"] is not None else None
            out[n] = {"tps": median(n, "tps"), "cpu_ms_per_1000": cpu}
            print(f"{mode:9} {n:18} {out[n]['tps']:9.0f} tps" + (f"  {cpu:6.2f} CPU ms per 1000 transactions" if cpu else ""))
        if "pgweir" in runs and peer in runs:
            ratios = [a["cpu_ms_per_1000"] / b["cpu_ms_per_1000"] for a, b in zip(runs["pgweir"], runs[peer])]
            out["ratio"] = statistics.median(ratios)
            print(f"{mode:9} pgweir / {peer}: {out['ratio']:.2f} x CPU (min {min(ratios):.2f}, max {max(ratios):.2f})\n", flush=True)
        return out

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


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--seconds", type=int, default=4)
parser.add_argument("--clients", type=int, default=16)
parser.add_argument("--pool", type=int, default=8)
parser.add_argument("--modes", default="simple,extended,prepared")
parser.add_argument("--workers", type=int, default=0, help="pgweir's workers setting; 0: its default")
parser.add_argument("--pgweir", default="target/release/pgweir")
parser.add_argument("--only", default="pgweir,pgbouncer,direct")
parser.add_argument("--json")
bench = Bench(parser.parse_args())
try:
    bench.run()
finally:
    bench.stop()
