"""The settings that pods are given: ones that the program knows, without a secret in them, and TLS that fits together."""

import base64
import fnmatch
import json
import re
import shutil
import subprocess
import urllib.parse

import pytest

from test_pods import toml_of
from tools import BINARY, VALUES, every, env_of, find, main_container, pods, render


def keys(section: dict, path: str = "") -> list[str]:
    found = []
    for name, value in section.items():
        key = f"{path}.{name}" if path else name
        found += keys(value, key) if isinstance(value, dict) else [key]
    return found


def known() -> set[str]:
    """Every key of the program; a text `x` may also come from a file, as `x_file`."""
    if not BINARY.exists():
        pytest.skip(f"settings of the program: {BINARY.name} is not built")
    done = subprocess.run([str(BINARY), "settings"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    return listed | {f"{key}_file" for key in listed}


@pytest.mark.parametrize("values", VALUES)
def test_the_program_knows_every_setting(values):
    all_known = known()
    objects = render(values)
    for role in ("coordinator", "worker"):
        assert set(keys(toml_of(objects, role))) <= all_known, f"{role}: {set(keys(toml_of(objects, role))) - all_known}"
        variables = env_of(main_container(find(objects, "StatefulSet", f"-{role}")["spec"]["template"]))
        ours = {name for name in variables if name.startswith("SHARDWRIGHT_")}
        assert ours <= {f"SHARDWRIGHT_{key.upper().replace('.', '_')}" for key in all_known}


ENV = {"POD_NAME": "rel-shardwright-0", "POD_NAMESPACE": "streams", "POD_IP": "127.0.0.1", "SHARDWRIGHT_WORKER_INSTANCE": "uid", "SHARDWRIGHT_WORKER_ZONE": ""}


@pytest.fixture(scope="module")
def mounted(tmp_path_factory):
    """A folder like that of a pod's secrets: every file that any setting names."""
    folder = tmp_path_factory.mktemp("etc")
    for name in ("tls", "etcd-tls", "etcd-auth", "auth", "master-key", "kubernetes"):
        (folder / name).mkdir()
    for name in ("etcd-auth/password", "auth/password", "kubernetes/token"):
        (folder / name).write_text("a-long-enough-password\n")
    for name in ("key", "previous"):
        (folder / "master-key" / name).write_text(base64.b64encode(name.ljust(32).encode()).decode() + "\n")
    if shutil.which("openssl"):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=rel-shardwright-0"]
        subprocess.run([*command, "-keyout", folder / "tls" / "tls.key", "-out", folder / "tls" / "tls.crt"], check=True, capture_output=True)
        for name in ("tls/ca.crt", "etcd-tls/ca.crt", "etcd-tls/tls.crt", "kubernetes/ca.crt"):
            shutil.copy(folder / "tls" / "tls.crt", folder / name)
        shutil.copy(folder / "tls" / "tls.key", folder / "etcd-tls" / "tls.key")
    return folder


@pytest.mark.parametrize("values", VALUES)
def test_the_program_accepts_the_settings_as_a_whole(values, mounted, tmp_path):
    """By its own `check`, with the pod's variables: types, what goes together, secrets as files."""
    known()
    for role in ("coordinator", "worker"):
        objects = render(values)
        text = find_toml(objects, role).replace("/etc/shardwright/", f"{mounted}/").replace("/var/lib/shardwright", str(tmp_path))
        (tmp_path / f"{role}.toml").write_text(text)
        env = dict(ENV)
        for name, one in env_of(main_container(find(objects, "StatefulSet", f"-{role}")["spec"]["template"])).items():
            if "value" in one and name.startswith("SHARDWRIGHT_"):
                env[name] = re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], one["value"])
            elif name == "SHARDWRIGHT_STORE_USER":
                env[name] = "user"
        command = [str(BINARY), "check", "--config", str(tmp_path / f"{role}.toml"), "--skip", "store,coordinators,sources,sinks,limits"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
        lines = [line for line in done.stdout.splitlines() if not line.startswith("ok ")]
        assert re.search(r"^ok +settings", done.stdout, re.M), f"{role}: {done.stdout}{done.stderr}"
        assert not [line for line in lines if line.startswith("failed")], f"{role}: {done.stdout}{done.stderr}"


def find_toml(objects, role: str) -> str:
    return next(one["data"][f"{role}.toml"] for one in every(objects, "ConfigMap") if f"{role}.toml" in one["data"])


@pytest.mark.parametrize("values", VALUES)
def test_settings_have_the_types_that_they_should(values):
    worker = toml_of(render(values), "worker")
    for key in ("capacity", "memory_budget", "exchange_memory"):
        assert type(worker["worker"][key]) is int, "a number of YAML must not become 7.07e+03"
    assert isinstance(worker["worker"]["coordinators"], list)


def test_quantities_and_numbers_become_bytes_and_integers():
    worker = toml_of(render("aws-irsa"), "worker")["worker"]
    assert (worker["memory_budget"], worker["exchange_memory"], worker["capacity"]) == (2 << 30, 256 << 20, 2)
    assert worker["drain_deadline"] == "1m"
    pod = find(render("aws-irsa"), "StatefulSet", "-worker")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 80
    assert toml_of(render("monitoring"), "worker")["telemetry"]["trace_ratio"] == 0.05


def test_settings_of_ones_own_are_written_over_those_of_the_chart():
    coordinator, worker = (toml_of(render("kms"), role) for role in ("coordinator", "worker"))
    assert coordinator["coordinator"]["discovery_interval"] == "30s" and "discovery_interval" not in json.dumps(worker)
    assert coordinator["telemetry"]["log"] == worker["telemetry"]["log"] == "warn"
    assert worker["worker"]["measure_cpu"] is False, "`false` is a value, too"
    assert coordinator["coordinator"]["timing"]["write_attempt_timeout"] == worker["worker"]["write_attempt_timeout"] == "8s"


def test_only_coordinators_know_the_store_and_who_is_who():
    for values in VALUES:
        worker = toml_of(render(values), "worker")
        assert not {"store", "auth", "secrets"} & set(worker)
        pod = find(render(values), "StatefulSet", "-worker")["spec"]["template"]
        secrets = {volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume}
        assert secrets <= {"rel-shardwright-worker-tls", "worker-tls"}, f"{values}: {secrets}"


SECRET = re.compile(r"(password|master_key|previous_keys|secret|token)$")


@pytest.mark.parametrize("values", VALUES)
def test_no_secret_stands_in_what_is_rendered(values):
    objects = render(values)
    assert not every(objects, "Secret"), "secrets exist already, or cert-manager makes them"
    for role in ("coordinator", "worker"):
        assert not [key for key in keys(toml_of(objects, role)) if SECRET.search(key)]
    for one, pod in pods(objects):
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", []):
                if re.search(r"PASSWORD|SECRET|TOKEN|MASTER", variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"], one["metadata"]["name"]
        for volume in pod["spec"]["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440 and volume["secret"]["items"], "only what is needed, for the group only"


def test_secrets_are_files_where_the_settings_look():
    def files(values, role):
        pod = find(render(values), "StatefulSet", f"-{role}")["spec"]["template"]
        mounts = {mount["name"]: mount["mountPath"] for mount in main_container(pod)["volumeMounts"]}
        sources = [(volume["name"], volume["secret"]) for volume in pod["spec"]["volumes"] if "secret" in volume]
        return {f"{mounts[name]}/{item['path']}": (secret["secretName"], item["key"]) for name, secret in sources for item in secret["items"]}

    store = toml_of(render("etcd-secured"), "coordinator")["store"]
    found = files("etcd-secured", "coordinator")
    assert found[store["password_file"]] == ("etcd-user", "pass")
    assert [found[store[key]] for key in ("ca", "cert", "key")] == [("etcd-client", key) for key in ("authority.pem", "client.pem", "client-key.pem")]
    assert store["url"] == "https://etcd-0.etcd.data.svc:2379,etcd-1.etcd.data.svc:2379,etcd-2.etcd.data.svc:2379"
    user = env_of(main_container(find(render("etcd-secured"), "StatefulSet", "-coordinator")["spec"]["template"]))["SHARDWRIGHT_STORE_USER"]
    assert user["valueFrom"]["secretKeyRef"] == {"name": "etcd-user", "key": "user"}
    settings = toml_of(render("statements-secret"), "coordinator")
    found = files("statements-secret", "coordinator")
    assert found[settings["auth"]["admin_password_file"]] == ("shardwright-admin", "admin.password") and settings["auth"]["admin_user"] == "root"
    assert found[settings["secrets"]["master_key_file"]] == ("shardwright-master", "master-key")
    assert found[settings["secrets"]["previous_keys_file"]] == ("shardwright-master", "previous")


TLS = [values for values in VALUES if "cert_path" in toml_of(render(values), "coordinator").get("tls", {})]


def certificate_names(values: str, role: str) -> list[str] | None:
    objects = render(values)
    for one in every(objects, "Certificate"):
        if one["spec"]["secretName"].endswith(f"-{role}-tls"):
            return one["spec"]["dnsNames"]
    pod = find(objects, "StatefulSet", f"-{role}")["spec"]["template"]
    volume = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "tls")
    if "csi" in volume:
        given = volume["csi"]["volumeAttributes"]["csi.cert-manager.io/dns-names"]
        return given.replace("${POD_NAME}", f"rel-shardwright-{role}-0").replace("${POD_NAMESPACE}", "streams").split(",")
    return None


@pytest.mark.parametrize("values", [values for values in TLS if certificate_names(values, "coordinator")])
def test_certificates_hold_the_names_by_which_processes_are_called(values):
    coordinator, worker = certificate_names(values, "coordinator"), certificate_names(values, "worker")
    objects = render(values)
    called = [urllib.parse.urlsplit(url).hostname for url in toml_of(objects, "worker")["worker"]["coordinators"]]
    for name in [*called, "localhost"]:
        assert name in coordinator
    for role, names in (("coordinator", coordinator), ("worker", worker)):
        service = find(objects, "StatefulSet", f"-{role}")["spec"]["serviceName"]
        pod = f"rel-shardwright-{role}-0.{service}.streams.svc"
        assert any(fnmatch.fnmatch(pod, name) for name in names), f"{pod}: {names}"
    if toml_of(objects, "worker")["tls"]["verify_names"]:
        assert "rel-shardwright-worker-0" in worker, "the worker's name, exactly"


@pytest.mark.parametrize("values", TLS)
def test_tls_is_read_from_a_folder_that_follows_its_secret(values):
    objects = render(values)
    for role in ("coordinator", "worker"):
        tls = toml_of(objects, role)["tls"]
        pod = find(objects, "StatefulSet", f"-{role}")["spec"]["template"]
        mount = next(mount for mount in main_container(pod)["volumeMounts"] if mount["name"] == "tls")
        assert "subPath" not in mount and mount["readOnly"] is True
        assert [tls[key] for key in ("cert_path", "key_path", "ca_path")] == [f"{mount['mountPath']}/{name}" for name in ("tls.crt", "tls.key", "ca.crt")]
        assert tls["verify_names"] is (values in ("tls-csi", "hardened"))
    assert all(url.startswith("https://") for url in toml_of(objects, "worker")["worker"]["coordinators"])
    coordinator = find(objects, "StatefulSet", "-coordinator")["spec"]["template"]
    assert env_of(main_container(coordinator))["SHARDWRIGHT_COORDINATOR_ADVERTISE"]["value"].startswith("https://")


def test_without_tls_the_settings_say_that_the_network_is_trusted():
    for one in ("coordinator", "worker"):
        assert toml_of(render(), one)["tls"] == {"plaintext": "always"}
    assert not every(render(), "Certificate", "Issuer")


def test_cert_manager_makes_certificates_for_both_directions():
    for values in ("tls-own-authority", "tls-issuer", "gateway"):
        for role in ("coordinator", "worker"):
            spec = find(render(values), "Certificate", f"shardwright-{role}")["spec"]
            assert set(spec["usages"]) >= {"server auth", "client auth"} and spec["privateKey"]["rotationPolicy"] == "Always"
            assert not spec.get("isCA")
    own = render("tls-own-authority")
    assert find(own, "Certificate", "-ca")["spec"]["isCA"] is True
    assert find(own, "Certificate", "shardwright-worker")["spec"]["issuerRef"]["name"] == find(own, "Issuer", "-ca")["metadata"]["name"]
    assert "shardwright.example.com" in find(own, "Certificate", "shardwright-coordinator")["spec"]["dnsNames"]
    given = render("tls-issuer")
    assert not every(given, "Issuer") and find(given, "Certificate", "shardwright-worker")["spec"]["issuerRef"] == {"name": "platform", "kind": "ClusterIssuer", "group": "cert-manager.io"}


@pytest.mark.parametrize("values", TLS)
def test_the_charts_own_clients_check_whom_they_talk_to(values):
    for one, pod in pods(render(values)):
        if one["kind"] == "StatefulSet":
            continue
        args = main_container(pod)["args"]
        assert args[args.index("--server") + 1].startswith("https://rel-shardwright-coordinator.streams.svc")
        assert args[args.index("--ca") + 1] == "/etc/shardwright/tls/ca.crt"
        assert args[args.index("--password-file") + 1] == "/etc/shardwright/auth/password"
        volume = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "tls")
        if "secret" in volume and "--cert" not in args:
            assert [item["key"] for item in volume["secret"]["items"]] == ["ca.crt"], "the coordinators' key is not theirs"


def test_who_may_pass_on_whom():
    for values in VALUES:
        named = "peers" in toml_of(render(values), "coordinator")["auth"]
        assert named == (values in ("tls-own-authority", "tls-existing-secrets")), "nobody is believed unless named"
    assert toml_of(render("tls-own-authority"), "coordinator")["auth"]["peers"] == ["rel-shardwright-coordinator"]
    assert find(render("tls-own-authority"), "Certificate", "shardwright-coordinator")["spec"]["commonName"] == "rel-shardwright-coordinator"
    assert "rel-shardwright-coordinator" in certificate_names("tls-csi", "coordinator")
    assert "rel-shardwright-coordinator" not in certificate_names("tls-csi", "worker") + certificate_names("tls-own-authority", "worker")
    assert toml_of(render("tls-existing-secrets"), "coordinator")["auth"]["peers"] == ["coordinator.shardwright.internal"]


def test_tokens_of_service_accounts_are_checked_with_the_keys_of_the_api_server():
    jwt = toml_of(render("service-account-tokens"), "coordinator")["auth"]["jwt"]
    pod = find(render("service-account-tokens"), "StatefulSet", "-coordinator")["spec"]["template"]
    mount = next(mount["mountPath"] for mount in main_container(pod)["volumeMounts"] if mount["name"] == "kubernetes")
    assert (jwt["jwks_ca_path"], jwt["jwks_token_path"]) == (f"{mount}/ca.crt", f"{mount}/token")
    assert jwt["jwks_url"] == "https://kubernetes.default.svc/openid/v1/jwks" and jwt["audience"] == "shardwright"


def test_nobody_is_the_administrator_by_default():
    assert toml_of(render(), "coordinator")["auth"]["anonymous"] == "loopback"
    assert toml_of(render("gateway"), "coordinator")["auth"]["jwt"] == {
        "issuer": "https://login.example.com", "jwks_url": "https://login.example.com/keys", "audience": "shardwright", "user_claim": "sub", "roles_claim": "groups",
    }
