"""Where the tools are, and what one does with them: rendering the chart, once for each question.

The environment names them (scripts/helm-test sets it): SHARDWRIGHT_HELM_TOOLS, a folder as scripts/servers/helm lays it out,
and SHARDWRIGHT_BINARY, the program, which may be missing."""

import functools
import os
import pathlib
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "shardwright"
TOOLS = pathlib.Path(os.environ["SHARDWRIGHT_HELM_TOOLS"])
BINARY = pathlib.Path(os.environ.get("SHARDWRIGHT_BINARY") or "/nonexistent")
HELMS = {"helm3": TOOLS / "bin" / "helm3", "helm4": TOOLS / "bin" / "helm4"}
VALUES = sorted(path.stem for path in (CHART / "ci").glob("*.yaml"))
HAS_GO_TOOLS = not (TOOLS / "no-go").exists()

# The C loader is ten times as fast, where it is there.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

counted = {"renders": 0, "objects": 0}
_home = tempfile.TemporaryDirectory(prefix="helm-test-")


def versions() -> list[str]:
    """The Kubernetes versions from 1.28 to the newest one that there are schemas of."""
    known = (path.name for path in schema_home().iterdir())
    minors = {int(name.split(".")[1]) for name in known if name.endswith("-local-strict")}
    return [f"1.{minor}.0" for minor in sorted(minors) if minor >= 28]


def schema_home() -> pathlib.Path:
    import kubernetes_validate

    return pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


def environment(**more: str) -> dict[str, str]:
    """Helm's own folders are of this run, so that nothing of the user is read or written."""
    home = _home.name
    own = {"HELM_CACHE_HOME": home, "HELM_CONFIG_HOME": home, "HELM_DATA_HOME": home, "HOME": home}
    return {"PATH": os.environ["PATH"], **own, **more}


def run(helm: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    command = [str(HELMS[helm]), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env or environment())


def parse(text: str) -> list[dict]:
    return [one for one in yaml.load_all(text, Loader=LOADER) if one]


@functools.cache
def text_of(helm: str, version: str | None, chart: str, *flags: str) -> str:
    version_flags = ("--kube-version", version) if version else ()
    done = run(helm, "template", "rel", chart, "--namespace", "streams", *version_flags, *flags)
    assert done.returncode == 0, f"{helm} {version} {flags}: {done.stderr}"
    counted["renders"] += 1
    return done.stdout


@functools.cache
def render(values: str = "minimal", *flags: str, helm: str = "helm4", version: str | None = None, chart: str = str(CHART)) -> tuple:
    """The objects of the chart with one of ci/*.yaml. Read only: they are shared."""
    objects = parse(text_of(helm, version, chart, "--values", str(CHART / "ci" / f"{values}.yaml"), *flags))
    counted["objects"] += len(objects)
    return tuple(objects)


def refusal(*flags: str, values: str = "minimal") -> str:
    """What the chart says to values that it refuses."""
    done = run("helm4", "template", "rel", str(CHART), "--values", str(CHART / "ci" / f"{values}.yaml"), *flags)
    counted["renders"] += 1
    assert done.returncode != 0, f"{flags}: nobody refused it"
    return done.stderr


def find(objects, kind: str, name: str | None = None) -> dict:
    """The one object of this kind (and this end of its name)."""
    found = [one for one in objects if one["kind"] == kind and (name is None or one["metadata"]["name"].endswith(name))]
    assert len(found) == 1, f"{kind} {name}: {[one['metadata']['name'] for one in found]}"
    return found[0]


def every(objects, *kinds: str) -> list[dict]:
    return [one for one in objects if one["kind"] in kinds]


def pod_of(one: dict) -> dict | None:
    """The pod (metadata and spec) that an object makes."""
    match one["kind"]:
        case "Pod":
            return one
        case "StatefulSet" | "Deployment" | "Job":
            return one["spec"]["template"]
        case _:
            return None


def pods(objects) -> list[tuple[dict, dict]]:
    """All objects that make pods, with their pods."""
    return [(one, pod) for one in objects if (pod := pod_of(one)) is not None]


def containers(pod: dict) -> list[dict]:
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


def main_container(pod: dict) -> dict:
    return pod["spec"]["containers"][0]


def env_of(container: dict) -> dict[str, dict]:
    return {one["name"]: one for one in container.get("env", [])}
