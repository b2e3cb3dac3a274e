"""The chart's documents say what the chart does."""

import re
import subprocess
import sys

import yaml

from tools import CHART, ROOT


def test_the_readme_is_what_the_comments_of_the_values_say():
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "helm-readme"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_readme_has_a_row_for_every_value():
    def leaves(values, path=""):
        for key, value in values.items():
            name = f"{path}.{key}" if path else key
            if isinstance(value, dict) and value:
                yield from leaves(value, name)
            else:
                yield name

    rows = set(re.findall(r"^\| `([^`]+)` \|", (CHART / "README.md").read_text(), re.M))
    for name in leaves(yaml.safe_load((CHART / "values.yaml").read_text())):
        parents = {name.rsplit(".", count)[0] for count in range(name.count(".") + 1)}
        assert rows & parents, f"{name} has no comment"


def test_every_value_that_the_documents_name_exists():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    texts = [(CHART / name).read_text().partition("## Values")[0] for name in ("README.md", "UPGRADING.md", "templates/NOTES.txt")]
    texts.append((ROOT / "docs" / "install-kubernetes.md").read_text())
    tops = "|".join(values)
    for text in texts:
        for name in re.findall(rf"(?<![\w./-])((?:{tops})(?:\.[a-z][A-Za-z]*)+)(?=[=`,}} ])", text):
            if name in ("tls.crt", "tls.key"):
                continue
            node = values
            for part in name.split("."):
                assert isinstance(node, dict) and (part in node or not node), f"`{name}` is no value"
                node = node.get(part, {})


def test_the_document_of_upgrades_knows_this_version():
    version = re.search(r"^version: (\S+)", (CHART / "Chart.yaml").read_text(), re.M)[1]
    assert f"### {version}" in (CHART / "UPGRADING.md").read_text()


def test_the_chart_is_of_the_version_of_the_program():
    workspace = re.search(r'^version = "([^"]+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == workspace and chart["kubeVersion"] == ">=1.28.0-0"
