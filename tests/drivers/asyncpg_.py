"""asyncpg: binary results, its own statement cache, pools, cursors, listeners."""
import asyncio
import datetime
import decimal
import uuid

import asyncpg

from scenario import DSN, TAG, error_of, show

T = f"items_{TAG}"


async def types(conn):
    cases = [("int8", -(2**62)), ("numeric", decimal.Decimal("1.500")), ("text", "çé 𝄞"), ("bytea", b"\x00\xff"), ("bool", True),
             ("date", datetime.date(2024, 2, 29)), ("timestamptz", datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)),
             ("uuid", uuid.UUID(int=9)), ("int[]", [[1, 2], [3, 4]]), ("json", '{"a": 1}'), ("interval", datetime.timedelta(days=2)),
             ("int4range", asyncpg.Range(1, 5)), ("inet", None), ("float8", float("inf"))]
    for name, value in cases:
        show(name, await conn.fetchval(f"select $1::{name}", value))


async def statements(conn):
    for n in range(5):
        show("cached", await conn.fetch(f"select id, name from {T} where id > $1 order by id limit 2", n))
    statement = await conn.prepare("select $1::int + $2::int")
    show("prepared", [await statement.fetchval(1, n) for n in range(3)])
    show("parameters", [(p.name, p.kind) for p in statement.get_parameters()])
    show("attributes", [(a.name, a.type.name) for a in statement.get_attributes()])
    await conn.executemany(f"insert into {T} (name) values ($1)", [(f"n{n}",) for n in range(50)])
    show("executemany", await conn.fetchval(f"select count(*) from {T}"))
    show("status", await conn.execute(f"update {T} set name = name where id < $1", 4))
    show("script", await conn.execute(f"select 1; insert into {T} (name) values ('s'); select 2"))
    for sql in ["selec", "select 1/0", f"insert into {T} (id) values (1)"]:
        try:
            await conn.fetch(sql)
        except asyncpg.PostgresError as error:
            show("error", error_of(error))


async def changed_types(conn):
    for kind, value in [("int", 5), ("text", "five"), ("date", datetime.date(2024, 1, 5))]:
        await conn.execute(f"create table shape_{TAG} (v {kind})")
        await conn.execute(f"insert into shape_{TAG} values ($1)", value)
        show("same text, other table", await conn.fetch(f"select v from shape_{TAG}"))
        await conn.execute(f"drop table shape_{TAG}")
        await conn.reload_schema_state()


async def transactions(conn):
    async with conn.transaction():
        async with conn.transaction():
            await conn.execute(f"insert into {T} (name) values ('inner')")
        async for row in conn.cursor(f"select id from {T} order by id", prefetch=7):
            if row["id"] in (1, 20, 40):
                show("cursor", row)
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        show("isolation", await conn.fetchval("show transaction_isolation"))


async def copies(conn):
    show("records", await conn.copy_records_to_table(T, records=[(f"r{n}",) for n in range(500)], columns=["name"]))
    chunks = []

    async def keep(data):
        chunks.append(data)

    show("out", await conn.copy_from_query(f"select id from {T} order by id limit 3", output=keep, format="csv"))
    show("bytes", b"".join(chunks))


async def listeners(conn):
    channel, heard = f"chan_{TAG}", asyncio.Queue()
    await conn.add_listener(channel, lambda c, pid, ch, payload: heard.put_nowait((c is conn, ch, payload)))
    other = await asyncpg.connect(DSN)
    await other.execute(f"notify {channel}, 'hello'")
    show("heard", await asyncio.wait_for(heard.get(), 10))
    await conn.fetchval("select 1")
    await other.execute("select pg_notify($1, 'again')", channel)
    show("heard", await asyncio.wait_for(heard.get(), 10))
    await other.close()
    await conn.remove_listener(channel, lambda *a: None)
    await conn.reset()


async def cancelling(conn):
    for _ in range(3):
        try:
            await asyncio.wait_for(conn.fetch("select pg_sleep(30)"), 0.2)
        except asyncio.TimeoutError:
            show("cancelled", True)
        show("after", await conn.fetchval("select 42"))
    try:
        await conn.fetch("select pg_sleep(30)", timeout=0.2)
    except asyncio.TimeoutError:
        show("timed out", await conn.fetchval("select 43"))


async def pool():
    async def job(pool, number):
        async with pool.acquire() as conn:
            await conn.execute(f"set application_name to 'job-{number}'")
            async with conn.transaction():
                return (await conn.fetchval("show application_name") == f"job-{number}", await conn.fetchval("select $1::int", number))

    async with asyncpg.create_pool(DSN, min_size=2, max_size=8) as pool:
        show("pool", await asyncio.gather(*(job(pool, n) for n in range(40))))


async def main():
    conn = await asyncpg.connect(DSN)
    await conn.execute(f"create table {T} (id int primary key generated always as identity, name text)")
    await conn.execute(f"insert into {T} (name) values ('a'), ('b'), ('c')")
    for part in (types, statements, changed_types, transactions, copies, listeners, cancelling):
        await part(conn)
    await pool()
    await conn.execute(f"drop table {T}")
    await conn.close()


asyncio.run(main())
