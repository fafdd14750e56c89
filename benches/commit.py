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
import argparse, statistics, time

import client
from stage import Stage

PAUSE = 0.002


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
    stage = Stage("commit")
    try:
        measure(stage, args)
    finally:
        stage.close()


def measure(stage, args):
    servers = [stage.server("max_prepared_transactions=20") for _ in range(2)]
    for server in servers:
        stage.psql(server, "create table a (id bigint primary key, n bigint not null)")
    shards = stage.shards([(server, "postgres") for server in servers])
    database = f"  bench: {{shards: {shards}, sharding: {{tables: {{a: {{key: id}}}}}}, commit: %s}}\n"
    atomic, _ = stage.pgweir(args.pgweir, database % "atomic", prepare="init")
    best, _ = stage.pgweir(args.pgweir, database % "best-effort")
    socks = {"atomic": client.connect(atomic), "best": client.connect(best)}
    socks["one"] = socks["atomic"]
    socks["direct"] = client.connect(servers[0], user="postgres", database="postgres")
    for row in range(1, 41):
        client.answer(socks["atomic"], f"insert into a values ({row}, 0)")
    here = [[int(row) for row in stage.psql(port, "select id from a order by id").split()] for port in servers]
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
