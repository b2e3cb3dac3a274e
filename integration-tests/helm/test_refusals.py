"""What cannot work is refused when it is rendered, and the message says what to set."""

import json
import re

import pytest
import yaml

from tools import CHART, VALUES, refusal

REFUSED = {
    "no endpoints": (["--set-json", "etcd.endpoints=[]"], "set the HOST:PORT of your etcd's members"),
    "an embedded store with two coordinators": (["--set", "etcd.mode=embedded", "--set-json", "etcd.endpoints=[]"], "set coordinator.replicas=1"),
    "an embedded store with endpoints": (["--set", "etcd.mode=embedded,coordinator.replicas=1"], "takes no etcd.endpoints"),
    "certificates of etcd without TLS": (["--set", "etcd.tls.existingSecret=x"], "set etcd.tls.enabled=true"),
    "a certificate of etcd without its key": (["--set", "etcd.tls.enabled=true,etcd.tls.existingSecret=x,etcd.tls.privateKeyKey="], "go together"),
    "nobody who could log in": (["--set", "auth.existingSecret="], "kubectl create secret generic shardwright-admin"),
    "tokens without keys": (["--set", "auth.jwt.issuer=https://x"], "auth.jwt.jwksUrl (or auth.jwt.kubernetes) and auth.jwt.audience"),
    "tokens of Kubernetes without its name": (["--set", "auth.jwt.kubernetes=true"], "needs auth.jwt.issuer"),
    "secrets of TLS that are not named": (["--set", "tls.enabled=true,tls.source=existingSecret"], "tls.existingSecret.coordinator"),
    "csi without an issuer": (["--set", "tls.enabled=true,tls.source=csi"], "tls.certManager.issuerRef.name"),
    "names that a shared certificate cannot have": (["--set", "tls.enabled=true,tls.verifyNames=true"], "use tls.source=csi"),
    "gRPC probes with TLS": (["--set", "tls.enabled=true,coordinator.probes.liveness.type=grpc"], "coordinator.probes.liveness.type=grpc"),
    "a load balancer in the clear": (["--set", "coordinator.service.type=LoadBalancer"], "set tls.enabled=true"),
    "an ingress for everybody": (["--set", "auth.anonymous=always,ingress.enabled=true,ingress.host=h,ingress.tlsSecret=s"], "would make everybody the administrator"),
    "an ingress without a certificate": (["--set", "ingress.enabled=true,ingress.host=h"], "ingress.tlsSecret"),
    "a gateway without parents": (["--set", "gateway.enabled=true"], "gateway.parentRefs"),
    "an ingress that the policies cut off": (["--set", "ingress.enabled=true,ingress.host=h,ingress.tlsSecret=s"], "ingress: the chart's NetworkPolicy would let nobody through: set networkPolicy.adminFrom"),
    "a gateway that the policies cut off": (["--set", "gateway.enabled=true,gateway.parentRefs[0].name=g"], "gateway: the chart's NetworkPolicy"),
    "a load balancer that the policies cut off": (["--set", "coordinator.service.type=LoadBalancer,tls.enabled=true"], "coordinator.service.type=LoadBalancer: the chart's NetworkPolicy"),
    "a policy of TLS without TLS": (["--set", "gateway.enabled=true,gateway.parentRefs[0].name=g,gateway.backendTLS.enabled=true"], "caConfigMap and tls.enabled"),
    "replicas beside an autoscaler": (["--set", "worker.autoscaling.enabled=true"], "set worker.replicas=null"),
    "no replicas without one": (["--set", "worker.replicas=null"], "needs worker.autoscaling.enabled or worker.keda.enabled"),
    "two autoscalers": (["--set", "worker.replicas=null,worker.autoscaling.enabled=true,worker.keda.enabled=true,worker.keda.prometheusAddress=p"], "enable one of them"),
    "an autoscaler that looks at nothing": (["--set", "worker.replicas=null,worker.autoscaling.enabled=true,worker.autoscaling.targetCPU=null"], "targetCPU or external.metric"),
    "keda without a Prometheus": (["--set", "worker.replicas=null,worker.keda.enabled=true"], "worker.keda.prometheusAddress"),
    "more at least than at most": (["--set", "worker.replicas=null,worker.autoscaling.enabled=true,worker.autoscaling.minReplicas=11"], "must not exceed maxReplicas"),
    "a grace shorter than the drain": (["--set", "worker.drainDeadline=1m,worker.terminationGracePeriodSeconds=30"], "set it to 65 or more"),
    "a grace shorter than the sleep": (["--set", "coordinator.preStopSleepSeconds=30"], "must exceed coordinator.preStopSleepSeconds"),
    "budgets that the limit does not hold": (["--set", "worker.memoryBudget=1Gi"], "set 1280Mi or more"),
    "two monitors": (["--set", "monitoring.serviceMonitor.enabled=true,monitoring.podMonitor.enabled=true"], "read every pod twice"),
    "two sources of statements": (["--set", "statements.sql=SHOW SINKS,statements.existingSecret=s"], "set one of them"),
    "statements that fail the second time": (["--set", "statements.sql=CREATE SINK a FROM b"], "write CREATE … IF NOT EXISTS"),
    "a user that would be replaced": (["--set", "statements.sql=CREATE OR REPLACE USER a"], "users and roles are not replaced"),
    "statements that contradict themselves": (["--set", "statements.sql=CREATE OR REPLACE SINK IF NOT EXISTS a FROM b"], "write one of them"),
    "a password in the statements": (["--set", "statements.sql=ALTER USER a PASSWORD 'x'"], "name it in statements.existingSecret"),
    "a secret in the statements": (["--set", "statements.sql=CREATE CREDENTIAL IF NOT EXISTS c TYPE = 'aws'\\, SECRET = 'x'"], "name it in statements.existingSecret"),
    "statements of nobody": (["--set", "auth.existingSecret=,auth.jwt.issuer=i,auth.jwt.jwksUrl=j,auth.jwt.audience=a,statements.sql=SHOW SINKS"], "need an administrator"),
    "a key of KMS and one of ours": (["--set", "secrets.kmsKey=k,secrets.masterKey.existingSecret=s"], "set one of them"),
    "a password among the settings": (["--set", "config.store.password=x"], "secrets have no place in a ConfigMap"),
    "a master key among the settings": (["--set", "coordinator.config.secrets.master_key=x"], "secrets have no place in a ConfigMap"),
    "a setting that the chart writes": (["--set", "worker.config.worker.drain_deadline=1s"], "set the value worker.drainDeadline instead"),
    "a name of a worker": (["--set", "config.worker.name=x"], "nothing, it is the pod's"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_chart_refuses(what):
    flags, expected = REFUSED[what]
    said = refusal(*flags)
    assert expected in said, said
    assert "These values cannot work together" in said


def test_all_that_is_wrong_is_said_at_once():
    said = refusal("--set-json", "etcd.endpoints=[]", "--set", "auth.existingSecret=,ingress.enabled=true")
    assert len(re.findall(r"^- ", said, re.M)) == 4, said


WRONG_BY_SCHEMA = [
    "nope=1", "worker.replica=3", "etcd.mode=internal", "image.digest=sha256:12", "worker.drainDeadline=10", "worker.memoryBudget=1.5Gi",
    "coordinator.port=80", "telemetry.logFormat=xml", "telemetry.traceRatio=2", "config.wrker.x=1", "auth.anonymous=yes", "timing.hartbeat=1s",
    "etcd.endpoints={http://etcd:2379}", "worker.spread=some", "extraEnv[0].nam=x", "worker.extraVolumes[0].emptyDir=x", "tls.source=vault",
]


@pytest.mark.parametrize("flag", WRONG_BY_SCHEMA)
def test_the_schema_refuses(flag):
    assert "don't meet the specifications of the schema" in refusal("--set", flag)


def test_every_value_is_in_the_schema_and_every_property_is_a_value():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def walk(value, node, path):
        if "properties" in node and isinstance(value, dict) and value:
            assert node["additionalProperties"] is False, path
            assert set(value) == set(node["properties"]) - {"global"}, path
            for key in value:
                walk(value[key], node["properties"][key], f"{path}.{key}")
        elif "$ref" in node:
            assert node["$ref"].removeprefix("#/$defs/") in schema["$defs"], path

    walk(values, schema, "")


def test_each_file_of_values_says_what_it_is():
    for values in VALUES:
        assert (CHART / "ci" / f"{values}.yaml").read_text().startswith("# "), values
