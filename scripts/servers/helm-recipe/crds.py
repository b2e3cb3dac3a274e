"""Makes strict JSON schemas of custom resource definitions: crds.py TARGET FILE…

TARGET gets GROUP/KIND_VERSION.json, names in small letters. Strict means: a field that the definition does not name is an
error, unless the definition says that it keeps unknown ones."""

import json
import pathlib
import sys

import yaml


def strict(schema):
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out = {}
    for key, value in schema.items():
        if key == "properties":
            out[key] = {name: strict(one) for name, one in value.items()}
        elif key in ("enum", "default", "example", "required"):
            out[key] = value
        else:
            out[key] = strict(value)
    if "properties" in out and "additionalProperties" not in out and not out.get("x-kubernetes-preserve-unknown-fields"):
        out["additionalProperties"] = False
    if out.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
        out["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    # Formats are Go's, not JSON Schema's.
    out.pop("format", None)
    return out


def main() -> None:
    target = pathlib.Path(sys.argv[1])
    for file in sys.argv[2:]:
        for crd in yaml.safe_load_all(pathlib.Path(file).read_text()):
            if not crd or crd.get("kind") != "CustomResourceDefinition":
                continue
            spec = crd["spec"]
            for version in spec["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                path = target / spec["group"] / f"{spec['names']['kind'].lower()}_{version['name']}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(schema))


main()
