#!/usr/bin/env python3
"""Writes what the image is made of, as CycloneDX 1.5, to the standard output.

The crates that are linked into the binary come from `cargo metadata` (without those that only builds and tests use, and
without macros, which stay in the compiler), the C libraries that some of them bring along from the names of their versions,
and Debian's packages from the control files in the image's /var/lib/dpkg/status.d.
"""

import argparse
import json
import pathlib
import re
import sys
import urllib.parse
import uuid

BINARY = "shardwright-cli"


def is_linked(package):
    return not any("proc-macro" in target["kind"] for target in package["targets"])


def reachable(metadata):
    """Packages by id, and the ids that each links, from the binary on."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    start = next(id for id, package in packages.items() if package["name"] == BINARY)
    links, waiting = {}, [start]
    while waiting:
        at = waiting.pop()
        if at in links:
            continue
        links[at] = sorted(
            dependency["pkg"]
            for dependency in nodes[at]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]) and is_linked(packages[dependency["pkg"]])
        )
        waiting += links[at]
    return {id: packages[id] for id in links}, links, start


def crate_ref(package):
    return f"pkg:cargo/{package['name']}@{urllib.parse.quote(package['version'], safe='')}"


def crate(package):
    component = {
        "type": "library",
        "bom-ref": crate_ref(package),
        "name": package["name"],
        "version": package["version"],
        "purl": crate_ref(package),
    }
    if package.get("license"):
        # The slash is how crates of old say OR.
        component["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if package.get("repository"):
        component["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return component


def bundled(package):
    """The C library inside a crate such as `zstd-sys 2.0.16+zstd.1.5.7`, if its version tells."""
    told = re.fullmatch(r"[^+]+\+(?:[a-z][a-z0-9]*[.-])?(\d+(?:\.\d+)+)", package["version"])
    if not (package.get("links") and told):
        return None
    name = {"rdkafka": "librdkafka"}.get(package["links"], package["links"])
    ref = f"pkg:generic/{name}@{told[1]}"
    return {"type": "library", "bom-ref": ref, "name": name, "version": told[1], "purl": ref}


def debian(control):
    fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", control, re.MULTILINE))
    version = urllib.parse.quote(fields["Version"], safe="")
    ref = f"pkg:deb/debian/{fields['Package']}@{version}?arch={fields['Architecture']}&distro=debian-12"
    return {"type": "library", "bom-ref": ref, "name": fields["Package"], "version": fields["Version"], "purl": ref}


def document(metadata, controls, revision):
    packages, links, start = reachable(metadata)
    components, dependencies = [], []
    for id, package in packages.items():
        below = [crate_ref(packages[linked]) for linked in links[id]]
        if id != start:
            components.append(crate(package))
        if library := bundled(package):
            components.append(library)
            below.append(library["bom-ref"])
        dependencies.append({"ref": crate_ref(package), "dependsOn": sorted(set(below))})
    components += [debian(control) for control in controls]
    root = crate(packages[start]) | {"type": "application", "name": "shardwright"}
    if revision:
        root["properties"] = [{"name": "org.opencontainers.image.revision", "value": revision}]
    body = {
        "metadata": {"component": root, "tools": {"components": [{"type": "application", "name": "deploy/docker/sbom.py"}]}},
        "components": sorted(components, key=lambda component: component["bom-ref"]),
        "dependencies": sorted(dependencies, key=lambda dependency: dependency["ref"]),
    }
    # The same content has the same number.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{serial}", "version": 1} | body


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--metadata", required=True, type=pathlib.Path, help="what `cargo metadata` printed")
    arguments.add_argument("--packages", type=pathlib.Path, help="directory with a control file for each Debian package")
    arguments.add_argument("--revision", default="", help="git revision of the source")
    given = arguments.parse_args()
    controls = [path.read_text() for path in sorted(given.packages.iterdir())] if given.packages else []
    json.dump(document(json.loads(given.metadata.read_text()), controls, given.revision), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
