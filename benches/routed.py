#!/usr/bin/env python3
"""What it costs to find the shard of a point select, beside pooling without shards, interleaved in one run.

usage: benches/routed.py [--rounds 5] [--seconds 3] [--clients 16] [--pgweir target/release/pgweir]

Starts a PostgreSQL with two databases, and two pgweirs in front of it: one with both as shards of `pgbench_accounts`, by `aid`; the other with
the first alone, which has all rows. In each round `pgbench -S` runs through either in each of its modes. CPU is the proxy's own for 1000
transactions; `ratio` is that of the sharded database to the other (goal: at most 1.1).
"""
import argparse, os, re, statistics, subprocess, sys

import client
from proxy import cpu_seconds, find_bin
from stage import Stage

ROWS = 100_000
MODES = ("simple", "extended", "prepared")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--pgweir", default="target/release/pgweir")
    args = parser.parse_args()
    stage = Stage("routed")
    try:
        measure(stage, args)
    finally:
        stage.close()


def measure(stage, args):
    server = stage.server("fsync=off", "shared_buffers=256MB")
    stage.psql(server, "create database other")
    pool = "pool: {size: 8}"
    shards = stage.shards([(server, "postgres"), (server, "other")])
    sharding = "sharding: {tables: {pgbench_accounts: {key: aid}}}"
    routed, routed_pid = stage.pgweir(args.pgweir, f"  bench: {{shards: {shards}, {pool}, commit: best-effort, {sharding}}}\n")
    url = f"postgres://postgres@127.0.0.1:{server}/whole?sslmode=disable"
    stage.psql(server, "create database whole")
    plain, plain_pid = stage.pgweir(args.pgweir, f"  bench: {{primary: \"{url}\", {pool}}}\n")
    table = "create table pgbench_accounts (aid int primary key, bid int, abalance int, filler char(84))"
    rows = f"insert into pgbench_accounts select i, 1, 0, '' from generate_series(1, {ROWS}) i"
    for port in (plain, routed):
        sock = client.connect(port, timeout=120)
        for sql in (table, rows):
            client.answer(sock, sql)
    targets = {"sharded": (routed, routed_pid), "plain": (plain, plain_pid)}
    took = {(mode, name): [] for mode in MODES for name in targets}
    for _ in range(args.rounds):
        for mode in args.modes.split(","):
            for name, (port, pid) in targets.items():
                took[mode, name].append(run(args, stage, port, pid, mode))
    print(f"{'CPU ms per 1000':16} {'sharded':>8} {'plain':>8} {'ratio':>6}")
    for mode in args.modes.split(","):
        medians = [statistics.median(took[mode, name]) for name in targets]
        ratio = statistics.median(one / other for one, other in zip(took[mode, "sharded"], took[mode, "plain"]))
        print(f"{mode:16} {medians[0]:8.2f} {medians[1]:8.2f} {ratio:6.2f}")


def run(args, stage, port, pid, mode):
    script = f"{stage.dir}/select.sql"
    with open(script, "w") as file:
        file.write(f"\\set aid random(1, {ROWS})\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n")
    command = [find_bin("pgbench"), "-h", "127.0.0.1", "-p", str(port), "-U", "bench", "-n", "-f", script, "-M", mode,
               "-c", str(args.clients), "-j", "2", "-T", str(args.seconds), "bench"]
    before = cpu_seconds(pid)
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PGPASSWORD": "secret"})
    spent = cpu_seconds(pid) - before
    found = re.search(r"actually processed: (\d+)", done.stdout)
    if done.returncode or not found or "aborted" in done.stderr:
        sys.exit(f"pgbench failed:\n{done.stdout}{done.stderr}")
    return spent * 1e6 / int(found.group(1))


if __name__ == "__main__":
    main()
