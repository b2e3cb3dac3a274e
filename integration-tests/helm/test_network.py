"""Who may reach whom, by the NetworkPolicies, as Kubernetes reads them."""

import ipaddress

from tools import VALUES, every, render

LABELS = {
    role: {"app.kubernetes.io/name": "shardwright", "app.kubernetes.io/instance": "rel", "app.kubernetes.io/component": role}
    for role in ("coordinator", "worker", "client")
}
STREAMS = {"kubernetes.io/metadata.name": "streams"}


def pod(role: str) -> dict:
    return {"labels": LABELS[role], "namespace": STREAMS, "ip": "10.1.2.3", "own": True}


def stranger(namespace: str, ip: str = "10.9.9.9", **labels: str) -> dict:
    return {"labels": labels, "namespace": {"kubernetes.io/metadata.name": namespace}, "ip": ip, "own": namespace == "streams"}


def outside(ip: str) -> dict:
    return {"labels": None, "namespace": None, "ip": ip, "own": False}


def chosen(selector: dict | None, labels: dict | None) -> bool:
    return labels is not None and selector.get("matchLabels", {}).items() <= labels.items()


def meets(peer: dict, who: dict) -> bool:
    if "ipBlock" in peer:
        address, block = ipaddress.ip_address(who["ip"]), peer["ipBlock"]
        inside = address in ipaddress.ip_network(block["cidr"])
        return who["labels"] is None and inside and not any(address in ipaddress.ip_network(one) for one in block.get("except", []))
    namespace = chosen(peer["namespaceSelector"], who["namespace"]) if "namespaceSelector" in peer else who["own"]
    return namespace and ("podSelector" not in peer or chosen(peer["podSelector"], who["labels"]))


def allowed(objects, direction: str, role: str, other: dict, port: int, protocol: str = "TCP") -> bool:
    """Whether a pod of this role may get (Ingress) or make (Egress) a connection."""
    policies = [one["spec"] for one in every(objects, "NetworkPolicy") if chosen(one["spec"]["podSelector"], LABELS[role])]
    policies = [spec for spec in policies if direction in spec["policyTypes"]]
    if not policies:
        return True
    side = "from" if direction == "Ingress" else "to"
    for rule in (rule for spec in policies for rule in spec.get(direction.lower(), [])):
        ports = any(one["port"] == port and one.get("protocol", "TCP") == protocol for one in rule["ports"]) if "ports" in rule else True
        if ports and (side not in rule or any(meets(peer, other) for peer in rule[side])):
            return True
    return False


def connects(objects, one: str, two: str, port: int) -> bool:
    return allowed(objects, "Egress", one, pod(two), port) and allowed(objects, "Ingress", two, pod(one), port)


def test_what_belongs_together_reaches_each_other():
    for values in VALUES:
        objects = render(values)
        for one, two, port in (("worker", "coordinator", 7070), ("coordinator", "coordinator", 7070), ("client", "coordinator", 7070), ("worker", "worker", 7071)):
            assert connects(objects, one, two, port), f"{values}: {one} to {two}"
        for role in LABELS:
            assert allowed(objects, "Egress", role, stranger("kube-system", **{"k8s-app": "kube-dns"}), 53, "UDP"), values


def test_the_pods_of_helm_test_are_clients_of_the_coordinators():
    for values in VALUES:
        objects = render(values)
        for policy in (one for one in every(objects, "NetworkPolicy") if one["metadata"]["name"].endswith("-client")):
            for one in every(objects, "Pod"):
                assert chosen(policy["spec"]["podSelector"], one["metadata"]["labels"]), f"{values}: {one['metadata']['name']}"


def test_nobody_else_gets_in():
    objects = render()
    for who in (stranger("other"), stranger("streams", app="x"), outside("8.8.8.8")):
        assert not allowed(objects, "Ingress", "coordinator", who, 7070)
        assert not allowed(objects, "Ingress", "worker", who, 7071)
        assert not allowed(objects, "Ingress", "client", who, 7070)
        assert allowed(objects, "Ingress", "worker", who, 9464), "metrics, unless `metricsFrom` says whom"
    assert not allowed(objects, "Ingress", "worker", pod("client"), 7071)
    assert not allowed(objects, "Ingress", "worker", pod("coordinator"), 7071)


def test_those_who_are_named_get_in():
    assert allowed(render("gateway"), "Ingress", "coordinator", stranger("gateways"), 7070)
    assert not allowed(render("gateway"), "Ingress", "worker", stranger("gateways"), 7071)
    assert allowed(render("ingress"), "Ingress", "coordinator", stranger("ingress-nginx"), 7070)
    assert not allowed(render("ingress"), "Ingress", "coordinator", stranger("other"), 7070)
    assert allowed(render("tls-existing-secrets"), "Ingress", "coordinator", outside("10.7.7.7"), 7070)
    assert not allowed(render("tls-existing-secrets"), "Ingress", "coordinator", outside("8.8.8.8"), 7070)
    for role in ("coordinator", "worker"):
        assert allowed(render("monitoring"), "Ingress", role, stranger("monitoring"), 9464)
        assert not allowed(render("monitoring"), "Ingress", role, stranger("other"), 9464)


def test_nobody_gets_out_but_where_it_must():
    objects = render("hardened")
    assert allowed(objects, "Egress", "coordinator", stranger("data"), 2379) and not allowed(objects, "Egress", "worker", stranger("data"), 2379)
    for role in ("coordinator", "worker"):
        assert allowed(objects, "Egress", role, outside("10.20.0.7"), 443) and not allowed(objects, "Egress", role, outside("10.21.0.7"), 443)
        assert allowed(objects, "Egress", role, outside("169.254.170.23"), 80)
        assert not allowed(objects, "Egress", role, outside("169.254.169.254"), 80), "the node's own role is not the pod's"
        assert allowed(objects, "Egress", role, stranger("kafka"), 9092) and not allowed(objects, "Egress", role, stranger("kafka"), 9093)
        assert not allowed(objects, "Egress", role, outside("1.1.1.1"), 80)
    assert not allowed(objects, "Egress", "coordinator", pod("worker"), 7071)
    assert allowed(objects, "Egress", "worker", stranger("kube-system", **{"k8s-app": "kube-dns"}), 53)
    assert not allowed(objects, "Egress", "worker", stranger("other"), 53)
    for address in ("8.8.8.8", "10.20.0.7"):
        assert not allowed(objects, "Egress", "client", outside(address), 443)


def test_metadata_of_the_node_is_no_part_of_aws_by_default():
    objects = render("minimal", "--set", "networkPolicy.egress.enabled=true")
    assert allowed(objects, "Egress", "worker", outside("52.94.5.100"), 443)
    assert not allowed(objects, "Egress", "worker", outside("169.254.169.254"), 443)
    assert allowed(objects, "Egress", "coordinator", stranger("anywhere"), 2379) and not allowed(objects, "Egress", "coordinator", stranger("anywhere"), 2380)


def test_what_is_shown_outside_can_be_reached_without_policies():
    flags = ("--set", "networkPolicy.enabled=false,ingress.enabled=true,ingress.host=h,ingress.tlsSecret=s")
    assert every(render("minimal", *flags), "Ingress") and not every(render("minimal", *flags), "NetworkPolicy")


def test_without_policies_there_are_none():
    assert not every(render("aws-keys"), "NetworkPolicy")
