#!/usr/bin/env python3
"""Run `pgweir advise indexes` on TPC-H and TPC-DS under storage budgets, and score the answers independently.

usage: advise.py OUT [--scale 0.1] [--only tpch|tpcds] [--binary target/release/pgweir] [--budgets 24,47] [--extra FLAGS]

A temporary PostgreSQL with HypoPG is started in OUT, the data sets are made by DuckDB's wheels, and each answer is scored
like this: its indexes are made hypothetically, EXPLAIN's total cost is summed over the queries and divided by
the sum without them; their size is HypoPG's. Budgets are in MB of 1,000,000 bytes. `target` is 90 % of the best
cost that Extend, DB2Advis, Dexter or index_advisor reach with plain B-trees within that budget on the same data.
"""
import argparse, importlib.util, json, os, pwd, socket, subprocess, sys, time

WHEELS = ["duckdb==1.5.5", "duckdb-extension-tpch==1.5.5", "duckdb-extension-tpcds==1.5.5", "psycopg[binary]>=3.1"]
GENERATORS = {"tpch": "dbgen", "tpcds": "dsdgen"}
# Without an index these run for minutes, so the published comparisons leave them out.
LEFT_OUT = {"tpch": {2, 17, 20}, "tpcds": {4, 6, 9, 10, 11, 32, 35, 41, 95}}
TARGETS = {
    "tpch": {9: 83.4, 24: 58.2, 45: 52.7, 47: 50.1, 76: 44.4, 91: 43.4, 94: 40.6, 95: 39.2, 106: 39.0, 184: 36.5, 190: 36.1},
    "tpcds": {47: 57.2, 57: 50.3, 99: 39.9, 142: 36.7, 197: 32.7},
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--only", choices=sorted(GENERATORS))
    parser.add_argument("--binary", default="target/release/pgweir")
    parser.add_argument("--budgets", help="MB, separated by commas; 0 is none")
    parser.add_argument("--extra", default="", help="more flags for pgweir")
    parser.add_argument("--pg", default="/usr/lib/postgresql/15/bin", help="where PostgreSQL's programs are")
    parser.add_argument("--url", help="a server that already has the databases, instead of a temporary one")
    parser.add_argument("--keep", action="store_true", help="print the indexes of each answer")
    return parser.parse_args()


def with_wheels(out):
    """Runs this script again in a virtual environment that has the wheels, unless they are here."""
    needed = ("duckdb", "duckdb_extension_tpch", "duckdb_extension_tpcds", "psycopg")
    if all(importlib.util.find_spec(module) for module in needed):
        return
    venv = os.path.join(os.path.abspath(out), "venv")
    if sys.prefix == venv:
        sys.exit("the wheels did not install")
    subprocess.check_call([sys.executable, "-m", "venv", venv])
    subprocess.check_call([venv + "/bin/pip", "install", "-q", *WHEELS])
    os.execv(venv + "/bin/python", [venv + "/bin/python", *sys.argv])


class Server:
    """A temporary PostgreSQL on a free port, as the user postgres when this is root."""

    def __init__(self, out, programs):
        self.folder, self.programs = os.path.join(os.path.abspath(out), "pg"), programs
        self.as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        self.user = "postgres" if self.as_user else pwd.getpwuid(os.getuid()).pw_name
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        if not os.path.exists(self.folder):
            os.makedirs(self.folder)
            if self.as_user:
                os.chown(self.folder, *pwd.getpwnam("postgres")[2:4])
            self.run("initdb", "-D", self.folder + "/data", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off -c autovacuum=off"
        self.run("pg_ctl", "-D", self.folder + "/data", "-l", self.folder + "/log", "-o", settings, "-w", "start")
        self.url = f"postgresql://{self.user}@127.0.0.1:{port}/"

    def run(self, program, *words):
        subprocess.run([*self.as_user, f"{self.programs}/{program}", *words], check=True, stdout=subprocess.DEVNULL, cwd="/")

    def stop(self):
        self.run("pg_ctl", "-D", self.folder + "/data", "-m", "fast", "stop")


def connect(url, database):
    import psycopg

    return psycopg.connect(url + database, autocommit=True)


def is_loaded(url, name):
    with connect(url, "postgres") as connection:
        return connection.execute("select from pg_database where datname = %s", [name]).fetchone() is not None


def load(url, name, scale):
    """Makes the database: tables without any key or index, analyzed."""
    import duckdb

    data = duckdb.connect()
    wheel = importlib.util.find_spec("duckdb_extension_" + name).submodule_search_locations[0]
    data.execute(f"LOAD '{wheel}/extensions/v{duckdb.__version__}/{name}.duckdb_extension'")
    data.execute(f"CALL {GENERATORS[name]}(sf={scale})")
    with connect(url, "postgres") as connection:
        connection.execute(f"CREATE DATABASE {name}")
    with connect(url, name) as connection:
        connection.execute("CREATE EXTENSION hypopg")
        for (table,) in data.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall():
            columns = data.execute(
                "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = ? ORDER BY ordinal_position",
                [table],
            ).fetchall()
            typed = ", ".join(f"{column} {'double precision' if kind == 'DOUBLE' else kind}" for column, kind in columns)
            connection.execute(f"CREATE TABLE {table} ({typed})")
            rows = data.execute(f"SELECT * FROM {table}")
            with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN") as copy:
                while batch := rows.fetchmany(10_000):
                    for row in batch:
                        copy.write_row(row)
        connection.execute("ANALYZE")


def queries(name):
    import duckdb

    data = duckdb.connect()
    wheel = importlib.util.find_spec("duckdb_extension_" + name).submodule_search_locations[0]
    data.execute(f"LOAD '{wheel}/extensions/v{duckdb.__version__}/{name}.duckdb_extension'")
    rows = data.execute(f"SELECT query_nr, query FROM {name}_queries() ORDER BY 1").fetchall()
    return [(number, text.strip().rstrip(";")) for number, text in rows if number not in LEFT_OUT[name]]


def costs(connection, texts):
    found = {}
    for number, text in texts:
        try:
            answer = connection.execute("EXPLAIN (FORMAT JSON) " + text.replace("%", "%%"), []).fetchone()[0]
            found[number] = answer[0]["Plan"]["Total Cost"]
        except Exception as error:
            print(f"  query {number} has no plan: {error}", file=sys.stderr)
    return found


def score(url, name, texts, ddl):
    """Percent of the cost that is left, bytes taken, and each query's costs."""
    with connect(url, name) as connection:
        before = costs(connection, texts)
        size = 0
        for text in ddl:
            plain = text.replace("CONCURRENTLY ", "")
            oid = connection.execute("select indexrelid from hypopg_create_index(%s)", [plain]).fetchone()[0]
            size += connection.execute("select hypopg_relation_size(%s)", [oid]).fetchone()[0]
        after = costs(connection, texts)
    return 100 * sum(after.values()) / sum(before.values()), size, before, after


def advise(options, url, name, log, budget):
    command = [options.binary, "advise", "indexes", "--log", log, "--database-url", url + name, "--format", "json"]
    command += [] if budget == 0 else ["--storage-budget", str(budget * 1_000_000)]
    started = time.monotonic()
    answer = subprocess.run(command + options.extra.split(), check=True, stdout=subprocess.PIPE, text=True).stdout
    return [found["ddl"] for found in json.loads(answer)["recommendations"]], time.monotonic() - started


def bench(options, url, name):
    if not is_loaded(url, name):
        load(url, name, options.scale)
    texts = queries(name)
    log = os.path.join(options.out, name + ".sql")
    with open(log, "w") as file:
        file.writelines(text + ";\n" for _, text in texts)
    chosen = [int(budget) for budget in options.budgets.split(",")] if options.budgets else [*TARGETS[name], 0]
    for budget in chosen:
        ddl, seconds = advise(options, url, name, log, budget)
        left, size, before, after = score(url, name, texts, ddl)
        target = TARGETS[name].get(budget)
        verdict = "" if target is None else f"  target {target:5.1f} {'met' if left <= target and size <= budget * 1e6 else 'MISSED'}"
        print(f"{name} {budget or 'no':>4} MB: {left:5.1f} % left, {size / 1e6:6.1f} MB in {len(ddl):2} indexes, {seconds:5.1f} s{verdict}", flush=True)
        if options.keep:
            for text in ddl:
                print("   ", text)
            for number in before:
                print(f"    query {number:2}: {before[number]:12.0f} -> {after[number]:12.0f}")


def main():
    options = arguments()
    os.makedirs(options.out, exist_ok=True)
    with_wheels(options.out)
    server = None if options.url else Server(options.out, options.pg)
    try:
        for name in [options.only] if options.only else GENERATORS:
            bench(options, server.url if server else options.url, name)
    finally:
        if server:
            server.stop()


main()
