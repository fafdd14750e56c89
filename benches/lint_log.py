#!/usr/bin/env python3
"""Writes a PostgreSQL stderr log of about MEGABYTES to FILE: the same bytes each time.

A mix as production logs have it: simple and extended protocol (parse, bind, execute, DETAIL), multi-line statements,
errors with STATEMENT, background lines, 200 templates whose literals differ, 40 sessions interleaved.
"""
import random
import sys

megabytes, path = int(sys.argv[1]), sys.argv[2]
rng = random.Random(20261122)
columns = ["id", "customer_id", "status", "total", "created_at", "updated_at", "email", "name", "country", "note"]
tables = ["orders", "customers", "order_items", "products", "events", "sessions", "invoices", "payments"]


def shape(number):
    own = random.Random(number)
    table, other = own.choice(tables), own.choice(tables)
    some = ", ".join(own.sample(columns, own.randint(1, 5)))
    column, second = own.choice(columns), own.choice(columns)
    return [
        f"SELECT {some} FROM {table} WHERE {column} = %s",
        f"SELECT {some} FROM {table} WHERE {column} = %s AND {second} > %s ORDER BY {second} DESC LIMIT 20",
        f"SELECT t.{column}, o.{second}, count(*) FROM {table} t\n\t  JOIN {other} o ON o.{table}_id = t.id\n\t WHERE t.status = %s\n\t   AND o.total > %s\n\t GROUP BY t.{column}, o.{second}",
        f"INSERT INTO {table} ({column}, {second}) VALUES (%s, %s) RETURNING id",
        f"UPDATE {table} SET {column} = %s, updated_at = now() WHERE id = %s",
        f"SELECT * FROM {table} WHERE {column} IN (%s, %s, %s, %s)",
        f"DELETE FROM {table} WHERE id = %s",
    ][number % 7]


shapes = [shape(number) for number in range(200)]
literals = [str(number) for number in range(0, 90000, 7)] + [f"'{word}-{number}'" for number in range(900) for word in ("open", "ann@example.org", "o''neil")]


def filled(text, take):
    return text % tuple(take(at) for at in range(text.count("%s")))


pids = list(range(4200, 4240))
written, clock = 0, 0
with open(path, "w", encoding="utf-8") as out:
    while written < megabytes * 1_000_000:
        clock += rng.randint(1, 9)
        milliseconds, seconds = clock % 1000, clock // 1000
        time = f"2026-11-{1 + seconds // 86400 % 28:02} {seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{milliseconds:03} UTC"
        head = f"{time} [{rng.choice(pids)}] app@shop "
        text, kind = rng.choice(shapes), rng.random()
        took = f"{rng.expovariate(0.4):.3f} ms"
        if kind < 0.45:
            lines = f"{head}LOG:  duration: {took}  statement: {filled(text, lambda at: rng.choice(literals))}\n"
        elif kind < 0.95:
            sql = filled(text, lambda at: f"${at + 1}")
            values = ", ".join(f"${at + 1} = '{rng.randint(1, 10**6)}'" for at in range(text.count("%s")))
            detail = f"{head}DETAIL:  parameters: {values}\n"
            lines = (
                f"{head}LOG:  duration: 0.0{rng.randint(10, 99)} ms  parse <unnamed>: {sql}\n"
                f"{head}LOG:  duration: 0.0{rng.randint(10, 99)} ms  bind <unnamed>: {sql}\n{detail}"
                f"{head}LOG:  duration: {took}  execute <unnamed>: {sql}\n{detail}"
            )
        elif kind < 0.98:
            lines = f"{head}ERROR:  duplicate key value violates unique constraint \"x\"\n{head}DETAIL:  Key (id)=(7) already exists.\n{head}STATEMENT:  {filled(text, lambda at: rng.choice(literals))}\n"
        else:
            lines = f"{time} [77] LOG:  checkpoint complete: wrote 42 buffers (0.3%)\n"
        out.write(lines)
        written += len(lines)
