"""Alerts and dashboard: those of the files, and each about the pods of one release, however many a Prometheus reads."""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

import tools
from tools import CHART, find, render

OURS = 'namespace="streams",pod=~"rel-shardwright-(coordinator|worker)-[0-9]+"'
SELECTOR = re.compile(r"\{[^}]*\}")


def source() -> list[dict]:
    return yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]


def test_the_alerts_are_those_of_the_file():
    rule = find(render("minimal", "--set", "monitoring.prometheusRule.enabled=true"), "PrometheusRule")
    text = json.dumps(source()).replace(json.dumps('job=~".*"')[1:-1], json.dumps(OURS)[1:-1])
    assert rule["spec"]["groups"] == json.loads(text), "braces of Prometheus pass through untouched"
    changed = find(render("monitoring"), "PrometheusRule")["spec"]["groups"]
    names = [one.get("alert") for group in changed for one in group["rules"]]
    all_names = [one.get("alert") for group in source() for one in group["rules"]]
    assert set(all_names) - set(names) == {"ShardwrightFencedWrites"} and changed[-1]["name"] == "ours"
    links = [one["annotations"]["runbook_url"] for group in changed[:-1] for one in group["rules"] if "alert" in one]
    assert links and all(link.startswith("https://example.com/shardwright/docs/operations.md#") for link in links)


def test_every_rule_looks_at_the_pods_of_its_release_only():
    rule = find(render("minimal", "--set", "monitoring.prometheusRule.enabled=true"), "PrometheusRule")
    for one in (one for group in rule["spec"]["groups"] for one in group["rules"]):
        selectors = SELECTOR.findall(one["expr"])
        assert selectors and all(OURS in selector for selector in selectors), one["expr"]
        lists = re.findall(r"\b(?:by|on) \(([^)]*)\)", one["expr"])
        assert all(labels.startswith("namespace, job") for labels in lists), one["expr"]
        assert len(re.findall(r"\b(?:max|min|sum|count)\b", one["expr"])) == len(re.findall(r"\bby \(", one["expr"])), one["expr"]
    pods = re.search(r'pod=~"([^"]+)"', OURS)[1]
    for one in tools.every(render(), "StatefulSet"):
        assert re.fullmatch(pods, f"{one['metadata']['name']}-0")


def promtool() -> str:
    found = os.environ.get("SHARDWRIGHT_TEST_PROMTOOL") or shutil.which("promtool")
    if not found:
        pytest.skip("alerts of two releases: no promtool; scripts/servers/promtool install")
    return found


def test_a_release_that_is_gone_is_missed_beside_one_that_lives(tmp_path):
    for namespace in ("team-a", "team-b"):
        flags = ("-n", namespace, "-f", str(CHART / "ci" / "minimal.yaml"), "--set", "monitoring.prometheusRule.enabled=true")
        done = tools.run("helm4", "template", "shardwright", str(CHART), *flags)
        rule = find(tools.parse(done.stdout), "PrometheusRule")
        (tmp_path / f"{namespace}.yaml").write_text(yaml.safe_dump(rule["spec"]))
    alert = next(one for group in source() for one in group["rules"] if one.get("alert") == "ShardwrightNoLeader")
    fired = {"exp_labels": {"severity": "critical", "namespace": "team-a"}, "exp_annotations": alert["annotations"]}
    lives = {"series": 'leader{namespace="team-b",job="b",pod="shardwright-coordinator-0"}', "values": "1x20"}
    case = {
        "interval": "1m",
        "input_series": [lives],
        "alert_rule_test": [{"eval_time": "10m", "alertname": "ShardwrightNoLeader", "exp_alerts": [fired]}],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["team-a.yaml", "team-b.yaml"], "evaluation_interval": "1m", "tests": [case]}))
    judged = subprocess.run([promtool(), "test", "rules", str(tmp_path / "test.yaml")], capture_output=True, text=True, timeout=60)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_the_dashboard_is_that_of_the_file():
    found = find(render("monitoring"), "ConfigMap", "-dashboard")
    assert json.loads(found["data"]["rel-shardwright.json"]) == json.loads((CHART / "files" / "dashboard.json").read_text())
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1" and found["metadata"]["annotations"] == {"grafana_folder": "Streams"}
    assert len(json.dumps(found)) < 900_000, "a ConfigMap holds 1 MiB"


def test_the_dashboard_shows_the_clusters_of_a_namespace():
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    variables = {one["name"]: one for one in dashboard["templating"]["list"]}
    assert variables["namespace"]["query"]["query"].endswith(", namespace)")
    asked = [variables[name]["query"]["query"] for name in ("job", "source", "sink")]
    asked += [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(asked) > 50
    for expression in asked:
        selectors = SELECTOR.findall(expression)
        assert selectors and all('namespace=~"$namespace"' in one for one in selectors), expression
