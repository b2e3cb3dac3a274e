"""An OCI layout: what it says of its image, and what an unpacked image holds."""

import json
import os
import pathlib
import stat
import subprocess

LIBRARY_DIRECTORIES = ("lib", "lib64", "usr/lib")


class Image:
    """The one image of a layout."""

    def __init__(self, layout):
        index = json.loads((layout / "index.json").read_text())
        self._blobs = layout / "blobs"
        manifest = self._blob(index["manifests"][0])
        self.config = self._blob(manifest["config"])
        self.compressed = sum(layer["size"] for layer in manifest["layers"])

    def _blob(self, descriptor):
        return json.loads((self._blobs / descriptor["digest"].replace(":", "/")).read_text())


class Files:
    """The file system of an image. Paths are relative to its root; links are never followed out of it."""

    def __init__(self, root):
        self.root = root

    def path(self, name):
        return self.root / name

    def _all(self):
        for directory, directories, names in os.walk(self.root):
            for name in directories + names:
                path = pathlib.Path(directory, name)
                yield str(path.relative_to(self.root)), path.lstat()

    def special(self):
        """Files that give somebody more than they have."""
        kinds = (stat.S_ISBLK, stat.S_ISCHR, stat.S_ISFIFO, stat.S_ISSOCK)
        return [
            name
            for name, status in self._all()
            if (stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_ISUID | stat.S_ISGID))
            or any(kind(status.st_mode) for kind in kinds)
            or "security.capability" in os.listxattr(self.path(name), follow_symlinks=False)
        ]

    def foreign(self, user):
        return [name for name, status in self._all() if status.st_uid != (user if name == "var/lib/shardwright" else 0)]

    def writable(self):
        """Files and directories that others than their owner may write, /tmp aside."""
        return [name for name, status in self._all() if not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o022 and name != "tmp"]

    def programs(self):
        """What could be run besides the binary: files with the x bit that are no libraries, and texts that begin as scripts."""
        found = []
        for name, status in self._all():
            if not stat.S_ISREG(status.st_mode) or name == "usr/bin/shardwright":
                continue
            with self.path(name).open("rb") as file:
                head = file.read(4)
            library = head == b"\x7fELF" and name.startswith(LIBRARY_DIRECTORIES) and ".so" in name
            if head[:2] == b"#!" or (not library and (head == b"\x7fELF" or status.st_mode & 0o111)):
                found.append(name)
        return found

    def mode(self, name):
        return stat.S_IMODE(self.path(name).stat().st_mode)

    def text(self, name):
        return self.path(name).read_text()

    def same(self, link, name):
        return os.readlink(self.path(link)) == f"/{name}" and self.path(name).is_file()

    def packages(self):
        return {path.name for path in self.path("var/lib/dpkg/status.d").iterdir()}

    def licenses(self):
        return {path.parent.name for path in self.path("usr/share/doc").glob("*/copyright")}

    def loader(self):
        return "/" + str(next(self.root.glob("lib*/ld-linux-*.so.*")).relative_to(self.root))

    def linked(self):
        """The program headers, the dynamic section and the sections of the binary, as readelf tells them."""
        binary = self.path("usr/bin/shardwright")
        return [
            subprocess.run(["readelf", "-W", what, binary], check=True, capture_output=True, text=True).stdout
            for what in ("-hl", "-d", "-S")
        ]

    def size(self):
        return sum(status.st_size for _, status in self._all() if stat.S_ISREG(status.st_mode))
