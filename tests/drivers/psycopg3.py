"""psycopg 3: the ways an application uses a connection, one after the other."""
import datetime
import decimal
import threading
import time
import uuid

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from scenario import DSN, TAG, error_of, show

T = f"people_{TAG}"


def connect(**options):
    return psycopg.connect(DSN, **options)


def types(conn):
    values = [1, -(2**62), 1.5, decimal.Decimal("12345678901234567890.000100"), "çé 𝄞 '\"\\", b"\x00\xff", True, None,
              datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 1, 2, 3, 456), uuid.UUID(int=7), [1, 2, 3],
              ["a", None, 'b"\\'], datetime.timedelta(days=3, seconds=5)]
    for binary in (False, True):
        with conn.cursor(binary=binary) as cur:
            for value in values:
                cur.execute("select %s" if value is None else f"select %{'b' if binary else 't'}", [value])
                show(f"type binary={binary}", cur.fetchone())
            cur.execute("select %s, '{1,2}'::int[], 'infinity'::float8, 'NaN'::numeric, interval '1 day', '[1,3)'::int4range",
                        [Jsonb({"a": [1, None]})])
            show("types", cur.fetchone())


def prepared(conn):
    for n in range(8):
        show("auto-prepared", conn.execute(f"select count(*), %s::int from {T} where id > %s", [n, n]).fetchone())
    for n in range(3):
        show("prepared", conn.execute(f"select name from {T} where id = %s", [n], prepare=True).fetchall())
    conn.execute(f"alter table {T} add column extra int default 7")
    for n in range(3):
        show("after DDL", conn.execute(f"select * from {T} where id = %s", [n + 1], prepare=True).fetchall())
    conn.execute(f"alter table {T} add column extra2 text default 'x'")
    for n in range(3):
        show("after more DDL", conn.execute(f"select * from {T} where id = %s", [n + 1], prepare=True).fetchall())
    conn.execute(f"alter table {T} drop column extra, drop column extra2")


def transactions(conn):
    try:
        with conn.transaction():
            conn.execute(f"insert into {T} (name) values ('rolled back')")
            raise ValueError("no")
    except ValueError as error:
        show("rolled back", error)
    with conn.transaction():
        conn.execute(f"insert into {T} (name) values ('kept')")
        try:
            with conn.transaction():
                conn.execute("select 1/0")
        except psycopg.Error as error:
            show("savepoint", error_of(error))
        show("still in it", conn.execute(f"select count(*) from {T}").fetchone())
    show("after", conn.execute(f"select name from {T} order by id").fetchall())
    for sql in ["selec", "select * from nowhere", f"insert into {T} (id) values (1)", "select 'x'::int"]:
        try:
            conn.execute(sql)
        except psycopg.Error as error:
            show("error", error_of(error))


def pipelines(conn):
    with conn.pipeline():
        cursors = [conn.execute("select %s::int * 2", [n]) for n in range(20)]
        show("pipeline", [cur.fetchone() for cur in cursors])
    try:
        with conn.pipeline() as pipe:
            first = conn.execute("select 1")
            conn.execute("select 1/0")
            conn.execute("select 2")
            pipe.sync()
            show("never", first.fetchone())
    except psycopg.Error as error:
        show("pipeline error", error_of(error))
    show("after the pipeline", conn.execute("select 3").fetchone())
    with conn.cursor() as cur:
        cur.executemany(f"insert into {T} (name) values (%s) returning name", [(f"n{n}",) for n in range(30)], returning=True)
        names = []
        while True:
            names.append(cur.fetchone()[0])
            if not cur.nextset():
                break
        show("executemany", names)


def copies(conn):
    with conn.cursor() as cur:
        with cur.copy(f"copy {T} (name) from stdin") as copy:
            for n in range(1000):
                copy.write_row((f"copied {n}",))
        show("copied", cur.rowcount)
        with cur.copy(f"copy (select id, name from {T} order by id limit 5) to stdout") as copy:
            show("rows out", list(copy.rows()))
        with cur.copy(f"copy (select id from {T} order by id limit 5) to stdout (format binary)") as copy:
            show("binary out", b"".join(copy).hex())
        try:
            with cur.copy(f"copy {T} (id) from stdin") as copy:
                copy.write("not a number\n")
        except psycopg.Error as error:
            show("copy error", error_of(error))
        try:
            with cur.copy(f"copy {T} (name) from stdin") as copy:
                copy.write("half\n")
                raise ValueError("gave up")
        except ValueError as error:
            show("copy given up", error)
    show("usable", conn.execute(f"select count(*) from {T}").fetchone())


def cursors(conn):
    with conn.transaction():
        with conn.cursor("named", scrollable=True) as cur:
            cur.execute(f"select id from {T} order by id")
            show("first", cur.fetchmany(3))
            cur.scroll(10)
            show("later", cur.fetchone())
            cur.scroll(0, mode="absolute")
            show("again", cur.fetchone())
    with conn.cursor(f"held_{TAG}", withhold=True) as cur:
        cur.execute(f"select id from {T} order by id")
        show("held", cur.fetchmany(2))
        show("another statement", conn.execute("select 1").fetchone())
        show("still held", cur.fetchmany(2))
    with conn.cursor(row_factory=dict_row) as cur:
        show("stream", [row["n"] for row in cur.stream("select n from generate_series(1, 10) n")])


def session_state(conn):
    conn.execute("set timezone to 'Asia/Tokyo'")
    show("timezone", conn.execute("show timezone").fetchone())
    show("reported", conn.info.timezone)
    conn.execute("select set_config('app.tenant', %s, false)", [TAG])
    show("tenant", conn.execute("select current_setting('app.tenant')").fetchone())
    try:
        with conn.transaction():
            conn.execute("set statement_timeout = '123s'")
            show("inside", conn.execute("show statement_timeout").fetchone())
            raise ValueError
    except ValueError:
        show("undone", conn.execute("show statement_timeout").fetchone())
    with conn.transaction():
        conn.execute("set local work_mem = '12MB'")
        show("local", conn.execute("show work_mem").fetchone())
    show("gone", conn.execute("show work_mem").fetchone())
    conn.execute(f"create temp table scratch_{TAG} (x int)")
    conn.execute(f"insert into scratch_{TAG} values (1), (2)")
    show("temporary", conn.execute(f"select sum(x) from scratch_{TAG}").fetchone())
    conn.execute(f"drop table scratch_{TAG}")
    lock = sum(map(ord, TAG))
    conn.execute("select pg_advisory_lock(%s)", [lock])
    show("locked", conn.execute("select pg_advisory_unlock(%s)", [lock]).fetchone())
    conn.execute(f"prepare mine_{TAG} (int) as select $1 + 1")
    show("execute", conn.execute(f"execute mine_{TAG} (41)").fetchone())
    conn.execute(f"deallocate mine_{TAG}")
    conn.execute("reset timezone")
    conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    with conn.transaction():
        show("isolation", conn.execute("show transaction_isolation").fetchone())
    conn.isolation_level = None
    conn.read_only = True
    try:
        with conn.transaction():
            conn.execute(f"delete from {T}")
    except psycopg.Error as error:
        show("read only", error_of(error))
    conn.read_only = None


def notifications(conn):
    channel = f"channel_{TAG}"
    conn.execute(f"listen {channel}")
    with connect(autocommit=True) as other:
        other.execute("select pg_notify(%s, 'one')", [channel])
        with other.transaction():
            other.execute(f"notify {channel}, 'two'")
    show("notified", [(n.channel, n.payload) for n in conn.notifies(timeout=10, stop_after=2)])
    conn.execute(f"notify {channel}, 'own'")
    own = list(conn.notifies(timeout=10, stop_after=1))
    show("own", [(n.channel, n.payload, n.pid == conn.info.backend_pid) for n in own])
    conn.execute(f"unlisten {channel}")


def cancelling(conn):
    for _ in range(3):
        timer = threading.Timer(0.2, conn.cancel_safe)
        timer.start()
        try:
            conn.execute("select pg_sleep(30)")
        except psycopg.Error as error:
            show("cancelled", error_of(error))
        timer.join()
        show("after", conn.execute("select 1").fetchone())


def notices(conn):
    seen = []
    conn.add_notice_handler(lambda notice: seen.append((notice.severity, notice.message_primary)))
    conn.execute("do $$ begin raise notice 'hello %', 1; raise warning 'careful'; end $$")
    conn.execute("create table if not exists pg_temp.nothing ()")
    conn.execute("create table if not exists pg_temp.nothing ()")
    conn.execute("discard all")
    show("notices", seen)


def many_at_once():
    results = []

    def one(number):
        with connect(autocommit=number % 2 == 0) as conn:
            mine = f"{TAG}-{number}"
            conn.execute("select set_config('app.me', %s, false)", [mine])
            ok = all(conn.execute("select current_setting('app.me'), %s::int", [n], prepare=n % 3 == 0).fetchone() == (mine, n)
                     for n in range(40))
            results.append(ok)

    threads = [threading.Thread(target=one, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    show("many at once", results)


def main():
    with connect(autocommit=True) as conn:
        conn.execute(f"create table {T} (id int primary key generated always as identity, name text)")
        conn.execute(f"insert into {T} (name) values ('a'), ('b'), (null)")
        for part in (types, prepared, transactions, pipelines, copies, cursors, session_state, notices, notifications, cancelling):
            part(conn)
        many_at_once()
        conn.execute(f"drop table {T}")
        show("open", (conn.closed, conn.info.transaction_status.name))
    with connect() as conn:
        conn.execute("select 1")
        show("in a transaction", conn.info.transaction_status.name)
        conn.rollback()
    time.sleep(0)


main()
