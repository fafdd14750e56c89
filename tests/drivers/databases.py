"""psycopg 3: databases that are made, copied and dropped, as test runners do it."""
import psycopg

from scenario import DATABASE, DSN, TAG, error_of, show

FIRST, COPY, LAST = f"test_{TAG}", f"copy_{TAG}", f"last_{TAG}"


def connect(database):
    return psycopg.connect(DSN.removesuffix(DATABASE) + database, autocommit=True)


def tried(conn, sql):
    try:
        conn.execute(sql)
        return "ok"
    except psycopg.Error as error:
        return error_of(error)


with connect(DATABASE) as conn:
    show("create", tried(conn, f"create database {FIRST}"))
    for round in range(3):
        with connect(FIRST) as own:
            own.execute("create table if not exists t (id int)")
            own.execute("insert into t values (%s)", [round])
            show("rows", own.execute("select count(*) from t").fetchone())
        show("copy", tried(conn, f"create database {COPY} template {FIRST}"))
        with connect(COPY) as own:
            show("rows of the copy", own.execute("select count(*) from t").fetchone())
        show("rename", tried(conn, f"alter database {COPY} rename to {LAST}"))
        with connect(LAST) as own:
            show("rows under its new name", own.execute("select count(*) from t").fetchone())
        show("drop", tried(conn, f"drop database {LAST}"))
        show("again", tried(conn, f"drop database {LAST}"))
    show("drop", tried(conn, f"drop database {FIRST}"))
    show("in a transaction", tried(conn, "begin; drop database x"))
    conn.execute("rollback")
    show("missing", tried(conn, f"drop database if exists {FIRST}"))
