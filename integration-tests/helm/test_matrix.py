"""Each of ci/*.yaml by each Kubernetes: it renders, and every object meets the strict schema of that version."""

import json
import pathlib
import re
import subprocess

import pytest

import schemas
import tools
from tools import CHART, VALUES, render, run, versions


def test_there_are_enough_values_and_versions():
    assert len(VALUES) >= 12
    assert versions()[0] == "1.28.0" and len(versions()) >= 10


@pytest.mark.parametrize("values", VALUES)
def test_every_object_is_valid_for_every_kubernetes(values):
    for version in versions():
        for one in render(values, version=version):
            assert not schemas.errors(one, version), f"{values}, Kubernetes {version}"


@pytest.mark.parametrize("values", VALUES)
def test_both_helms_render_the_same(values):
    for version in (versions()[0], versions()[-1]):
        one = sorted(map(str, render(values, helm="helm3", version=version)))
        assert one == sorted(map(str, render(values, helm="helm4", version=version)))


@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_lint_has_nothing_to_say(helm):
    for values in VALUES:
        done = run(helm, "lint", "--strict", "--quiet", str(CHART), "--values", str(CHART / "ci" / f"{values}.yaml"))
        assert done.returncode == 0, f"{values}: {done.stdout}{done.stderr}"


REFERENCE = re.compile(r'"/api/_definitions\.json#/\$defs/([^"]+)"')


def standing_alone(version: str, folder: pathlib.Path) -> pathlib.Path:
    """The schemas of one version, each with the definitions that it needs: kubeconform would look for them elsewhere."""
    home = tools.schema_home() / f"v{version}-local-strict"
    definitions = json.loads((home / "_definitions.json").read_text())["$defs"]
    texts = {name: json.dumps(one) for name, one in definitions.items()}
    folder.mkdir()
    for kind in {(one["apiVersion"], one["kind"]) for values in VALUES for one in render(values, version=version)}:
        path = home / schemas.file_name(*kind)
        if not path.exists():
            continue
        schema = json.loads(path.read_text())
        wanted, needed = REFERENCE.findall(json.dumps(schema)), {}
        while wanted:
            name = wanted.pop()
            if name not in needed:
                needed[name] = definitions[name]
                wanted += REFERENCE.findall(texts[name]) + re.findall(r'"#/\$defs/([^"]+)"', texts[name])
        schema.pop("$id", None)
        schema["$defs"] = needed
        (folder / path.name).write_text(REFERENCE.sub(r'"#/$defs/\1"', json.dumps(schema)))
    return folder


def test_another_validator_agrees(tmp_path: pathlib.Path):
    if not tools.HAS_GO_TOOLS:
        pytest.skip("kubeconform and the schemas of custom resources: no Go of 1.22 or newer")
    for version in (versions()[0], versions()[-1]):
        kinds = standing_alone(version, tmp_path / version)
        own = f"{kinds}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
        custom = f"{tools.TOOLS}/crds/{{{{ .Group }}}}/{{{{ .ResourceKind }}}}_{{{{ .ResourceAPIVersion }}}}.json"
        files = []
        for values in VALUES:
            file = tmp_path / f"{values}-{version}.yaml"
            flags = ("--values", str(CHART / "ci" / f"{values}.yaml"))
            file.write_text(tools.text_of("helm4", version, str(CHART), *flags))
            files.append(str(file))
        command = [str(tools.TOOLS / "bin" / "kubeconform"), "-strict", "-summary", "-n", "2", "-schema-location", own, "-schema-location", custom, *files]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert "Invalid: 0, Errors: 0, Skipped: 0" in done.stdout, (done.stdout + done.stderr)[-2000:]
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text(tools.text_of("helm4", version, str(CHART), *flags).replace("publishNotReadyAddresses", "publishNotReady"))
        done = subprocess.run([*command[:9], str(wrong)], capture_output=True, text=True, timeout=120)
        assert "Invalid: 2, Errors: 0" in done.stdout, done.stdout[-2000:]


def test_the_schemas_refuse_what_is_wrong():
    broken = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "dta": {}}
    assert schemas.errors(broken, versions()[-1])
    sleep = {"name": "c", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [sleep]}}
    assert schemas.errors(pod, "1.28.0") and not schemas.errors(pod, versions()[-1])
    if tools.HAS_GO_TOOLS:
        monitor = {"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor", "metadata": {"name": "x"}, "spec": {"selector": {}, "endpoints": [{"prt": "x"}]}}
        assert schemas.errors(monitor, versions()[-1])
