#!/usr/bin/env python3
"""Mixed load on pgweir for a long time: memory and descriptors must not grow, no answer may be another's.

usage: benches/soak.py [--minutes 10] [--pgweir target/release/pgweir] [--json FILE]
       benches/soak.py --recovery [--rounds 5]

At once: pgbench by the simple, extended and prepared protocol, with a new connection for each transaction too; statements that
never come twice; COPY both ways; cancelled statements; LISTEN and NOTIFY; temporary tables, settings and advisory
locks; errors in and out of transactions; clients that vanish in the middle of a transaction, a COPY, a result or a login. Every
answer carries a token of the client that asked. Resident memory and open descriptors of the proxy are read every
10 seconds. The run fails when a wrong answer or an unexpected error came, or when after a quarter of the time for warming up
the memory of the last quarter is more than 5 % and 4 MiB above that of the second one, or more descriptors are open when the
load has ended than before it began and the pool can explain.

--recovery restarts PostgreSQL (immediate shutdown) under 8 clients that connect again and again, behind pgweir and PgBouncer
in turn, and says how long after the server is there again the first answer, and the last client, came.

Needs: postgresql, pgbench, for --recovery pgbouncer, and a release build of pgweir. Traffic stays on 127.0.0.1.
"""
import argparse, itertools, json, os, random, select, socket, statistics, struct, subprocess, sys, threading, time

import client
from proxy import Bench, find_bin, resident_kib, unprivileged

POOL = 12
PGBENCH = [("simple", []), ("extended", []), ("prepared", []), ("simple", ["-C"])]


class Wrong(Exception):
    """An answer that is not the right one."""


class Load:
    def __init__(self, port):
        self.port, self.stop, self.counts, self.problems = port, threading.Event(), {}, []

    def run(self, name, step):
        """Repeats one kind of work on connections of its own until it is over."""
        numbers = itertools.count()
        while not self.stop.is_set():
            sock = None
            try:
                sock = client.connect(self.port)
                for _ in range(random.randint(1, 20)):
                    step(sock, f"{name}-{next(numbers)}")
                    self.counts[name] = self.counts.get(name, 0) + 1
                    if self.stop.is_set():
                        break
            except Vanish:
                self.counts[name] = self.counts.get(name, 0) + 1
            except Exception as error:
                self.problems.append(f"{name}: {error!r}")
                time.sleep(0.2)
            finally:
                if sock:
                    sock.close()


class Vanish(Exception):
    """This client leaves without a word."""


def frames(sock, ready=1):
    """All frames until so many ReadyForQuery."""
    data, out = b"", []
    while ready:
        more = sock.recv(65536)
        if not more:
            raise ConnectionError(f"closed after {out[-3:]}")
        data += more
        while len(data) >= 5 and len(data) > struct.unpack("!i", data[1:5])[0]:
            end = struct.unpack("!i", data[1:5])[0] + 1
            out.append((data[:1], data[5:end]))
            ready -= data[:1] == b"Z"
            data = data[end:]
    return out


def ask(sock, sql):
    sock.sendall(client.query(sql))
    return frames(sock)


def expect(sock, sql, token, code=None):
    """The answer must hold this token, or be this error."""
    got = ask(sock, sql)
    errors = [body for tag, body in got if tag == b"E"]
    if code:
        if len(errors) != 1 or b"C" + code.encode() + b"\0" not in errors[0]:
            raise Wrong(f"{sql}: no {code}: {got}")
    elif errors or not any(tag == b"D" and token.encode() in body for tag, body in got):
        raise Wrong(f"{sql}: {got}")
    return got


def fresh(sock, token):
    """A statement that nobody has ever sent."""
    expect(sock, f"select '{token}' as c{random.getrandbits(40)}", token)


def named(sock, token):
    """A statement prepared under a name, closed or not."""
    sql = f"select $1::text || '{random.randint(0, 3000)}'"
    sock.sendall(client.message(b"P", b"s\0" + sql.encode() + b"\0\0\0")
                 + client.message(b"B", b"\0s\0\0\0\0\x01" + struct.pack("!i", len(token)) + token.encode() + b"\0\0")
                 + client.message(b"E", b"\0\0\0\0\0") + client.message(b"C", b"Ss\0") + client.message(b"S"))
    got = frames(sock)
    if not any(tag == b"D" and token.encode() in body for tag, body in got):
        raise Wrong(f"{sql}: {got}")


def copy(sock, token):
    """COPY in and out again, of a table that is gone with the transaction."""
    ask(sock, "begin; create temp table soaked (x text) on commit drop")
    sock.sendall(client.query("copy soaked from stdin"))
    for _ in range(50):
        sock.sendall(client.message(b"d", f"{token}\n".encode()))
    sock.sendall(client.message(b"c"))
    frames(sock)
    got = ask(sock, "copy soaked to stdout")
    if sum(tag == b"d" and body.strip() == token.encode() for tag, body in got) != 50:
        raise Wrong(f"copy: {got[:5]}")
    ask(sock, "commit")


def state(sock, token):
    """Settings, locks and temporary tables, which nobody else may see."""
    expect(sock, "select coalesce(nullif(current_setting('soak.token', true), ''), 'none')", "none")
    ask(sock, f"set soak.token = '{token}'")
    expect(sock, "select current_setting('soak.token')", token)
    ask(sock, "reset soak.token")
    expect(sock, f"select pg_advisory_lock({random.getrandbits(30)})::text || '{token}'", token)
    ask(sock, "select pg_advisory_unlock_all()")
    ask(sock, f"create temp table mine as select '{token}' as x")
    expect(sock, "select x from mine", token)
    ask(sock, "drop table mine")


def errors(sock, token):
    """Statements that fail, by themselves and in transactions."""
    expect(sock, "select 1/0", token, "22012")
    ask(sock, "begin")
    expect(sock, f"select '{token}' from nowhere", token, "42P01")
    expect(sock, "select 1", token, "25P02")
    ask(sock, "rollback")
    expect(sock, f"select '{token}'", token)


def listen(sock, token):
    """A notification of its own, in transaction mode."""
    channel = "c" + token.replace("-", "_")
    ask(sock, f"listen {channel}")
    got = ask(sock, f"notify {channel}, '{token}'")
    deadline = time.monotonic() + 20
    while not any(tag == b"A" and token.encode() in body for tag, body in got):
        if time.monotonic() > deadline:
            raise Wrong("no notification came")
        got = ask(sock, "select 1")
    ask(sock, f"unlisten {channel}")


def vanish(sock, token):
    """Leaves in the middle of something."""
    kind = random.randrange(4)
    if kind == 0:
        ask(sock, f"begin; select '{token}'; select pg_advisory_xact_lock(7)")
    elif kind == 1:
        ask(sock, "begin; create temp table gone (x text) on commit drop")
        sock.sendall(client.query("copy gone from stdin") + client.message(b"d", b"half a li"))
        sock.recv(10)
    elif kind == 2:
        sock.sendall(client.query("select repeat('x', 1000) from generate_series(1, 20000)"))
        sock.recv(1000)
    else:
        sock.sendall(client.message(b"P", b"v\0select 1\0\0\0")[:7])
    raise Vanish


def strangers(load):
    """Those that never log in."""
    while not load.stop.is_set():
        sock = socket.create_connection(("127.0.0.1", load.port))
        sock.sendall(random.choice([b"", b"\0\0\0\x08\x04\xd2\x16\x2f", os.urandom(20), b"GET / HTTP/1.1\r\n\r\n"]))
        time.sleep(0.05)
        sock.close()
        load.counts["strangers"] = load.counts.get("strangers", 0) + 1


def cancels(load):
    """Statements that are cancelled by their own client."""
    while not load.stop.is_set():
        sock = None
        try:
            sock, key = keyed(load.port)
            sock.sendall(client.query("select pg_sleep(60)"))
            # Again where it came before the query, as it then means nothing.
            for _ in range(20):
                time.sleep(0.05)
                with socket.create_connection(("127.0.0.1", load.port)) as other:
                    other.sendall(struct.pack("!ii", 8 + len(key), 80877102) + key)
                    other.recv(1)
                if select.select([sock], [], [], 1)[0]:
                    break
            got = frames(sock)
            if not any(tag == b"E" and b"57014" in body for tag, body in got):
                raise Wrong(f"cancel: {got}")
            load.counts["cancels"] = load.counts.get("cancels", 0) + 1
        except Exception as error:
            load.problems.append(f"cancels: {error!r}")
            time.sleep(0.2)
        finally:
            if sock:
                sock.close()


def keyed(port):
    """A connection and its cancel key."""
    sock = socket.create_connection(("127.0.0.1", port), 30)
    login, seen = client.Login("bench", "secret", "bench"), b""
    sock.sendall(login.start())
    while not login.ready:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("closed during login")
        seen += data
        out = login.feed(data)
        if out:
            sock.sendall(out)
    at = seen.index(b"K\0\0\0\x0c")
    return sock, seen[at + 5:at + 13]


def pgbench(load, bench, port, mode, more):
    while not load.stop.is_set():
        done = subprocess.run([find_bin("pgbench"), "-n", "-b", "tpcb-like", "-M", mode, "-c", "3", "-T", "5", "-p", str(port), *more, "bench"],
                              env=bench.env, capture_output=True, text=True)
        if done.returncode:
            load.problems.append(f"pgbench {mode}: {done.stderr[-300:]}")
        load.counts[f"pgbench {mode}{''.join(more)}"] = load.counts.get(f"pgbench {mode}{''.join(more)}", 0) + 1


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def soak(args):
    bench = Bench(args)
    try:
        bench.start_postgres()
        bench.start_pgweir("pgweir", POOL)
        port, pid = bench.targets["pgweir"]
        client.connect(port).close()
        idle, load = descriptors(pid), Load(port)
        works = [(step.__name__, lambda step=step: load.run(step.__name__, step))
                 for step in (fresh, named, copy, state, errors, listen, vanish)]
        works += [("strangers", lambda: strangers(load)), ("cancels", lambda: cancels(load))]
        works += [(mode, lambda mode=mode, more=more: pgbench(load, bench, port, mode, more)) for mode, more in PGBENCH]
        threads = [threading.Thread(target=work, name=name) for name, work in works]
        for thread in threads:
            thread.start()
        samples, begin = [], time.monotonic()
        while time.monotonic() - begin < args.minutes * 60:
            time.sleep(10)
            samples.append((round(time.monotonic() - begin), resident_kib(pid), descriptors(pid)))
            print(f"{samples[-1][0]:5} s  {samples[-1][1] / 1024:7.1f} MiB  {samples[-1][2]:4} descriptors  "
                  f"{sum(load.counts.values())} done, {len(load.problems)} wrong", flush=True)
        load.stop.set()
        for thread in threads:
            thread.join(60)
        time.sleep(2)
        return judge(args, load, samples, idle, descriptors(pid))
    finally:
        bench.stop()


def judge(args, load, samples, idle, after):
    quarter = max(1, len(samples) // 4)
    second = statistics.median(rss for _, rss, _ in samples[quarter:2 * quarter] or samples)
    last = statistics.median(rss for _, rss, _ in samples[-quarter:])
    wrong = [f"{problem}" for problem in load.problems[:10]]
    if last > second * 1.05 and last > second + 4096:
        wrong.append(f"memory grew from {second / 1024:.1f} to {last / 1024:.1f} MiB")
    if after > idle + POOL:
        wrong.append(f"{after} descriptors are open after the load, {idle} before it")
    result = {"minutes": args.minutes, "rss_mib_second_quarter": round(second / 1024, 1), "rss_mib_last_quarter": round(last / 1024, 1),
              "descriptors_before": idle, "descriptors_after": after, "done": load.counts, "wrong": wrong}
    print(json.dumps(result, indent=2))
    if args.json:
        json.dump(result, open(args.json, "w"))
    return 1 if wrong else 0


def recovery(args):
    bench = Bench(args)
    try:
        bench.start_postgres()
        bench.start_pgweir("pgweir", 4)
        bench.start_pgbouncer("pgbouncer", "transaction", 4)
        times = {"pgweir": [], "pgbouncer": []}
        for round, name in itertools.product(range(args.rounds), times):
            times[name].append(restart(bench, bench.targets[name][0]))
            print(f"{name:10} first answer after {times[name][-1][0]:.2f} s, last client after {times[name][-1][1]:.2f} s", flush=True)
        for name, pairs in times.items():
            first, last = (statistics.median(pair[at] for pair in pairs) for at in (0, 1))
            print(f"{name:10} median: first {first:.2f} s, last {last:.2f} s")
        return 1 if max(last for _, last in times["pgweir"]) > 2 else 0
    finally:
        bench.stop()


def restart(bench, port):
    """Seconds from the moment the server takes connections again: to the first answer, and until every client had one."""
    stop, served, lock = threading.Event(), {}, threading.Lock()

    def keep(number):
        while not stop.is_set():
            try:
                sock = client.connect(port, timeout=20)
                while not stop.is_set():
                    client.answer(sock, "select 1")
                    with lock:
                        served.setdefault(number, []).append(time.monotonic())
                    time.sleep(0.01)
            except OSError:
                time.sleep(0.05)

    threads = [threading.Thread(target=keep, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    data, control = f"{bench.dir}/data", find_bin("pg_ctl")
    options = f"-p {bench.pg} -k {bench.dir} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
    subprocess.run([control, "-D", data, "-m", "immediate", "-w", "stop"], check=True, stdout=subprocess.DEVNULL, **unprivileged())
    time.sleep(2)
    subprocess.run([control, "-D", data, "-w", "-o", options, "-l", f"{bench.dir}/restarted.log", "start"], check=True,
                   stdout=subprocess.DEVNULL, **unprivileged())
    back = time.monotonic()
    firsts = lambda: [next((at for at in served.get(number, []) if at > back), None) for number in range(8)]
    while None in firsts() and time.monotonic() < back + 60:
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    answered = [at - back if at else 60 for at in firsts()]
    return min(answered), max(answered)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--recovery", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--pgweir", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../target/release/pgweir"))
    parser.add_argument("--json")
    args = parser.parse_args()
    sys.exit(recovery(args) if args.recovery else soak(args))


if __name__ == "__main__":
    main()
