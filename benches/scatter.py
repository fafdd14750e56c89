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
import argparse, statistics, time

import client
from proxy import cpu_seconds
from stage import Stage

SHARDS = 4
QUERIES = {
    "order": "select id, pad, n from t order by id",
    "top": "select id, n from t order by n desc limit 10",
    "count": "select count(*) from t",
    "group": "select n % 7 as g, count(*), sum(n), avg(n) from t group by n % 7 order by 1",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pgweir", default="target/release/pgweir")
    args = parser.parse_args()
    stage = Stage("scatter")
    try:
        measure(stage, args)
    finally:
        stage.close()


def measure(stage, args):
    server = stage.server("fsync=off", "shared_buffers=512MB")
    for name in ["one"] + [f"s{at}" for at in range(SHARDS)]:
        stage.psql(server, f"create database {name}")
    shards = stage.shards([(server, f"s{at}") for at in range(SHARDS)])
    port, pgweir = stage.pgweir(args.pgweir, f"  bench: {{shards: {shards}, commit: best-effort, "
                                f"sharding: {{tables: {{t: {{key: id}}}}, max_collected: 4GB}}}}\n")
    one = client.connect(server, user="postgres", database="one", timeout=600)
    several = client.connect(port, timeout=600)
    for sock in (one, several):
        client.answer(sock, "create table t (id bigint primary key, n bigint not null, pad text not null)")
    chunk = 100_000
    for start in range(0, args.rows, chunk):
        rows = f"select i, i::bigint * 7919 % 1000003, repeat('x', 60) from generate_series({start + 1}, {min(start + chunk, args.rows)}) i"
        for sock in (one, several):
            client.answer(sock, f"insert into t {rows}")
    for database in ["one"] + [f"s{at}" for at in range(SHARDS)]:
        stage.psql(server, "vacuum analyze t", database)
    buffer = bytearray(1 << 20)
    took = {(name, who): [] for name in QUERIES for who in ("one", "pgweir", "cpu", "bytes")}
    for _ in range(args.rounds):
        for name, sql in QUERIES.items():
            started = time.perf_counter()
            client.drain(one, sql, buffer)
            took[name, "one"].append(time.perf_counter() - started)
            cpu, started = cpu_seconds(pgweir), time.perf_counter()
            took[name, "bytes"].append(client.drain(several, sql, buffer))
            took[name, "pgweir"].append(time.perf_counter() - started)
            took[name, "cpu"].append(cpu_seconds(pgweir) - cpu)
    size = statistics.median(took["order", "bytes"]) / 1e6
    print(f"{args.rows} rows, {size:.0f} MB in order")
    print(f"{'':6} {'one s':>8} {'pgweir s':>9} {'cpu s':>7} {'per core':>9}")
    for name in QUERIES:
        plain, routed, cpu, size = (statistics.median(took[name, who]) for who in ("one", "pgweir", "cpu", "bytes"))
        share = f"{plain / cpu:9.2f}" if name == "order" and cpu > 0 else ""
        print(f"{name:6} {plain:8.3f} {routed:9.3f} {cpu:7.3f} {share}")


if __name__ == "__main__":
    main()
