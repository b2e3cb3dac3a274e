"""What the chart's objects promise together: names, selectors, what never changes, scaling, budgets, the network, hooks."""

import json
import re
import shutil

import pytest
import yaml

import tools
from test_pods import toml_of
from tools import CHART, VALUES, every, find, main_container, pods, render

IMMUTABLE = ("serviceName", "podManagementPolicy", "selector", "volumeClaimTemplates")


def fixed(objects) -> dict:
    """What Kubernetes refuses to change, of everything that is not made anew."""
    return {
        (one["kind"], one["metadata"]["name"]): json.dumps({key: one["spec"].get(key) for key in IMMUTABLE}, sort_keys=True)
        for one in every(objects, "StatefulSet")
    } | {("Service", one["metadata"]["name"]): one["spec"].get("clusterIP") for one in every(objects, "Service")}


def a_later_chart(tmp_path, app: str) -> str:
    later = tmp_path / "later"
    shutil.copytree(CHART, later)
    meta = yaml.safe_load((later / "Chart.yaml").read_text())
    meta |= {"version": "7.8.9", "appVersion": app}
    (later / "Chart.yaml").write_text(yaml.safe_dump(meta))
    return str(later)


def test_nothing_immutable_depends_on_the_version(tmp_path):
    later = a_later_chart(tmp_path, "9.9.9")
    for values in VALUES:
        assert fixed(render(values)) == fixed(render(values, chart=later)), values


def test_nothing_immutable_depends_on_values_that_change_in_a_life():
    flags = ("--set", "commonLabels.team=x,coordinator.port=7777,worker.exchangePort=7778,telemetry.port=9999,tls.enabled=true")
    flags += ("--set", "worker.podLabels.a=b,coordinator.podLabels.a=b,networkPolicy.enabled=false,image.tag=v2,worker.persistence.whenDeleted=Delete")
    for values in ("minimal", "persistence"):
        more = flags if values == "minimal" else flags[:-1] + (flags[-1] + ",coordinator.probes.startup.type=http,coordinator.probes.liveness.type=http",)
        assert fixed(render(values)) == fixed(render(values, *more)), values


def test_a_chart_that_changes_nothing_of_a_pod_restarts_none(tmp_path):
    later = a_later_chart(tmp_path, "0.1.0")
    for one, two in zip(every(render(), "StatefulSet"), every(render(chart=later), "StatefulSet"), strict=True):
        assert one["spec"]["template"] == two["spec"]["template"]


def test_a_changed_setting_restarts_those_whom_it_concerns():
    def sums(*flags):
        return [find(render("minimal", *flags), "StatefulSet", f"-{role}")["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for role in ("coordinator", "worker")]

    before = sums()
    worker = sums("--set", "worker.capacity=2")
    assert worker[0] == before[0] and worker[1] != before[1]
    coordinator = sums("--set", "coordinator.config.coordinator.discovery_interval=9s")
    assert coordinator[0] != before[0] and coordinator[1] == before[1]
    both = sums("--set", "telemetry.log=debug")
    assert both[0] != before[0] and both[1] != before[1]


@pytest.mark.parametrize("values", VALUES)
def test_names_fit_and_labels_are_there(values):
    for one in render(values):
        meta = one["metadata"]
        assert len(meta["name"]) <= (52 if one["kind"] == "StatefulSet" else 63), meta["name"]
        assert meta["namespace"] == "streams", f"{one['kind']} {meta['name']}"
        if meta["name"].endswith("-ours"):
            continue
        for label in ("name", "instance", "component", "managed-by", "part-of", "version"):
            assert meta["labels"][f"app.kubernetes.io/{label}"], meta["name"]


def test_labels_of_ones_own_never_touch_selectors():
    objects = render("minimal", "--set-json", 'commonLabels={"app.kubernetes.io/name":"evil","app.kubernetes.io/component":"evil","team":"x"}')
    objects_with_pods = render("minimal", "--set-json", 'worker.podLabels={"app.kubernetes.io/component":"coordinator","x":"y"}')
    for one, pod in pods(objects):
        assert "evil" not in pod["metadata"].get("labels", {}).values() and one["metadata"]["labels"]["team"] == "x"
    assert find(objects_with_pods, "StatefulSet", "-worker")["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == "worker"


def labels_of(objects) -> dict[str, dict]:
    """Of the pods, by component."""
    found = {}
    for _, pod in pods(objects):
        labels = pod["metadata"]["labels"]
        found[labels["app.kubernetes.io/component"]] = labels
    return found


def selects(selector: dict, labels: dict) -> bool:
    wanted = selector.get("matchLabels", {}).items()
    rules = selector.get("matchExpressions", [])
    return wanted <= labels.items() and all(labels.get(rule["key"]) in rule["values"] for rule in rules)


@pytest.mark.parametrize("values", VALUES)
def test_every_selector_finds_the_pods_that_it_means(values):
    objects = render(values)
    labels = labels_of(objects)
    for one in every(objects, "StatefulSet", "PodDisruptionBudget", "PodMonitor"):
        component = one["metadata"]["labels"]["app.kubernetes.io/component"]
        selector = one["spec"]["selector"]
        chosen = {name for name, these in labels.items() if selects(selector, these)}
        assert chosen == ({"coordinator", "worker"} if one["kind"] == "PodMonitor" else {component}), one["metadata"]["name"]
    for one in every(objects, "Service"):
        chosen = {name for name, these in labels.items() if one["spec"]["selector"].items() <= these.items()}
        assert chosen == {one["metadata"]["labels"]["app.kubernetes.io/component"]}
    for one in every(objects, "ServiceMonitor"):
        services = [two for two in every(objects, "Service") if selects(one["spec"]["selector"], two["metadata"]["labels"])]
        assert sorted(two["spec"]["selector"]["app.kubernetes.io/component"] for two in services) == ["coordinator", "worker"]
        assert all("telemetry" in [port["name"] for port in two["spec"]["ports"]] for two in services)


@pytest.mark.parametrize("values", VALUES)
def test_every_service_port_is_one_of_its_pods(values):
    objects = render(values)
    for service in every(objects, "Service"):
        component = service["spec"]["selector"]["app.kubernetes.io/component"]
        ports = {port["name"] for port in main_container(find(objects, "StatefulSet", f"-{component}")["spec"]["template"])["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for one in every(objects, "StatefulSet"):
        headless = find(objects, "Service", one["spec"]["serviceName"])
        assert headless["spec"]["clusterIP"] == "None" and headless["spec"]["publishNotReadyAddresses"] is True


def test_two_releases_share_nothing():
    one = render()
    two = tools.parse(tools.run("helm4", "template", "other", str(CHART), "-n", "streams", "-f", str(CHART / "ci" / "minimal.yaml")).stdout)
    assert not {(x["kind"], x["metadata"]["name"]) for x in one} & {(x["kind"], x["metadata"]["name"]) for x in two}
    for x in every(one, "StatefulSet"):
        for _, pod in pods(two):
            assert not selects(x["spec"]["selector"], pod["metadata"].get("labels", {}))
    clusters = [toml_of(objects, "coordinator")["coordinator"]["cluster"] for objects in (one, two)]
    assert clusters == ["streams-rel-shardwright", "streams-other-shardwright"]
    assert toml_of(render("etcd-secured"), "coordinator")["coordinator"]["cluster"] == "orders"


@pytest.mark.parametrize("values", ["autoscaling", "keda"])
def test_an_autoscaler_owns_the_number_of_workers(values):
    objects = render(values)
    workers = find(objects, "StatefulSet", "-worker")
    assert "replicas" not in workers["spec"]
    scaler = find(objects, "HorizontalPodAutoscaler" if values == "autoscaling" else "ScaledObject")
    assert scaler["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": workers["metadata"]["name"]}
    assert find(objects, "StatefulSet", "-coordinator")["spec"]["replicas"] == 2


def test_the_autoscalers_look_at_the_right_things():
    cpu, external = find(render("autoscaling"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    workers = find(render("autoscaling"), "StatefulSet", "-worker")
    assert cpu["containerResource"]["container"] == main_container(workers["spec"]["template"])["name"]
    assert external["external"]["metric"]["name"] == "shardwright_workers_wanted"
    wanted, lag, cron = find(render("keda"), "ScaledObject")["spec"]["triggers"]
    assert wanted["metadata"]["query"] == 'max(workers_wanted{namespace="streams", pod=~"rel-shardwright-coordinator-.+"})'
    assert 'quantile="p90"' in lag["metadata"]["query"] and lag["metadata"]["threshold"] == "120" and cron["type"] == "cron"
    assert wanted["authenticationRef"] == {"name": "prometheus"}
    # Where nobody leads there are no values: KEDA would take that for 0, and remove workers.
    assert [one["metadata"]["ignoreNullValues"] for one in (wanted, lag)] == ["false", "false"]


def test_workers_go_one_by_one_and_coordinators_never_all():
    for one in every(render(), "PodDisruptionBudget"):
        assert one["spec"]["maxUnavailable"] == 1 and one["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    for one in every(render(), "StatefulSet"):
        assert one["spec"]["podManagementPolicy"] == "Parallel" and one["spec"]["minReadySeconds"] == 5
        assert one["spec"]["updateStrategy"] == {"type": "RollingUpdate"} and one["spec"]["replicas"] == 2
    assert find(render("aws-irsa"), "PodDisruptionBudget", "-worker")["spec"]["maxUnavailable"] == "25%"


def test_an_embedded_store_is_one_coordinator_with_a_volume_that_stays():
    objects = render("embedded")
    one = find(objects, "StatefulSet", "-coordinator")
    assert one["spec"]["replicas"] == 1
    assert one["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
    assert one["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    path = toml_of(objects, "coordinator")["store"]["url"].removeprefix("embedded:")
    mounts = {mount["mountPath"]: mount["name"] for mount in main_container(one["spec"]["template"])["volumeMounts"]}
    assert mounts[path.rpartition("/")[0]] == "data"


def test_volumes_carry_only_labels_that_stay():
    claim = find(render("persistence"), "StatefulSet", "-worker")["spec"]["volumeClaimTemplates"][0]
    assert set(claim["metadata"]["labels"]) == {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}
    assert claim["spec"]["storageClassName"] == "gp3"


def test_the_hook_of_statements_can_run_again_and_again():
    objects = render("statements")
    job = find(objects, "Job")
    notes = job["metadata"]["annotations"]
    assert notes["helm.sh/hook"] == "post-install,post-upgrade" and "before-hook-creation" in notes["helm.sh/hook-delete-policy"]
    retried = job["spec"]["podFailurePolicy"]["rules"][0]
    assert retried == {"action": "Ignore", "onExitCodes": {"containerName": main_container(job["spec"]["template"])["name"], "operator": "In", "values": [3]}}
    args = main_container(job["spec"]["template"])["args"]
    assert args[:3] == ["sql", "--file", "/etc/shardwright/statements/statements.sql"]
    assert args[args.index("--server") + 1] == "http://rel-shardwright-coordinator.streams.svc:7070"
    assert job["spec"]["template"]["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    assert "helm.sh/hook" not in json.dumps(find(objects, "ConfigMap", "-statements")), "an object of the release: it is there before the hook"
    sql = find(objects, "ConfigMap", "-statements")["data"]["statements.sql"]
    assert sql == yaml.safe_load((CHART / "ci" / "statements.yaml").read_text())["statements"]["sql"]
    secret = find(render("statements-secret"), "Job")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "statements", "secret": {"secretName": "shardwright-sql", "defaultMode": 0o440, "items": [{"key": "all.sql", "path": "statements.sql"}]}} in secret
    assert not every(render(), "Job")


def test_helm_test_moves_records_and_leaves_nothing():
    named = {one["metadata"]["name"]: main_container(one)["args"] for one in every(render("statements"), "Pod")}
    assert set(named) == {f"rel-shardwright-test-{name}" for name in ("status", "records", "exchange", "stream")}
    assert named["rel-shardwright-test-records"][:5] == ["selftest", "--records", "1000", "--timeout", "120s"]
    assert named["rel-shardwright-test-exchange"][:7] == ["selftest", "--records", "1000", "--timeout", "120s", "--partitions", "4"]
    other = find(render("minimal", "--set", "tests.records=7,tests.timeoutSeconds=9"), "Pod", "-test-records")
    assert main_container(other)["args"][:5] == ["selftest", "--records", "7", "--timeout", "9s"]
    stream = named["rel-shardwright-test-stream"]
    sql = [text for flag, text in zip(stream, stream[1:]) if flag == "--command"]
    made = re.search(r"CREATE SOURCE (\w+)", " ".join(sql)).group(1)
    assert sql[0] == f"DROP SOURCE IF EXISTS {made} CASCADE" and sql[-1] == f"DROP SOURCE {made} CASCADE"
    assert len(every(render(), "Pod")) == 3 and not every(render("aws-keys"), "Pod")
    assert len(every(render("embedded"), "Pod")) == 3, "everybody is let in"


TOKENS_ONLY = ("--set", "auth.existingSecret=,auth.jwt.issuer=https://i,auth.jwt.jwksUrl=https://j,auth.jwt.audience=a")


def test_where_nobody_has_a_password_there_is_no_helm_test():
    assert not every(render("minimal", *TOKENS_ONLY), "Pod"), "it could only be refused"


def test_a_gateway_shows_the_admin_api_only():
    objects = render("gateway")
    route = find(objects, "GRPCRoute")
    matched = {match["method"]["service"] for rule in route["spec"]["rules"] for match in rule["matches"]}
    protos = "".join(path.read_text() for path in (tools.ROOT / "proto" / "shardwright" / "v1").glob("*.proto"))
    services = set(re.findall(r"^service (\w+)", protos, re.M)) - {"Session", "Exchange"}
    assert matched == {f"shardwright.v1.{name}" for name in services} | {"grpc.health.v1.Health"}, "all that tools call, and no more"
    backend = route["spec"]["rules"][0]["backendRefs"][0]
    service = find(objects, "Service", backend["name"])
    assert backend["port"] == service["spec"]["ports"][0]["port"] and service["spec"]["ports"][0]["appProtocol"] == "https"
    policy = find(objects, "BackendTLSPolicy")
    assert policy["spec"]["validation"]["hostname"] in find(objects, "Certificate", "-coordinator")["spec"]["dnsNames"]
    ingress = find(render("ingress"), "Ingress")
    assert {path["path"] for path in ingress["spec"]["rules"][0]["http"]["paths"]} == {f"/{service}" for service in matched}
    assert ingress["spec"]["tls"] == [{"hosts": ["shardwright.example.com"], "secretName": "shardwright-example-com"}]
    assert find(render("ingress"), "Service", "shardwright-coordinator")["spec"]["ports"][0]["appProtocol"] == "kubernetes.io/h2c"


def test_service_accounts_take_roles():
    for role in ("coordinator", "worker"):
        account = find(render("aws-irsa"), "ServiceAccount", f"-{role}")
        assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].endswith(f"role/{role}")
        assert find(render("aws-irsa"), "StatefulSet", f"-{role}")["spec"]["template"]["spec"]["serviceAccountName"] == account["metadata"]["name"]
    assert [one["metadata"]["name"] for one in every(render("aws-keys"), "ServiceAccount")] == ["rel-shardwright-client"]


def test_the_notes_say_what_to_do_next():
    def notes(values, *flags):
        done = tools.run("helm4", "install", "rel", str(CHART), "-n", "streams", "-f", str(CHART / "ci" / f"{values}.yaml"), "--dry-run=client", *flags)
        assert done.returncode == 0, done.stderr
        return done.stdout[done.stdout.index("NOTES:"):]

    minimal = notes("minimal")
    for text in ("rollout status statefulset/rel-shardwright-coordinator", "helm -n streams test rel", "port-forward service/rel-shardwright-coordinator 7070:7070", "--user admin", "MIND: tls.enabled is false"):
        assert text in minimal, text
    assert "nothing to run" not in minimal
    tokens = notes("minimal", *TOKENS_ONLY)
    assert "helm -n streams test rel" not in tokens and "`helm test` has nothing to run" in tokens
    assert "MIND: auth.anonymous=always" in notes("embedded") and "one coordinator with one file" in notes("embedded")
    assert "https://localhost:7070" in notes("tls-own-authority") and "MIND: tls" not in notes("tls-own-authority")
    assert "workers by an autoscaler" in notes("keda") and "admin\\.password" in notes("statements-secret")
