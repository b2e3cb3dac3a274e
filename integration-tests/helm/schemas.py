"""Strict schemas: of Kubernetes' own objects by version, and of the custom resources that the chart makes."""

import functools
import json

import jsonschema
import referencing
import referencing.jsonschema

import tools


@functools.cache
def definitions(version: str) -> referencing.Registry:
    path = tools.schema_home() / f"v{version}-local-strict" / "_definitions.json"
    resource = referencing.Resource.from_contents(json.loads(path.read_text()), default_specification=referencing.jsonschema.DRAFT202012)
    return referencing.Registry().with_resource("_definitions.json", resource).crawl()


def file_name(api_version: str, kind: str) -> str:
    """Of the schema of a kind: `statefulset-apps-v1.json`."""
    group, _, name = api_version.rpartition("/")
    return f"{kind.lower()}-{group.split('.')[0] + '-' if group else ''}{name}.json"


@functools.cache
def validator(api_version: str, kind: str, version: str):
    """`None` where nobody knows the schema."""
    group, _, name = api_version.rpartition("/")
    custom = tools.TOOLS / "crds" / group / f"{kind.lower()}_{name}.json"
    if custom.exists():
        return jsonschema.Draft202012Validator(json.loads(custom.read_text()))
    path = tools.schema_home() / f"v{version}-local-strict" / file_name(api_version, kind)
    if not path.exists():
        return None
    return jsonschema.Draft202012Validator(json.loads(path.read_text()), registry=definitions(version))


CUSTOM_GROUPS = ("cert-manager.io/", "monitoring.coreos.com/", "keda.sh/", "gateway.networking.k8s.io/")

_seen: dict[tuple[str, str], list[str]] = {}


def errors(one: dict, version: str) -> list[str]:
    """What is wrong with an object for this version of Kubernetes; the same object is looked at once."""
    key = (version, json.dumps(one, sort_keys=True))
    if key not in _seen:
        _seen[key] = _look(one, version)
    return _seen[key]


def _look(one: dict, version: str) -> list[str]:
    known = validator(one["apiVersion"], one["kind"], version)
    if known is None:
        # Without Go there are no definitions of custom resources; the summary says that they were skipped.
        if one["apiVersion"].startswith(CUSTOM_GROUPS) and not tools.HAS_GO_TOOLS:
            return []
        return [f"no schema of {one['apiVersion']} {one['kind']}"]
    name = f"{one['kind']} {one['metadata']['name']}"
    return [f"{name}: {'/'.join(map(str, error.path))}: {error.message[:300]}" for error in known.iter_errors(one)]
