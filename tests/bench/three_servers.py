"""Three servers of one network on this machine, as a person would make them: the program, a file of
settings for each, one machine that joined by a join file.

Owns the processes, their folders and their end. Leaves what is measured to its caller.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import farlane as fl
import psutil

PATIENCE = 60  # seconds for any one step; a hundred times what it takes
CONNECT = 10  # seconds for a client to find the leader
CORES = 2  # of the one machine
# What every server of a network holds alike, made by the first one's first start.
SHARED = ("ca/root.key", "ca/root.pem", "pepper")
# What would lead the program to another network.
FOREIGN = ("FARLANE_URL", "FARLANE_KEY", "FARLANE_PROFILE", "FARLANE_IDENTITY_FILE", "FARLANE_LOG")


def until(condition, what, seconds=PATIENCE):
    """The condition's first true value."""
    late = time.monotonic() + seconds
    while time.monotonic() < late:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise RuntimeError(f"waited {seconds:.0f} s for {what}")


class Servers:
    """Founded by three, of which any number may run."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="farlane-bench-", dir="/tmp")
        # Where root measures, the agent's own user must be able to pass.
        os.chmod(self.folder, 0o755)
        self.program = os.path.join(os.path.dirname(sys.executable), "farlane")
        self.env = {key: value for key, value in os.environ.items() if key not in FOREIGN}
        self.env["XDG_DATA_HOME"] = os.path.join(self.folder, "home")
        self.env["XDG_CONFIG_HOME"] = os.path.join(self.folder, "config")
        self.urls = {number: f"https://127.0.0.1:{port}" for number, port in enumerate(free_ports(3), 1)}
        self.processes = {}
        self.state = None

    def data(self, number, *below):
        return os.path.join(self.folder, f"server-{number}", *below)

    def start(self, number):
        """Starts a server; it serves when this returns."""
        for made in (self.data(number), self.data(number, "ca")):
            os.makedirs(made, mode=0o700, exist_ok=True)
        if number > 1:
            for name in SHARED:
                if not os.path.exists(self.data(number, name)):
                    shutil.copy(self.data(1, name), self.data(number, name))
        settings = os.path.join(self.folder, f"server-{number}.toml")
        with open(settings, "w") as file:
            file.write(self.settings(number))
        self.part(f"server-{number}", "server", "--config", settings, "--log", "warn")
        until(lambda: self.alive(f"server-{number}") and self.serves(number), f"server {number}")

    def serves(self, number):
        """Whether it listens, and holds what the others copy."""
        try:
            socket.create_connection(("127.0.0.1", port_of(self.urls[number])), timeout=1).close()
        except OSError:
            return False
        return all(os.path.exists(self.data(number, name)) for name in SHARED)

    def settings(self, number):
        members = [f'{{ id = {n}, url = "{url}" }}' for n, url in self.urls.items()]
        lines = {
            "data": json.dumps(self.data(number)),
            "listen": json.dumps(self.urls[number].removeprefix("https://")),
            "id": number,
            "members": f"[{', '.join(members)}]",
            "database": json.dumps(f"sqlite://{self.folder}/accounts.db"),
            "blobs": json.dumps(f"{self.folder}/blobs"),
            "blobs_shared": "true",
        }
        return "".join(f"{key} = {value}\n" for key, value in lines.items())

    def found(self):
        """Starts two of the three, who found the network, and logs its founder in."""
        self.start(1)
        self.start(2)
        until(self.named, "the founder's access file")
        self.told("login", self.data(1, "access.json"))
        self.leader()

    def named(self):
        """Whether there is an access file that names the network."""
        path = self.data(1, "access.json")
        if not os.path.exists(path):
            return False
        with open(path) as file:
            return json.load(file)["network"].strip("0")

    def join(self):
        """Joins a machine of two cores."""
        file = os.path.join(self.folder, "join.txt")
        self.told("tokens", "create", "--region", "local", "--price", "0.04", "--out", file)
        name = os.path.basename(self.folder)
        root = os.geteuid() == 0
        self.state = f"/var/lib/farlane/{name}" if root else os.path.join(self.folder, "agent")
        self.part(
            "agent", "agent", "--join-file", file, "--state", self.state, "--cpus", str(CORES), "--log", "warn",
            "--own-tenant", self.asked("config", "show")["tenant"],
        )  # fmt: skip
        online = lambda: [node for node in self.asked("nodes", "list") if node["state"] == "online"]
        until(online, "the machine")

    def client(self):
        profile = os.path.join(self.folder, "config", "farlane", "profiles", "default.json")
        return fl.Client(identity_file=profile, connect_timeout=CONNECT)

    def status(self, number):
        """What that server says of itself; `None` where it does not."""
        done = self.run("status", "--json", "--patience", "1s", "--url", self.urls[number])
        return json.loads(done.stdout) if done.returncode == 0 else None

    def leader(self):
        """The number of the server that leads."""
        return until(lambda: self.led_by(), "a leader")

    def led_by(self):
        for number in (1, 2, 3):
            known = self.alive(f"server-{number}") and self.status(number)
            for other, url in self.urls.items():
                if known and known["leader"] == url:
                    return other
        return None

    def segments(self, number):
        """The numbers of the files of its log, oldest first."""
        names = os.listdir(self.data(number, "raft", "log"))
        return sorted(int(name[:-4], 16) for name in names if name.endswith(".log"))

    # ---- the program --------------------------------------------------------------------------

    def run(self, *words):
        command = [self.program, *words]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=PATIENCE)

    def told(self, *words):
        done = self.run(*words)
        if done.returncode != 0:
            raise RuntimeError(f"farlane {' '.join(words)}: {done.stderr}")
        return done.stdout

    def asked(self, *words):
        return json.loads(self.told(*words, "--json"))

    def part(self, name, *words):
        with open(os.path.join(self.folder, f"{name}.log"), "ab") as log:
            child = subprocess.Popen(
                [self.program, *words], env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.processes[name] = child

    def alive(self, name):
        """Whether a part runs. One that ended by itself is an error that says what it said."""
        child = self.processes.get(name)
        if child is not None and child.poll() is not None:
            raise RuntimeError(f"{name} ended: {self.said(name)}")
        return child is not None

    def said(self, name):
        with open(os.path.join(self.folder, f"{name}.log"), errors="replace") as log:
            return log.read()[-2000:]

    def process(self, number):
        return psutil.Process(self.processes[f"server-{number}"].pid)

    def close(self):
        """Ends everything, and removes it."""
        for child in reversed(self.processes.values()):
            child.terminate()
        for child in self.processes.values():
            try:
                child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for folder in (self.folder, self.state):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


def port_of(url):
    return int(url.rsplit(":", 1)[1])


def free_ports(count):
    """Ports that were free a moment ago."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports
