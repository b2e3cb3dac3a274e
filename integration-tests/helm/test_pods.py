"""What every pod of the chart promises: whom it runs as, what it is told, how it starts, stops and is looked at."""

import re

import pytest

from tools import VALUES, containers, env_of, every, find, main_container, pods, render, versions

ALLOWED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def all_pods(values: str, **options):
    return [(one["metadata"]["name"], pod) for one, pod in pods(render(values, **options))]


@pytest.mark.parametrize("values", VALUES)
def test_no_name_is_given_twice(values):
    for name, pod in all_pods(values):
        volumes = [one["name"] for one in pod["spec"]["volumes"]]
        assert len(volumes) == len(set(volumes)), name
        for kind in ("containers", "initContainers"):
            names = [one["name"] for one in pod["spec"].get(kind, [])]
            assert len(names) == len(set(names)), name
        for container in containers(pod):
            for key, field in (("env", "name"), ("volumeMounts", "mountPath"), ("ports", "name"), ("ports", "containerPort")):
                given = [one[field] for one in container.get(key, [])]
                assert len(given) == len(set(given)), f"{name}: {key} {given}"
            sources = [str(one) for one in container.get("envFrom", [])]
            assert len(sources) == len(set(sources)), name


@pytest.mark.parametrize("values", VALUES)
def test_a_variable_refers_only_to_those_before_it(values):
    for name, pod in all_pods(values):
        for container in containers(pod):
            seen = set()
            for one in container.get("env", []):
                assert set(re.findall(r"\$\((\w+)\)", one.get("value", ""))) <= seen, f"{name}: {one}"
                seen.add(one["name"])


@pytest.mark.parametrize("values", VALUES)
def test_every_mount_has_its_volume(values):
    for one, pod in pods(render(values)):
        claims = [claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])]
        volumes = [volume["name"] for volume in pod["spec"]["volumes"]]
        assert not set(claims) & set(volumes)
        for container in containers(pod):
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= {*claims, *volumes}, one["metadata"]["name"]


@pytest.mark.parametrize("values", VALUES)
def test_every_pod_meets_the_restricted_profile(values):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    for name, pod in all_pods(values):
        spec = pod["spec"]
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), name
        assert not spec["securityContext"].get("sysctls"), name
        for volume in spec["volumes"]:
            assert set(volume) - {"name"} <= ALLOWED_VOLUMES, f"{name}: {volume}"
        for container in containers(pod):
            context = spec["securityContext"] | container["securityContext"]
            assert context["runAsNonRoot"] is True and context["runAsUser"] != 0, name
            assert context["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost"), name
            assert context["allowPrivilegeEscalation"] is False and not context.get("privileged"), name
            assert context["capabilities"]["drop"] == ["ALL"] and not context["capabilities"].get("add"), name
            assert not any("hostPort" in port for port in container.get("ports", [])), name


@pytest.mark.parametrize("values", VALUES)
def test_our_containers_have_a_read_only_root_and_an_owner(values):
    for name, pod in all_pods(values):
        assert main_container(pod)["securityContext"]["readOnlyRootFilesystem"] is True, name
        assert (pod["spec"]["securityContext"]["runAsUser"], pod["spec"]["securityContext"]["fsGroup"]) == (65532, 65532)
        assert {mount["mountPath"] for mount in main_container(pod)["volumeMounts"]} >= {"/tmp"}, name


@pytest.mark.parametrize("values", VALUES)
def test_no_pod_holds_a_token_of_the_kubernetes_api(values):
    accounts = {one["metadata"]["name"]: one for one in every(render(values), "ServiceAccount")}
    for name, pod in all_pods(values):
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        tokens = [one for volume in pod["spec"]["volumes"] for one in volume.get("projected", {}).get("sources", []) if "serviceAccountToken" in one]
        assert len(tokens) == (values == "service-account-tokens" and name.endswith("-coordinator")), name
        account = pod["spec"]["serviceAccountName"]
        assert account != "default" and (account in accounts or account == "streams"), name
    assert all(one["automountServiceAccountToken"] is False for one in accounts.values())


@pytest.mark.parametrize("values", VALUES)
def test_kubernetes_adds_no_variables_of_services(values):
    """It would name them SHARDWRIGHT_…, as our settings are named."""
    for name, pod in all_pods(values):
        assert pod["spec"]["enableServiceLinks"] is False, name


@pytest.mark.parametrize("values", VALUES)
def test_resources_are_said_for_every_container(values):
    for name, pod in all_pods(values):
        resources = main_container(pod)["resources"]
        assert resources["requests"]["cpu"] and resources["requests"]["memory"] and resources["limits"]["memory"], name


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([0-9]+)(ms|s|m|h)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def toml_of(objects, role: str) -> dict:
    import tomllib

    maps = [one for one in every(objects, "ConfigMap") if f"{role}.toml" in one["data"]]
    assert len(maps) == 1
    return tomllib.loads(maps[0]["data"][f"{role}.toml"])


@pytest.mark.parametrize("values", VALUES)
def test_the_grace_is_longer_than_the_drain(values):
    objects = render(values)
    worker = find(objects, "StatefulSet", "-worker")["spec"]["template"]
    drain = seconds(toml_of(objects, "worker")["worker"]["drain_deadline"])
    sleep = main_container(worker).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert worker["spec"]["terminationGracePeriodSeconds"] >= drain + sleep + 5
    coordinator = find(objects, "StatefulSet", "-coordinator")["spec"]["template"]
    sleep = main_container(coordinator).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert coordinator["spec"]["terminationGracePeriodSeconds"] >= sleep + 5


def test_a_stopping_coordinator_waits_for_the_endpoints_where_kubernetes_can():
    for version in versions():
        pod = find(render(version=version), "StatefulSet", "-coordinator")["spec"]["template"]
        hook = main_container(pod).get("lifecycle")
        assert (hook == {"preStop": {"sleep": {"seconds": 3}}}) == (int(version.split(".")[1]) >= 30), version
    assert "lifecycle" not in main_container(find(render("aws-keys"), "StatefulSet", "-coordinator")["spec"]["template"])


@pytest.mark.parametrize("values", VALUES)
def test_every_process_is_probed_at_a_port_that_it_names(values):
    for role in ("coordinator", "worker"):
        container = main_container(find(render(values), "StatefulSet", f"-{role}")["spec"]["template"])
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            found = container[probe]
            if "grpc" in found:
                assert role == "coordinator" and found["grpc"]["port"] == ports["grpc"]
            else:
                assert found["httpGet"] == {"path": path, "port": "telemetry"}
            assert found["periodSeconds"] >= 1 and found["failureThreshold"] >= 1
        listen = toml_of(render(values), role)["telemetry"]["listen"]
        assert listen.endswith(f":{ports['telemetry']}") and not listen.startswith("127.")


def test_grpc_health_can_be_probed():
    container = main_container(find(render("persistence"), "StatefulSet", "-coordinator")["spec"]["template"])
    assert container["startupProbe"]["grpc"] == {"port": 7070} == container["livenessProbe"]["grpc"]
    assert "httpGet" in container["readinessProbe"]


def test_a_worker_is_its_pod():
    env = env_of(main_container(find(render(), "StatefulSet", "-worker")["spec"]["template"]))
    assert env["SHARDWRIGHT_WORKER_NAME"]["value"] == "$(POD_NAME)"
    assert env["SHARDWRIGHT_WORKER_INSTANCE"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.uid"
    assert env["SHARDWRIGHT_WORKER_EXCHANGE_ADVERTISE"]["value"] == "$(POD_IP):7071"
    zone = env["SHARDWRIGHT_WORKER_ZONE"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert zone == "metadata.labels['topology.kubernetes.io/zone']"
    assert toml_of(render("aws-keys"), "worker")["worker"]["zone"] == "eu-west-1a"


def test_a_collector_hears_which_pod_it_was():
    for role in ("coordinator", "worker"):
        env = env_of(main_container(find(render("monitoring"), "StatefulSet", f"-{role}")["spec"]["template"]))
        assert env["OTEL_RESOURCE_ATTRIBUTES"]["value"] == "k8s.pod.name=$(POD_NAME),k8s.namespace.name=$(POD_NAMESPACE)"
        assert "OTEL_RESOURCE_ATTRIBUTES" not in env_of(main_container(find(render(), "StatefulSet", f"-{role}")["spec"]["template"]))
    flags = ("--set", "extraEnv[0].name=OTEL_RESOURCE_ATTRIBUTES,extraEnv[0].value=deployment.environment=test")
    ours = env_of(main_container(find(render("monitoring", *flags), "StatefulSet", "-worker")["spec"]["template"]))
    assert ours["OTEL_RESOURCE_ATTRIBUTES"]["value"] == "deployment.environment=test"


def test_instances_are_pods_even_where_a_volume_outlives_them():
    """A volume may be attached elsewhere while the old pod still runs on a node that was cut off."""
    env = env_of(main_container(find(render("persistence"), "StatefulSet", "-worker")["spec"]["template"]))
    assert env["SHARDWRIGHT_WORKER_INSTANCE"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.uid"


@pytest.mark.parametrize(
    ("values", "coordinator", "worker"),
    [("minimal", "ip", "ip"), ("tls-own-authority", "ip", "ip"), ("tls-csi", "dns", "ip"), ("ipv6", "dns", "dns"), ("hardened", "dns", "ip")],
)
def test_processes_say_where_they_are(values, coordinator, worker):
    """By address, which is right at once; by name where a certificate must hold it, or where an address needs brackets."""
    objects = render(values)
    roles = (("coordinator", coordinator, "SHARDWRIGHT_COORDINATOR_ADVERTISE", 7070), ("worker", worker, "SHARDWRIGHT_WORKER_EXCHANGE_ADVERTISE", 7071))
    for role, expected, variable, port in roles:
        found = find(objects, "StatefulSet", f"-{role}")
        value = env_of(main_container(found["spec"]["template"]))[variable]["value"]
        host = "$(POD_IP)" if expected == "ip" else f"$(POD_NAME).{found['spec']['serviceName']}.streams.svc"
        assert re.sub(r"^https?://", "", value).removesuffix(f":{port}").removesuffix(".cluster.local") == host
        assert value.endswith(f":{port}")


def test_added_things_are_merged_by_name():
    objects = render("extras")
    coordinator = find(objects, "StatefulSet", "-coordinator")["spec"]["template"]
    worker = find(objects, "StatefulSet", "-worker")["spec"]["template"]
    assert env_of(main_container(coordinator))["RUST_BACKTRACE"]["value"] == "1"
    env = env_of(main_container(worker))
    assert env["RUST_BACKTRACE"]["value"] == "full" and env["HTTPS_PROXY"]["value"] == "http://proxy:3128"
    assert env["SHARDWRIGHT_WORKER_ZONE"] == {"name": "SHARDWRIGHT_WORKER_ZONE", "value": "eu-west-1b"}
    assert main_container(worker)["envFrom"] == [{"secretRef": {"name": "everywhere"}}, {"configMapRef": {"name": "more"}, "prefix": "MORE_"}]
    volumes = {one["name"]: one for one in worker["spec"]["volumes"]}
    assert volumes["scratch"]["emptyDir"] == {"sizeLimit": "1Gi"} and "cas" in volumes
    mounts = {one["mountPath"]: one for one in main_container(worker)["volumeMounts"]}
    assert mounts["/tmp"]["name"] == "scratch" and mounts["/etc/ssl/ours"]["readOnly"] is True
    assert [one["args"] for one in worker["spec"]["initContainers"]] == [["false"]]
    assert [one["name"] for one in worker["spec"]["containers"]] == ["worker", "proxy"]
    assert [one["name"] for one in coordinator["spec"]["containers"]] == ["coordinator"]
    assert main_container(coordinator)["args"][-2:] == ["--set", "coordinator.reconcile_interval=2s"]
    assert find(objects, "ConfigMap", "-ours")["data"] == {"a": "second"}


def test_an_image_can_be_named_in_every_way():
    pod = find(render("aws-irsa"), "StatefulSet", "-worker")["spec"]["template"]
    assert main_container(pod)["image"].startswith("registry.example.com/streams/shardwright@sha256:0123")
    assert pod["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    tag = main_container(find(render("minimal", "--set", "image.tag=v9"), "StatefulSet", "-worker")["spec"]["template"])["image"]
    assert tag == "shardwright:v9"


def test_pods_are_spread_and_placed():
    soft = find(render(), "StatefulSet", "-worker")["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert [(one["topologyKey"], one["whenUnsatisfiable"]) for one in soft] == [
        ("kubernetes.io/hostname", "ScheduleAnyway"),
        ("topology.kubernetes.io/zone", "ScheduleAnyway"),
    ]
    hard = find(render("hardened"), "StatefulSet", "-coordinator")["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert hard[0]["whenUnsatisfiable"] == "DoNotSchedule"
    assert "topologySpreadConstraints" not in find(render("aws-keys"), "StatefulSet", "-worker")["spec"]["template"]["spec"]
    placed = find(render("aws-irsa"), "StatefulSet", "-worker")["spec"]["template"]["spec"]
    assert placed["tolerations"] and placed["affinity"]["nodeAffinity"] and len(placed["topologySpreadConstraints"]) == 1
    coordinator = find(render("aws-irsa"), "StatefulSet", "-coordinator")["spec"]["template"]["spec"]
    assert coordinator["priorityClassName"] == "system-cluster-critical" and coordinator["nodeSelector"]
