"""Servers and proxies of one bench, in a directory of their own; all end with it."""
import os, shutil, signal, subprocess, sys, tempfile, time

from proxy import find_bin, free_port, unprivileged, wait_for


class Stage:
    def __init__(self, name):
        self.children = []
        self.dir = tempfile.mkdtemp(prefix=f"pgweir-{name}-")
        os.chmod(self.dir, 0o755)

    def server(self, *options):
        """A PostgreSQL with these options; its port."""
        port = free_port()
        data = f"{self.dir}/data{port}"
        os.makedirs(data)
        if not os.getuid():
            shutil.chown(data, "postgres", "postgres")
        run = dict(check=True, stdout=subprocess.DEVNULL, **unprivileged())
        subprocess.run([find_bin("initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"], **run)
        options = [word for option in ("unix_socket_directories=", *options) for word in ("-c", option)]
        self.start([find_bin("postgres"), "-D", data, "-p", str(port), *options], port, **unprivileged())
        self.psql(port, "select 1")
        return port

    def start(self, command, port, **more):
        """A process that listens on the port; its number."""
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
        self.children.append(child)
        wait_for(port, child, command[0])
        return child.pid

    def psql(self, port, sql, database="postgres"):
        command = [find_bin("psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-Atqc", sql, database]
        for _ in range(100):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                return done.stdout.strip()
            if "starting up" not in done.stderr:
                break
            time.sleep(0.05)
        sys.exit(done.stderr)

    def pgweir(self, binary, databases, prepare=None):
        """A proxy for these databases (YAML, indented by two); its port and number."""
        port = free_port()
        path = f"{self.dir}/{port}.yaml"
        with open(path, "w") as file:
            file.write(f"listen: 127.0.0.1:{port}\nusers: {{bench: {{password: secret}}}}\ndatabases:\n{databases}")
        if prepare:
            subprocess.run([binary, prepare, "-c", path], check=True, stdout=subprocess.DEVNULL)
        return port, self.start([binary, "proxy", "-c", path], port)

    def shards(self, places):
        """The setting `shards` for (port, database) pairs, as YAML in one line."""
        shard = lambda at, port, name: f"{{name: s{at}, primary: \"postgres://postgres@127.0.0.1:{port}/{name}?sslmode=disable\"}}"
        return "[" + ", ".join(shard(at, port, name) for at, (port, name) in enumerate(places)) + "]"

    def close(self):
        for child in reversed(self.children):
            child.send_signal(signal.SIGINT)
        for child in self.children:
            child.wait(30)
        shutil.rmtree(self.dir, ignore_errors=True)
