"""A release's life with helm 3 (merge patches) and helm 4 (server-side apply) against a stand-in for Kubernetes."""

import json

import pytest
import yaml

import tools
from apiserver import ApiServer, release_of
from merging import Invalid, leaves
from tools import CHART, parse

HELMS = ["helm3", "helm4"]


@pytest.fixture
def cluster(tmp_path):
    with ApiServer(tools.versions()[-1]) as server:
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(server.kubeconfig()))
        server.env = tools.environment(KUBECONFIG=str(tmp_path / "kubeconfig"))
        yield server


def helm(cluster, which: str, *arguments: str, fails: bool = False) -> str:
    done = tools.run(which, *arguments, env=cluster.env)
    assert (done.returncode != 0) == fails, f"{which} {arguments}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def values(name: str) -> tuple[str, str]:
    return "--values", str(CHART / "ci" / f"{name}.yaml")


def install(cluster, which: str, name: str, *flags: str) -> str:
    return helm(cluster, which, "install", "rel", str(CHART), "-n", "streams", "--timeout", "120s", *values(name), *flags)


def upgrade(cluster, which: str, name: str, *flags: str, **options) -> str:
    return helm(cluster, which, "upgrade", "rel", str(CHART), "-n", "streams", "--timeout", "120s", *values(name), *flags, **options)


def bare(one: dict) -> str:
    """An object without what a server adds to it."""
    meta = {key: dict(one["metadata"].get(key) or {}) for key in ("labels", "annotations")}
    for key in ("meta.helm.sh/release-name", "meta.helm.sh/release-namespace"):
        meta["annotations"].pop(key, None)
    meta["labels"].pop("app.kubernetes.io/managed-by", None)
    body = {key: value for key, value in one.items() if key not in ("metadata", "status")}
    if one["kind"] == "Service" and one["spec"].get("clusterIP") != "None":
        body["spec"] = {key: value for key, value in one["spec"].items() if key != "clusterIP"}
    return json.dumps({"name": one["metadata"]["name"], **meta, **body}, sort_keys=True)


def holds(cluster) -> None:
    """The cluster has what the manifest says, and nothing else."""
    releases = [json.loads(release_of(secret)) for secret in cluster.cluster.of("Secret")]
    deployed = [release["manifest"] for release in releases if release["info"]["status"] == "deployed"]
    assert len(deployed) == 1
    wanted = sorted(bare(one) for one in parse(deployed[0]))
    found = [one for one in cluster.cluster.objects.values() if one["kind"] != "Secret" and "helm.sh/hook" not in json.dumps(one["metadata"])]
    assert sorted(bare(one) for one in found) == wanted


@pytest.mark.parametrize("which", HELMS)
def test_a_release_is_installed_upgraded_rolled_back_and_removed(cluster, which):
    said = install(cluster, which, "minimal", "--wait")
    assert "rollout status" in said
    holds(cluster)
    before = {bare(one) for one in cluster.cluster.of("StatefulSet")}
    upgrade(cluster, which, "monitoring", "--set", "worker.replicas=5", "--set", "worker.extraEnv[0].name=A,worker.extraEnv[0].value=b")
    holds(cluster)
    workers = cluster.cluster.of("StatefulSet", "-worker")[0]
    assert workers["spec"]["replicas"] == 5 and workers["metadata"]["generation"] == 2
    assert cluster.cluster.of("ServiceMonitor") and cluster.cluster.of("PrometheusRule")
    helm(cluster, which, "rollback", "rel", "1", "-n", "streams", "--wait", "--timeout", "120s")
    holds(cluster)
    assert {bare(one) for one in cluster.cluster.of("StatefulSet")} == before and not cluster.cluster.of("ServiceMonitor")
    assert len(cluster.cluster.of("Secret")) == 3, "a secret for each revision"
    helm(cluster, which, "uninstall", "rel", "-n", "streams", "--wait", "--timeout", "120s")
    assert not cluster.cluster.objects


@pytest.mark.parametrize("which", HELMS)
def test_each_helm_changes_objects_in_its_own_way(cluster, which):
    install(cluster, which, "minimal")
    upgrade(cluster, which, "minimal", "--set", "worker.capacity=3")
    kinds = {kind for method, path, kind in cluster.calls if method == "PATCH" and "/statefulsets/" in path}
    assert kinds == ({"application/strategic-merge-patch+json"} if which == "helm3" else {"application/apply-patch+yaml"})


@pytest.mark.parametrize("which", HELMS)
@pytest.mark.parametrize("name", ["extras", "keda", "gateway", "persistence"])
def test_every_kind_of_object_can_be_installed_and_changed(cluster, which, name):
    install(cluster, which, name)
    holds(cluster)
    upgrade(cluster, which, name, "--set", "telemetry.log=debug", "--set", "commonLabels.team=x")
    holds(cluster)
    assert all(one["metadata"]["generation"] == 2 for one in cluster.cluster.of("StatefulSet"))


def test_a_release_of_helm_3_goes_on_with_helm_4(cluster):
    install(cluster, "helm3", "extras")
    upgrade(cluster, "helm4", "extras", "--set", "telemetry.log=debug")
    holds(cluster)
    helm(cluster, "helm4", "uninstall", "rel", "-n", "streams")
    assert not cluster.cluster.objects


@pytest.mark.parametrize("which", HELMS)
def test_an_upgrade_without_a_change_changes_nothing(cluster, which):
    install(cluster, which, "hardened")
    before = {key: one["metadata"]["generation"] for key, one in cluster.cluster.objects.items()}
    upgrade(cluster, which, "hardened")
    assert {key: one["metadata"]["generation"] for key, one in cluster.cluster.objects.items() if key in before} == before


@pytest.mark.parametrize("which", HELMS)
def test_the_number_of_workers_stays_the_autoscalers(cluster, which):
    install(cluster, which, "autoscaling")
    name = cluster.cluster.of("StatefulSet", "-worker")[0]["metadata"]["name"]
    cluster.cluster.scale("streams", name, 7)
    upgrade(cluster, which, "autoscaling", "--set", "worker.capacity=3")
    assert cluster.cluster.of("StatefulSet", "-worker")[0]["spec"]["replicas"] == 7


@pytest.mark.parametrize("which", HELMS)
def test_the_statements_are_applied_after_each_change(cluster, which):
    def jobs() -> list[tuple[str, str]]:
        return [(kind, one["metadata"]["uid"]) for _, kind, key, one in cluster.cluster.events if key[1] == "jobs" and kind in ("ADDED", "DELETED")]

    install(cluster, which, "statements")
    upgrade(cluster, which, "statements")
    assert [kind for kind, _ in jobs()] == ["ADDED", "DELETED"] * 2 and len({uid for _, uid in jobs()}) == 2
    order = [key[1] for _, kind, key, _ in cluster.cluster.events if kind == "ADDED"]
    assert order.index("configmaps") < order.index("jobs") > order.index("statefulsets")


@pytest.mark.parametrize("which", HELMS)
def test_helm_test_runs_its_pods_and_removes_them(cluster, which):
    install(cluster, which, "minimal")
    said = helm(cluster, which, "test", "rel", "-n", "streams", "--timeout", "120s", "--logs")
    assert said.count("Succeeded") == 3, said
    assert not cluster.cluster.of("Pod")
    assert len([1 for _, kind, key, _ in cluster.cluster.events if key[1] == "pods" and kind == "ADDED"]) == 3


@pytest.mark.parametrize("which", HELMS)
def test_what_helm_keeps_holds_no_secret(cluster, which):
    install(cluster, which, "etcd-secured")
    kept = "".join(release_of(secret) for secret in cluster.cluster.of("Secret"))
    assert "etcd-user" in kept and '"kind":"Secret"' not in kept and "kind: Secret\\n" not in kept


@pytest.mark.parametrize("which", HELMS)
def test_a_change_of_what_never_changes_is_refused_and_nothing_breaks(cluster, which):
    install(cluster, which, "minimal")
    before = [bare(one) for one in cluster.cluster.of("StatefulSet", "-worker")]
    said = upgrade(cluster, which, "minimal", "--set", "worker.persistence.enabled=true", fails=True)
    assert "forbidden" in said
    assert [bare(one) for one in cluster.cluster.of("StatefulSet", "-worker")] == before
    helm(cluster, which, "rollback", "rel", "1", "-n", "streams", "--timeout", "120s")
    holds(cluster)


def test_the_stand_in_refuses_a_name_twice_and_a_field_of_another():
    """As server-side apply does: were our lists not merged by name, or replicas not left out, it would be seen here."""
    with pytest.raises(Invalid, match="duplicate entries"):
        leaves({"spec": {"containers": [{"name": "c", "env": [{"name": "A"}, {"name": "A"}]}]}})


def test_replicas_of_another_are_a_conflict(cluster):
    install(cluster, "helm4", "minimal")
    name = cluster.cluster.of("StatefulSet", "-worker")[0]["metadata"]["name"]
    cluster.cluster.scale("streams", name, 9)
    said = upgrade(cluster, "helm4", "minimal", "--set", "worker.replicas=3", fails=True)
    assert "conflict with" in said, said
