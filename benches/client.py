"""A PostgreSQL client of the benches: raw sockets, as little of its own time as Python allows."""
import base64, hashlib, hmac, os, selectors, socket, struct, time

_SALTED = {}


def message(tag, body=b""):
    return tag + struct.pack("!i", len(body) + 4) + body


def query(sql):
    return message(b"Q", sql.encode() + b"\0")


def salted_password(password, salt, iterations):
    """PBKDF2 is dear and always the same here."""
    key = (password, salt, iterations)
    if key not in _SALTED:
        _SALTED[key] = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    return _SALTED[key]


class Login:
    """The startup conversation, without I/O: feed what the server says, send what comes back."""

    def __init__(self, user, password, database):
        self.user, self.password, self.database = user, password, database
        self.buffer, self.ready = b"", False

    def start(self):
        body = struct.pack("!i", 196608) + f"user\0{self.user}\0database\0{self.database}\0\0".encode()
        return struct.pack("!i", len(body) + 4) + body

    def feed(self, data):
        self.buffer += data
        out = b""
        while len(self.buffer) >= 5:
            length = struct.unpack("!i", self.buffer[1:5])[0]
            if len(self.buffer) < length + 1:
                break
            tag, body, self.buffer = self.buffer[:1], self.buffer[5:length + 1], self.buffer[length + 1:]
            if tag == b"E":
                raise ConnectionError(body.decode(errors="replace").replace("\0", " "))
            if tag == b"R":
                out += self.authenticate(struct.unpack("!i", body[:4])[0], body[4:])
            self.ready |= tag == b"Z"
        return out

    def authenticate(self, kind, body):
        if kind == 10:
            self.first = "n=,r=" + base64.b64encode(os.urandom(12)).decode()
            initial = ("n,," + self.first).encode()
            return message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(initial)) + initial)
        if kind == 11:
            server = body.decode()
            fields = dict(part.split("=", 1) for part in server.split(","))
            salted = salted_password(self.password, base64.b64decode(fields["s"]), int(fields["i"]))
            key = hmac.digest(salted, b"Client Key", "sha256")
            without = f"c=biws,r={fields['r']}"
            signed = hmac.digest(hashlib.sha256(key).digest(), f"{self.first},{server},{without}".encode(), "sha256")
            proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signed))).decode()
            return message(b"p", f"{without},p={proof}".encode())
        return b""


def connect(port, user="bench", password="secret", database="bench", timeout=30):
    """A blocking socket, logged in."""
    sock = socket.create_connection(("127.0.0.1", port), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    login = Login(user, password, database)
    sock.sendall(login.start())
    while not login.ready:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("closed during login")
        out = login.feed(data)
        if out:
            sock.sendall(out)
    return sock


def is_ready(data):
    """Whether whole messages up to ReadyForQuery have come; a notice may follow, as when the server is stopped."""
    at = 0
    while len(data) >= at + 5:
        if data[at:at + 1] == b"Z":
            return len(data) >= at + 6
        at += 1 + struct.unpack("!i", data[at + 1:at + 5])[0]
    return False


def answer(sock, sql):
    """Sends a query and reads up to ReadyForQuery; gives the bytes of the answer."""
    sock.sendall(query(sql))
    data = b""
    while not is_ready(data):
        more = sock.recv(65536)
        if not more:
            raise ConnectionError("closed during a query")
        data += more
    if data.startswith(b"E"):
        raise ConnectionError(data.decode(errors="replace"))
    return data


def drain(sock, sql, buffer):
    """Sends a query and throws its rows away; gives how many bytes came."""
    sock.sendall(query(sql))
    total, view, tail = 0, memoryview(buffer), b""
    while tail != b"Z\0\0\0\x05I":
        count = sock.recv_into(buffer)
        if not count:
            raise ConnectionError("closed during a query")
        tail = (tail + bytes(view[max(0, count - 6):count]))[-6:]
        total += count
    return total


def storm(port, connections, lanes, sql, deadline=60):
    """Connects, queries and closes `connections` times, `lanes` at a time; gives seconds and failures."""
    selector, started, done, failures = selectors.DefaultSelector(), 0, 0, []
    begin = time.monotonic()

    def open_one():
        nonlocal started
        started += 1
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", port))
        state = {"login": Login("bench", "secret", "bench"), "data": b"", "asked": False, "up": False}
        selector.register(sock, selectors.EVENT_WRITE, state)

    def close(sock, failure=None):
        nonlocal done
        done += 1
        if failure:
            failures.append(str(failure))
        selector.unregister(sock)
        sock.close()
        if started < connections:
            open_one()

    def step(sock, state):
        if not state["up"]:
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                return close(sock, os.strerror(error))
            state["up"] = True
            sock.send(state["login"].start())
            selector.modify(sock, selectors.EVENT_READ, state)
            return None
        data = sock.recv(65536)
        if not data:
            return close(sock, "closed by the server")
        if state["asked"]:
            state["data"] += data
            if state["data"].endswith(b"Z\0\0\0\x05I"):
                sock.send(message(b"X"))
                return close(sock, None if state["data"].startswith(b"T") else "an error instead of rows")
            return None
        out = state["login"].feed(data)
        if state["login"].ready:
            state["asked"], out = True, query(sql)
        if out:
            sock.send(out)
        return None

    for _ in range(min(lanes, connections)):
        open_one()
    while done < connections:
        if time.monotonic() - begin > deadline:
            failures.append(f"only {done} of {connections} after {deadline} s")
            break
        for key, _ in selector.select(1):
            try:
                step(key.fileobj, key.data)
            except OSError as error:
                close(key.fileobj, error)
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    return time.monotonic() - begin, failures
