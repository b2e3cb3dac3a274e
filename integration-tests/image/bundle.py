"""Containers by runc: as little as the chart's pods have, and the host's network."""

import json
import os
import pathlib
import signal
import subprocess
import uuid
from dataclasses import dataclass

from layout import Files

NAMESPACES = ("pid", "ipc", "uts", "mount")


def small(destination, *, mode, owner):
    """What Kubernetes' emptyDir is for a test: memory, from which nothing runs."""
    options = ["nosuid", "nodev", "noexec", f"mode={mode}", "size=64m", f"uid={owner}", f"gid={owner}"]
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options}


@dataclass
class Ended:
    code: int
    out: str
    err: str


class Bundle:
    """An unpacked image, of which containers are made."""

    def __init__(self, directory):
        self.directory = directory
        self.files = Files(directory / "rootfs")
        self._settings = json.loads((directory / "config.json").read_text())
        # Not the machine's: an unprivileged test could not write there, and nobody else shall see these.
        self.state = directory / "runc"

    @staticmethod
    def own(path, user):
        os.chown(path, user, user)

    def _container(self, name, arguments, user, volume):
        settings = json.loads(json.dumps(self._settings))
        process = settings["process"]
        process["terminal"] = False
        process["args"] = arguments
        process["user"] = {"uid": user, "gid": user}
        process["capabilities"] = {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")}
        process["noNewPrivileges"] = True
        # Those of this machine: raising them may be forbidden to us, too.
        process["rlimits"] = []
        settings["root"] = {"path": str(self.directory / "rootfs"), "readonly": True}
        kept = [mount for mount in settings["mounts"] if mount["destination"] not in ("/sys", "/sys/fs/cgroup", "/dev/mqueue")]
        if volume:
            data = {"destination": "/var/lib/shardwright", "type": "bind", "source": str(volume), "options": ["bind", "rw", "nosuid", "nodev", "noexec"]}
        else:
            data = small("/var/lib/shardwright", mode="0750", owner=user)
        settings["mounts"] = [*kept, small("/tmp", mode="1777", owner=0), data]
        settings["linux"]["namespaces"] = [{"type": kind} for kind in NAMESPACES]
        settings["linux"].pop("resources", None)
        directory = self.directory / "containers" / name
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(json.dumps(settings))
        return Container(name, directory, self.state)

    def start(self, role, *arguments, volume=None, user=65532):
        """A container that goes on."""
        container = self._container(f"{role}-{uuid.uuid4().hex[:8]}", ["/usr/bin/shardwright", role, *arguments], user, volume)
        container.launch()
        return container

    def run(self, *arguments, program="/usr/bin/shardwright", user=65532, seconds=60):
        """A container that ends by itself, and what it said."""
        container = self._container(f"once-{uuid.uuid4().hex[:8]}", [program, *arguments], user, None)
        container.launch()
        try:
            code = container.wait(seconds)
        finally:
            container.kill()
        return Ended(code, container.output("out"), container.output("err"))


class Container:
    running = []

    def __init__(self, name, directory, state):
        self.name, self.directory = name, directory
        self._runc = ["runc", "--root", str(state)]
        self._child = None

    def launch(self):
        with (self.directory / "out").open("wb") as out, (self.directory / "err").open("wb") as err:
            self._child = subprocess.Popen(
                [*self._runc, "run", "--bundle", str(self.directory), "--pid-file", str(self.directory / "pid"), self.name],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip
        Container.running.append(self)

    def ended(self):
        return self._child.poll() is not None

    def wait(self, seconds):
        """The exit code of its first process, which is runc's."""
        return self._child.wait(seconds)

    def stop(self, seconds):
        subprocess.run([*self._runc, "kill", self.name, "TERM"], check=True)
        code = self.wait(seconds)
        self.kill()
        return code

    def kill(self):
        """Whatever is left of it. Nothing of a container that ended."""
        if self in Container.running:
            Container.running.remove(self)
            subprocess.run([*self._runc, "delete", "--force", self.name], capture_output=True)
            if not self.ended():
                self._child.send_signal(signal.SIGKILL)
                self._child.wait()

    @classmethod
    def end_all(cls):
        for container in list(cls.running):
            container.kill()

    def output(self, *which):
        return "".join((self.directory / name).read_text() for name in which or ("out", "err"))

    def process(self):
        return Process(int((self.directory / "pid").read_text()))


class Process:
    """What the kernel says of one."""

    def __init__(self, pid):
        self._proc = pathlib.Path("/proc", str(pid))

    def status(self):
        return dict(line.split(":\t", 1) for line in (self._proc / "status").read_text().splitlines() if ":\t" in line)

    def root_options(self):
        for line in (self._proc / "mountinfo").read_text().splitlines():
            fields = line.split()
            if fields[4] == "/":
                return fields[5].split(",")
        return []

    def listening(self):
        """Addresses and ports of its TCP sockets that take connections."""
        sockets = set()
        for descriptor in (self._proc / "fd").iterdir():
            try:
                sockets.add(os.readlink(descriptor))
            except FileNotFoundError:
                continue  # closed meanwhile
        found = set()
        for table in ("tcp", "tcp6"):
            for line in (self._proc / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                    address, port = fields[1].split(":")
                    found.add((spelled(address), int(port, 16)))
        return sorted(found)


def spelled(address):
    """`0100007F` is 127.0.0.1: the kernel prints the bytes of the network as a number of this machine."""
    if len(address) == 8:
        return ".".join(str(byte) for byte in reversed(bytes.fromhex(address)))
    return address
