"""A stand-in for Kubernetes, as much of it as helm needs: discovery, objects with their life, merge patches, server-side
apply with its owners, watches, and controllers that are always done at once. It takes only what the strict schema of its version
takes, and refuses changes of what Kubernetes never lets change."""

import base64
import copy
import http.server
import json
import re
import threading
import time
import urllib.parse
import uuid

import protobuf
import schemas
from merging import Conflict, Invalid, applied, json_merge, leaves, strategic

# group/version → kind → (plural, namespaced)
KINDS = {
    "v1": {"Namespace": ("namespaces", False)} | {kind: (plural, True) for kind, plural in {
        "ConfigMap": "configmaps", "Secret": "secrets", "Service": "services", "ServiceAccount": "serviceaccounts", "Pod": "pods",
        "PersistentVolumeClaim": "persistentvolumeclaims", "Event": "events", "ReplicationController": "replicationcontrollers",
    }.items()},
    "apps/v1": {"StatefulSet": ("statefulsets", True), "Deployment": ("deployments", True), "DaemonSet": ("daemonsets", True), "ReplicaSet": ("replicasets", True)},
    "batch/v1": {"Job": ("jobs", True)},
    "policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
    "autoscaling/v2": {"HorizontalPodAutoscaler": ("horizontalpodautoscalers", True)},
    "networking.k8s.io/v1": {"NetworkPolicy": ("networkpolicies", True), "Ingress": ("ingresses", True)},
    "cert-manager.io/v1": {"Certificate": ("certificates", True), "Issuer": ("issuers", True)},
    "monitoring.coreos.com/v1": {"ServiceMonitor": ("servicemonitors", True), "PodMonitor": ("podmonitors", True), "PrometheusRule": ("prometheusrules", True)},
    "keda.sh/v1alpha1": {"ScaledObject": ("scaledobjects", True)},
    "gateway.networking.k8s.io/v1": {"GRPCRoute": ("grpcroutes", True), "BackendTLSPolicy": ("backendtlspolicies", True)},
}
STATEFUL_SET_MAY_CHANGE = {"replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit", "persistentVolumeClaimRetentionPolicy", "minReadySeconds"}


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, code: int, reason: str, message: str):
        super().__init__(message)
        self.code, self.reason = code, reason


class Cluster:
    """The objects, and what happened to them."""

    def __init__(self, version: str):
        self.version = version
        self.objects: dict[tuple[str, str, str, str], dict] = {}
        # What each manager applied, and fields that somebody wrote in another way.
        self.applied: dict[tuple, dict[str, dict]] = {}
        self.written: dict[tuple, dict[tuple, str]] = {}
        self.events: list[tuple[int, str, tuple, dict]] = []
        self.changed = threading.Condition(threading.RLock())
        self.revision = 100

    def record(self, event: str, key: tuple, one: dict) -> None:
        self.revision += 1
        one["metadata"]["resourceVersion"] = str(self.revision)
        self.events.append((self.revision, event, key, copy.deepcopy(one)))
        self.changed.notify_all()

    def put(self, key: tuple, one: dict, old: dict | None) -> dict:
        """Checks an object, gives it what a server gives, and keeps it."""
        api_version, plural, namespace, name = key
        one = {"apiVersion": api_version, "kind": kind_of(api_version, plural), **{k: v for k, v in one.items() if k not in ("apiVersion", "kind", "status")}}
        meta = one.setdefault("metadata", {})
        meta.pop("managedFields", None)
        meta |= {"name": name} | ({"namespace": namespace} if namespace else {})
        shown = {**one, "metadata": {k: v for k, v in meta.items() if k in ("name", "namespace", "labels", "annotations")}}
        if wrong := schemas.errors(shown, self.version):
            raise Refused(422, "Invalid", "; ".join(wrong))
        # Refuses the same name twice in a list of names, whoever sends it.
        leaves(one)
        if one["kind"] == "Service" and "clusterIP" not in one["spec"]:
            one["spec"]["clusterIP"] = old["spec"]["clusterIP"] if old else f"10.96.0.{len(self.events) % 250 + 2}"
        self.immutable(one, old)
        before = old["metadata"] if old else {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 0}
        meta |= {"uid": before["uid"], "creationTimestamp": before["creationTimestamp"]}
        meta["generation"] = before["generation"] + (not old or old.get("spec") != one.get("spec"))
        if status := status_of(one):
            one["status"] = status
        self.objects[key] = one
        self.record("MODIFIED" if old else "ADDED", key, one)
        return one

    @staticmethod
    def immutable(one: dict, old: dict | None) -> None:
        if old is None:
            return
        if one["kind"] == "StatefulSet":
            changed = {field for field in set(one["spec"]) | set(old["spec"]) if one["spec"].get(field) != old["spec"].get(field)}
            if changed - STATEFUL_SET_MAY_CHANGE:
                raise Refused(422, "Invalid", f"updates to statefulset spec for fields other than {sorted(STATEFUL_SET_MAY_CHANGE)} are forbidden: {sorted(changed)}")
        if one["kind"] == "Job" and one["spec"]["template"] != old["spec"]["template"]:
            raise Refused(422, "Invalid", "spec.template: field is immutable")
        if one["kind"] == "Service" and one["spec"].get("clusterIP") != old["spec"].get("clusterIP"):
            raise Refused(422, "Invalid", "spec.clusterIP: field is immutable")

    def create(self, key: tuple, one: dict) -> dict:
        if key in self.objects:
            raise Refused(409, "AlreadyExists", f'{key[1]} "{key[3]}" already exists')
        return self.put(key, one, None)

    def get(self, key: tuple) -> dict:
        if key not in self.objects:
            raise Refused(404, "NotFound", f'{key[1]} "{key[3]}" not found')
        return self.objects[key]

    def patch(self, key: tuple, kind: str, patch: dict, manager: str, force: bool) -> dict:
        if kind.startswith("application/apply-patch"):
            return self.apply(key, patch, manager, force)
        live = self.get(key)
        merge = strategic if kind.startswith("application/strategic-merge-patch") else json_merge
        return self.put(key, merge(live, patch), live)

    def apply(self, key: tuple, wanted: dict, manager: str, force: bool) -> dict:
        live = self.objects.get(key)
        mine = {field: wanted[field] for field in wanted if field not in ("apiVersion", "kind", "status")}
        owned = leaves(mine)
        if live is not None and not force:
            others = {path: who for who, config in self.applied.get(key, {}).items() if who != manager for path in leaves(config)}
            others |= {path: who for path, who in self.written.get(key, {}).items() if who != manager}
            now = leaves({field: live[field] for field in live if field not in ("apiVersion", "kind", "status")})
            for path, who in others.items():
                if path in owned and owned[path] != now.get(path):
                    raise Conflict(f'Apply failed with 1 conflict: conflict with "{who}": .{".".join(map(str, path))}')
        before = self.applied.get(key, {}).get(manager, {})
        result = applied(live or {}, before, mine)
        if ("spec", "replicas") in self.written.get(key, {}):
            # What somebody else wrote stays when this manager stops naming it.
            result["spec"].setdefault("replicas", live["spec"]["replicas"])
        one = self.put(key, result, live)
        self.applied.setdefault(key, {})[manager] = copy.deepcopy(mine)
        return one

    def scale(self, namespace: str, name: str, replicas: int, who: str = "autoscaler") -> None:
        """What an autoscaler does to a StatefulSet."""
        key = ("apps/v1", "statefulsets", namespace, name)
        with self.changed:
            live = self.get(key)
            self.put(key, json_merge(live, {"spec": {"replicas": replicas}}), live)
            self.written.setdefault(key, {})[("spec", "replicas")] = who

    def delete(self, key: tuple) -> dict:
        one = self.get(key)
        del self.objects[key]
        self.applied.pop(key, None)
        self.written.pop(key, None)
        self.record("DELETED", key, one)
        return one

    def listed(self, api_version: str, plural: str, namespace: str, chosen) -> list[dict]:
        keys = sorted(key for key in self.objects if key[:2] == (api_version, plural) and namespace in ("", key[2]))
        return [self.objects[key] for key in keys if chosen(self.objects[key])]

    def of(self, kind: str, end: str = "") -> list[dict]:
        """For tests: all objects of a kind whose names end so."""
        with self.changed:
            return [copy.deepcopy(one) for one in self.objects.values() if one["kind"] == kind and one["metadata"]["name"].endswith(end)]


def kind_of(api_version: str, plural: str) -> str:
    return next(kind for kind, (name, _) in KINDS[api_version].items() if name == plural)


def status_of(one: dict) -> dict | None:
    """Whatever is asked for is done at once."""
    generation, now = one["metadata"]["generation"], "2026-01-01T00:00:00Z"
    match one["kind"]:
        case "StatefulSet":
            count = one["spec"].get("replicas", 1)
            counts = dict.fromkeys(("replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"), count)
            return counts | {"observedGeneration": generation, "currentRevision": "r", "updateRevision": "r"}
        case "Job":
            done = {"type": "Complete", "status": "True", "lastTransitionTime": now, "lastProbeTime": now}
            return {"succeeded": 1, "startTime": now, "completionTime": now, "conditions": [done]}
        case "Pod":
            done = [{"type": name, "status": "False", "reason": "PodCompleted"} for name in ("Ready", "ContainersReady")]
            return {"phase": "Succeeded", "startTime": now, "conditions": done}
        case "PodDisruptionBudget":
            return {"observedGeneration": generation, "currentHealthy": 1, "desiredHealthy": 0, "disruptionsAllowed": 1, "expectedPods": 1}
    return None


def chooser(query: dict):
    """Whether an object is one of those that labels and fields of a query name."""
    labels = [term for term in query.get("labelSelector", "").split(",") if term]
    fields = [term for term in query.get("fieldSelector", "").split(",") if term]

    def chosen(one: dict) -> bool:
        own = one["metadata"].get("labels", {})
        for term in labels:
            key, equal, value = term.replace("==", "=").partition("=")
            if key.endswith("!"):
                if own.get(key[:-1]) == value:
                    return False
            elif (own.get(key) != value) if equal else (key not in own):
                return False
        for term in fields:
            key, _, value = term.partition("=")
            if key == "metadata.name" and one["metadata"]["name"] != value:
                return False
        return True

    return chosen


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, code: int, body: dict | str) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, code: int, reason: str, message: str) -> None:
        self.answer(code, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code})

    def handle_call(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(url.query))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        cluster: Cluster = self.server.cluster
        self.server.calls.append((self.command, url.path, self.headers.get("Content-Type", "")))
        try:
            if url.path == "/openapi/v2":
                # An empty document (protobuf): helm finds no schema to check with. The server checks, and more strictly.
                self.answer(200, "")
                return
            if (found := self.discovery(url.path, cluster)) is not None:
                self.answer(200, found)
                return
            self.resource(url.path, body, cluster)
        except Refused as refused:
            self.refuse(refused.code, refused.reason, str(refused))
        except Conflict as conflict:
            self.refuse(409, "Conflict", str(conflict))
        except Invalid as invalid:
            self.refuse(500, "InternalError", str(invalid))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_call

    def discovery(self, path: str, cluster: Cluster) -> dict | None:
        parts = path.strip("/").split("/")
        match parts:
            case ["version"]:
                major, minor, _ = cluster.version.split(".")
                return {"major": major, "minor": minor, "gitVersion": f"v{cluster.version}"}
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                groups = []
                for group, version in (name.split("/") for name in KINDS if "/" in name):
                    one = {"groupVersion": f"{group}/{version}", "version": version}
                    groups.append({"name": group, "versions": [one], "preferredVersion": one})
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
            case ["api", "v1"] | ["apis", _, _]:
                name = "/".join(parts[1:])
                if name not in KINDS:
                    raise Refused(404, "NotFound", path)
                verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
                resources = [{"name": plural, "singularName": kind.lower(), "namespaced": spaced, "kind": kind, "verbs": verbs} for kind, (plural, spaced) in KINDS[name].items()]
                return {"kind": "APIResourceList", "groupVersion": name, "resources": resources}
        return None

    def resource(self, path: str, body: bytes, cluster: Cluster) -> None:
        match = re.fullmatch(r"/(?:api/(v1)|apis/([^/]+/[^/]+))(?:/namespaces/([^/]+))?/([a-z]+)(?:/([^/]+))?(?:/(log|status|scale))?", path)
        api_version = match and (match[1] or match[2])
        if path.startswith("/api/v1/namespaces/") and path.count("/") == 4:
            match, api_version = re.fullmatch(r"()()()/api/v1/(namespaces)/([^/]+)()", path), "v1"
        if not match or api_version not in KINDS or match[4] not in [plural for plural, _ in KINDS[api_version].values()]:
            raise Refused(404, "NotFound", path)
        plural, namespace, name = match[4], match[3] or "", match[5]
        if match[6] == "log":
            self.answer(200, "everything is well\n")
            return
        if self.command == "GET" and name is None:
            self.collection(api_version, plural, namespace, cluster)
            return
        one = self.read(body)
        with cluster.changed:
            key = (api_version, plural, namespace, name or one.get("metadata", {}).get("name"))
            match self.command:
                case "GET":
                    self.answer(200, cluster.get(key))
                case "POST":
                    self.answer(201, cluster.create(key, one))
                case "PUT":
                    self.answer(200, cluster.put(key, one, cluster.get(key)))
                case "PATCH":
                    force = self.query.get("force") == "true"
                    self.answer(200, cluster.patch(key, self.headers["Content-Type"], one, self.query.get("fieldManager", ""), force))
                case "DELETE":
                    self.answer(200, cluster.delete(key))

    def read(self, body: bytes) -> dict:
        if not body or self.command in ("GET", "DELETE"):
            return {}
        if "protobuf" in self.headers.get("Content-Type", ""):
            return protobuf.secret(body)
        # What is applied comes as YAML that is JSON, too, or not.
        import yaml

        return json.loads(body) if body.lstrip()[:1] == b"{" else yaml.safe_load(body)

    def collection(self, api_version: str, plural: str, namespace: str, cluster: Cluster) -> None:
        chosen = chooser(self.query)
        if self.query.get("watch") not in ("true", "1"):
            with cluster.changed:
                items = cluster.listed(api_version, plural, namespace, chosen)
                body = {"kind": f"{kind_of(api_version, plural)}List", "apiVersion": api_version, "metadata": {"resourceVersion": str(cluster.revision)}, "items": items}
                self.answer(200, body)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self.stream(api_version, plural, namespace, chosen, cluster)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def event(self, kind: str, one: dict) -> None:
        line = json.dumps({"type": kind, "object": one}).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()

    def stream(self, api_version: str, plural: str, namespace: str, chosen, cluster: Cluster) -> None:
        end = time.monotonic() + min(float(self.query.get("timeoutSeconds", 60)), 60)
        since = int(self.query.get("resourceVersion") or 0)
        with cluster.changed:
            if since == 0 or self.query.get("sendInitialEvents") == "true":
                for one in cluster.listed(api_version, plural, namespace, chosen):
                    self.event("ADDED", one)
                since = cluster.revision
            if self.query.get("sendInitialEvents") == "true":
                meta = {"resourceVersion": str(since), "annotations": {"k8s.io/initial-events-end": "true"}}
                self.event("BOOKMARK", {"kind": kind_of(api_version, plural), "apiVersion": api_version, "metadata": meta})
        while time.monotonic() < end and not self.server.stopping:
            with cluster.changed:
                fresh = [entry for entry in cluster.events if entry[0] > since]
                if not fresh:
                    cluster.changed.wait(0.2)
                since = fresh[-1][0] if fresh else since
            for _, kind, key, one in fresh:
                if key[:2] == (api_version, plural) and namespace in ("", key[2]) and chosen(one):
                    self.event(kind, one)
        self.wfile.write(b"0\r\n\r\n")


class ApiServer(http.server.ThreadingHTTPServer):
    """Runs on a free port of the loopback address for as long as the `with` lasts."""

    daemon_threads = True

    def __init__(self, version: str):
        super().__init__(("127.0.0.1", 0), Handler)
        self.cluster = Cluster(version)
        self.calls: list[tuple[str, str, str]] = []
        self.stopping = False

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.shutdown()
        self.server_close()

    def kubeconfig(self) -> dict:
        cluster = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}
        context = {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "streams"}}
        return {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "current-context": "here", "users": [{"name": "me", "user": {}}]}


def release_of(secret: dict) -> str:
    """What helm keeps of a release, as text."""
    import gzip

    return gzip.decompress(base64.b64decode(base64.b64decode(secret["data"]["release"]))).decode()
