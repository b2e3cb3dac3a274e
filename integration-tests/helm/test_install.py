"""docs/install-kubernetes.md can be followed to its end: its values are taken, what its commands name is there, its order works."""

import base64
import os
import re
import subprocess

import pytest

import tools
from test_release import cluster, helm  # noqa: F401: a fixture
from tools import CHART, ROOT

TEXT = (ROOT / "docs" / "install-kubernetes.md").read_text()


def blocks() -> list[str]:
    """The values of the try-out, and those for production."""
    found = re.findall(r"cat > values\.yaml <<YAML\n(.*?)\nYAML\n", TEXT, re.S)
    assert len(found) == 2
    return [block.replace("$REGISTRY", "registry.example.com/streams").replace("$AWS_REGION", "eu-west-1") for block in found]


@pytest.fixture
def files(tmp_path) -> list[str]:
    paths = [tmp_path / f"{at}.yaml" for at in range(2)]
    for path, block in zip(paths, blocks()):
        path.write_text(block)
    return [str(path) for path in paths]


def rendered(file: str) -> list[dict]:
    done = tools.run("helm4", "template", "shardwright", str(CHART), "-n", "streams", "--values", file)
    assert done.returncode == 0, done.stderr
    return tools.parse(done.stdout)


def test_the_values_of_the_installation_are_ones_that_the_chart_takes(files):
    for file in files:
        objects = rendered(file)
        assert tools.find(objects, "StatefulSet", "-worker")
    # The names that its commands use are those of a release called `shardwright`.
    names = {(one["kind"].lower(), one["metadata"]["name"]) for one in objects}
    for kind, name in re.findall(r"\b(statefulset|service)/(shardwright[a-z-]*)", TEXT):
        assert (kind, name) in names, f"{kind}/{name}"
    certificate = tools.find(objects, "Certificate", "shardwright-coordinator")
    assert certificate["spec"]["secretName"] in TEXT
    accounts = {name for kind, name in names if kind == "serviceaccount"}
    assert {"shardwright-coordinator", "shardwright-worker"} <= accounts


def secrets_of(objects) -> dict[str, set[str]]:
    """The secrets that pods need, with the keys that they need of them, but for those that cert-manager writes."""
    wanted: dict[str, set[str]] = {}
    for _, pod in tools.pods(objects):
        for volume in (one["secret"] for one in pod["spec"]["volumes"] if "secret" in one):
            wanted.setdefault(volume["secretName"], set()).update(item["key"] for item in volume["items"])
        for container in tools.containers(pod):
            for reference in (one["valueFrom"]["secretKeyRef"] for one in container.get("env", []) if "secretKeyRef" in one.get("valueFrom", {})):
                wanted.setdefault(reference["name"], set()).add(reference["key"])
    made = {one["spec"]["secretName"] for one in tools.every(objects, "Certificate")}
    return {name: keys for name, keys in wanted.items() if name not in made}


def test_every_secret_of_its_values_is_made_before_by_a_command_of_the_page(tmp_path):
    parts = TEXT.split("cat > values.yaml <<YAML\n")
    for at, block in enumerate(blocks()):
        file = tmp_path / "with-keys.yaml"
        # Also the line that is for those who have no role.
        file.write_text(block.replace("  # existingSecret:", "  existingSecret:"))
        before = "".join(parts[: at + 1]).replace("\\\n", " ")
        made = {name: set(re.findall(r"--from-(?:literal|file)=([\w.-]+)", line)) for name, line in re.findall(r"create secret generic (\S+)(.*)", before)}
        wanted = secrets_of(rendered(str(file)))
        assert {"shardwright-admin", "shardwright-aws"} <= set(wanted) and ("etcd-client" in wanted) == (at == 1)
        for name, keys in wanted.items():
            assert keys == made.get(name), f"{name}: needs {keys}, the page makes {made.get(name)}"


def test_the_program_is_on_the_path_before_it_is_called():
    commands = "".join(re.findall(r"^```\n(.*?)^```$", TEXT, re.S | re.M))
    path = re.search(r'^export PATH="(.*)/debug:\$PATH"$', commands, re.M)
    called = re.search(r"^shardwright ", commands, re.M)
    assert path and commands.index("make build") < path.start() < called.start()
    makefile = (ROOT / "Makefile").read_text()
    assert "CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/shardwright/target\n" in makefile
    for variables, expected in (({}, "/h/.cache/shardwright/target"), ({"XDG_CACHE_HOME": "/c"}, "/c/shardwright/target"), ({"CARGO_TARGET_DIR": "/t"}, "/t")):
        shell = ["bash", "-c", f'echo "{path[1]}"']
        said = subprocess.run(shell, capture_output=True, text=True, env={"PATH": os.environ["PATH"], "HOME": "/h", **variables}, timeout=60)
        assert said.stdout.strip() == expected


def test_production_follows_the_try_out_as_the_page_says(cluster, files):  # noqa: F811
    def upgrade(file: str, **options) -> str:
        return helm(cluster, "helm4", "upgrade", "--install", "shardwright", str(CHART), "-n", "streams", "--values", file, "--timeout", "120s", **options)

    upgrade(files[0])
    coordinator = cluster.cluster.of("StatefulSet", "-coordinator")[0]
    claim = coordinator["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
    assert "forbidden" in upgrade(files[1], fails=True).lower()
    way = re.search(r'helm -n "\$NAMESPACE" uninstall shardwright --wait\nkubectl -n "\$NAMESPACE" delete pvc (\S+)\n', TEXT)
    assert way and TEXT.index("## 7.") < way.start() < TEXT.rindex("cat > values.yaml")
    assert way[1] == f"{claim}-{coordinator['metadata']['name']}-0"
    helm(cluster, "helm4", "uninstall", "shardwright", "-n", "streams", "--wait")
    upgrade(files[1])
    assert not cluster.cluster.of("StatefulSet", "-coordinator")[0]["spec"].get("volumeClaimTemplates")


AWS = """#!/bin/sh
case "$*" in
  *list-shards*) printf 'shardId-0\\tshardId-1\\n' ;;
  *get-shard-iterator*shardId-0*) echo 0-0 ;;
  *get-shard-iterator*shardId-1*) echo 1-0 ;;
  *get-records*"--shard-iterator 0-2 "*) printf '0-3\\nRECORD1\\tRECORD2\\n' ;;
  *get-records*"--shard-iterator 0-5 "*) printf '0-6\\nRECORD3\\n' ;;
  *get-records*) it=${4#?-}; echo "${4%%-*}-$((it + 1))" ;;
esac
"""


def test_reading_back_goes_on_over_answers_without_records(tmp_path):
    loop = re.search(r"^(for shard in .*?^done)$", TEXT, re.S | re.M)[1]
    records = [f'{{"id":{number},"url":"/paid/{number}"}}' for number in (1, 2, 3)]
    stub = AWS
    for number, record in enumerate(records, 1):
        stub = stub.replace(f"RECORD{number}", base64.b64encode(record.encode()).decode())
    for name, text in (("aws", stub), ("sleep", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", loop], capture_output=True, text=True, cwd=tmp_path, env=env, timeout=60)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, records, "")
