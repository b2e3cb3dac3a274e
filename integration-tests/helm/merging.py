"""How an API server brings a change into an object: merge patches, strategic ones, and server-side apply.

https://kubernetes.io/docs/reference/using-api/server-side-apply/"""

import copy

# Lists whose items have a name: the field, where it may stand, and what names an item in a strategic patch and in an apply.
STRATEGIC = {
    "containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath",
    "imagePullSecrets": "name", "topologySpreadConstraints": "topologyKey", "conditions": "type", "secrets": "name",
}
APPLY = {key: (name,) for key, name in STRATEGIC.items()} | {"topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable")}


class Conflict(Exception):
    """Another manager owns a field."""


class Invalid(Exception):
    """The change cannot be made."""


def strategic_key(field: str, items: list) -> str | None:
    if field == "ports":
        return "containerPort" if any("containerPort" in item for item in items if isinstance(item, dict)) else "port"
    return STRATEGIC.get(field)


def json_merge(live, patch):
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = copy.deepcopy(live) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = json_merge(merged.get(key), value)
    return merged


def strategic(live, patch):
    """A strategic merge patch on a map."""
    if not isinstance(patch, dict) or patch.get("$patch") == "replace" or not isinstance(live, dict):
        return {key: value for key, value in patch.items() if key != "$patch"} if isinstance(patch, dict) else copy.deepcopy(patch)
    merged = copy.deepcopy(live)
    if "$retainKeys" in patch:
        merged = {key: value for key, value in merged.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        if key == "$retainKeys" or key.startswith("$setElementOrder/"):
            continue
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.split("/", 1)[1]
            merged[name] = [item for item in merged.get(name, []) if item not in value]
        elif value is None:
            merged.pop(key, None)
        elif isinstance(value, list):
            merged[key] = strategic_list(key, merged.get(key) or [], value, patch.get(f"$setElementOrder/{key}"))
        elif isinstance(value, dict):
            merged[key] = strategic(merged.get(key, {}), value)
        else:
            merged[key] = value
    for key, order in patch.items():
        if key.startswith("$setElementOrder/") and key.split("/", 1)[1] not in patch:
            name = key.split("/", 1)[1]
            merged[name] = ordered(name, merged.get(name, []), order)
    return merged


def strategic_list(field: str, live: list, patch: list, order: list | None) -> list:
    key = strategic_key(field, live + patch)
    if key is None:
        return copy.deepcopy(patch)
    merged = {item[key]: item for item in copy.deepcopy(live)}
    for item in patch:
        if item.get("$patch") == "delete":
            merged.pop(item[key], None)
        else:
            merged[item[key]] = strategic(merged.get(item[key], {}), item)
    return ordered(field, list(merged.values()), order or [])


def ordered(field: str, items: list, order: list) -> list:
    key = strategic_key(field, items + order)
    places = {item[key]: at for at, item in enumerate(order)} if key else {}
    return sorted(items, key=lambda item: places.get(item[key], len(places))) if key else items


def apply_keys(field: str, items: list) -> tuple[str, ...] | None:
    if field == "ports" and all(isinstance(item, dict) for item in items):
        return ("containerPort", "protocol") if any("containerPort" in item for item in items) else ("port", "protocol")
    return APPLY.get(field) if all(isinstance(item, dict) for item in items) else None


def named(field: str, items: list) -> dict | None:
    """The items by what names them; `None` for a list that is one value. The same name twice cannot be applied."""
    keys = apply_keys(field, items)
    if keys is None:
        return None
    found = {}
    for item in items:
        name = tuple(item.get(key, "TCP" if key == "protocol" else None) for key in keys)
        if name in found:
            raise Invalid(f"failed to create typed patch object: .{field}: duplicate entries for key {dict(zip(keys, name))}")
        found[name] = item
    return found


def leaves(value, path: tuple = (), field: str = "") -> dict[tuple, object]:
    """Every field that somebody who applies this value owns."""
    if isinstance(value, dict) and value:
        return {leaf: one for key, item in value.items() for leaf, one in leaves(item, (*path, key), key).items()}
    if isinstance(value, list) and value:
        items = named(field, value)
        if items is not None:
            return {leaf: one for name, item in items.items() for leaf, one in leaves(item, (*path, name)).items()}
    return {path: value}


def applied(live, before, wanted, field: str = ""):
    """`live` after somebody applied `wanted` who had applied `before`: what they no longer name goes."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        before = before if isinstance(before, dict) else {}
        merged = {key: value for key, value in live.items() if key in wanted or key not in before}
        for key, value in wanted.items():
            merged[key] = applied(merged.get(key), before.get(key), value, key)
        return merged
    if isinstance(wanted, list) and isinstance(live, list) and wanted:
        items = named(field, wanted)
        if items is not None:
            live_items, before_items = named(field, live), named(field, before or []) or {}
            kept = [item for name, item in live_items.items() if name not in items and name not in before_items]
            return [applied(live_items.get(name, {}), before_items.get(name), item) for name, item in items.items()] + kept
    return copy.deepcopy(wanted)
