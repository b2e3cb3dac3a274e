#!/usr/bin/env python3
"""Checks an image that lies on the disk as an OCI layout, and runs a cluster from it as a careful platform would.

    check.py LAYOUT WORK --labelled VERSION --sbom FILE

Every container runs under a read-only root, without capabilities or new privileges, as 65532, and on the host's network,
where it listens on loopback only. Ends with `image: … MiB, … checks`; a check that does not hold ends it at once.
"""

import argparse
import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from bundle import Bundle, Container
from layout import Image

# What the registry holds and a node pulls, in bytes; docs/image.md has the figures.
SIZE_MAX = 120_000_000
USER = 65532
# On a machine that six others use at the same time.
PATIENCE = 60

checks = 0


def check(holds, what):
    global checks
    if not holds:
        sys.exit(f"image: does not hold: {what}")
    checks += 1


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(ask, what, *processes):
    """The first answer that is not None; a process that ends meanwhile ends the waiting, too."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = ask()
        if answer is not None:
            return answer
        for process in processes:
            if process.ended():
                sys.exit(f"image: {process.name} ended before {what}:\n{process.output()}")
        time.sleep(0.05)
    sys.exit(f"image: {what}: not within {PATIENCE} s:\n" + "\n".join(process.output() for process in processes))


def ready(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as reply:
            return reply.status == 200 or None
    except (urllib.error.URLError, OSError):
        return None


def what_it_says(image, version):
    settings, labels = image.config["config"], image.config["config"]["Labels"]
    check(image.compressed <= SIZE_MAX, f"{image.compressed} bytes to pull are at most {SIZE_MAX}")
    check(settings["User"] == f"{USER}:{USER}", "the user is a number, and not root")
    check(settings["Entrypoint"] == ["/usr/bin/shardwright"], "the entry point is the binary, without a shell")
    check(settings["WorkingDir"] == "/var/lib/shardwright", "it starts where it may write")
    check(set(settings["ExposedPorts"]) == {"7070/tcp", "7071/tcp", "9464/tcp"}, "it names its ports")
    check([entry.split("=")[0] for entry in settings["Env"]] == ["PATH"], "its environment is empty")
    for name in ("title", "description", "licenses", "version", "revision", "created", "base.name"):
        check(labels.get(f"org.opencontainers.image.{name}"), f"it has the label `{name}`")
    check(labels["org.opencontainers.image.version"] == version, f"it is labelled {version}")
    return labels


def what_is_in_it(files):
    check(not files.special(), f"no file is setuid, setgid, a device or has capabilities: {files.special()}")
    check(not files.foreign(USER), f"all is root's but the data directory: {files.foreign(USER)}")
    check(not files.writable(), f"nobody but its owner writes to a file: {files.writable()}")
    check(not files.programs(), f"no shell, script or program lies beside the binary: {files.programs()}")
    check(files.mode("tmp") == 0o1777, "/tmp is for all, and sticky")
    check(files.mode("var/lib/shardwright") == 0o750, "the data directory is the user's")
    authorities = files.text("etc/ssl/certs/ca-certificates.crt").count("BEGIN CERTIFICATE")
    check(authorities > 100, f"{authorities} authorities are more than 100")
    check(files.same("usr/lib/ssl/cert.pem", "etc/ssl/certs/ca-certificates.crt"), "OpenSSL finds them, too")
    packages = files.packages()
    check({"libc6", "libssl3", "zlib1g", "libgcc-s1", "ca-certificates"} <= packages, f"scanners find packages: {packages}")
    check(files.licenses() >= packages - {"libgcc-s1"}, "the license of each package is there")


def what_it_is_made_of(sbom, files, version):
    document = json.loads(sbom.read_text())
    check((document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5"), "what it is made of is told as CycloneDX")
    check(document["metadata"]["component"]["version"] == version, f"of version {version}")
    components = {(component["purl"].split("/")[0], component["name"]) for component in document["components"]}
    for name in ("tokio", "rustls", "rdkafka-sys", "shardwright-worker"):
        check(("pkg:cargo", name) in components, f"the crate `{name}` is told")
    check(("pkg:generic", "librdkafka") in components, "a C library inside a crate is told")
    # Of tests, of the build, and macros: none of them is in the image.
    for name in ("proptest", "rcgen", "ferrokinesis", "protox", "serde_derive"):
        check(("pkg:cargo", name) not in components, f"`{name}` is not linked")
    check({name for kind, name in components if kind == "pkg:deb"} == files.packages(), "Debian's packages are told")
    known = {component["bom-ref"] for component in document["components"]} | {document["metadata"]["component"]["bom-ref"]}
    check(len(known) == len(document["components"]) + 1, "each component is told once")
    check(all(below in known for entry in document["dependencies"] for below in entry["dependsOn"]), "and what it stands on")


def how_it_was_linked(files):
    headers, dynamic, sections = files.linked()
    check("(Position-Independent Executable file)" in headers or "DYN" in headers, "the binary's place in memory is random")
    check("GNU_RELRO" in headers and "NOW" in dynamic, "its tables are read-only once it runs")
    check("GNU_STACK" in headers and " RWE " not in headers, "its stack is not executable")
    check(".debug_info" not in sections and ".symtab" not in sections, "it is stripped")


def what_it_answers(bundle, labels):
    version = bundle.run("--version")
    revision = labels["org.opencontainers.image.revision"]
    check(version.code == 0, f"--version ends with 0: {version}")
    check(labels["org.opencontainers.image.version"] in version.out, f"--version tells the version: {version.out}")
    check(f"({revision[:12]})" in version.out, f"--version tells the revision {revision}: {version.out}")
    libraries = bundle.run("--list", "/usr/bin/shardwright", program=bundle.files.loader())
    check(libraries.code == 0 and "not found" not in libraries.out, f"every library and version resolves: {libraries}")
    for library in ("libssl.so.3", "libcrypto.so.3", "libz.so.1", "libc.so.6"):
        check(f"{library} => /" in libraries.out, f"{library} comes from the image")
    other = bundle.run("--version", user=1_000_650_000)
    check(other.code == 0, f"another user that a platform chooses may run it: {other}")


def confined(container, ports):
    process = container.process()
    status = process.status()
    check(status["Uid"].split() == [str(USER)] * 4 and status["Gid"].split() == [str(USER)] * 4, f"{container.name} is {USER}")
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        check(int(status[kind], 16) == 0, f"{container.name} has no {kind}")
    check(status["NoNewPrivs"] == "1", f"{container.name} gains no privileges")
    check("ro" in process.root_options(), f"the root of {container.name} is read-only")
    listening = process.listening()
    check({port for _, port in listening} == set(ports), f"{container.name} listens on {ports}: {listening}")
    check(all(address == "127.0.0.1" for address, _ in listening), f"{container.name} listens on loopback: {listening}")


KAFKA = """
CREATE SOURCE clicks (id varchar) WITH (connector = 'kinesis', stream = 'clicks', aws.region = 'us-east-1',
  aws.credentials.access_key_id = 'AKIAIOSFODNN7EXAMPLE', aws.credentials.secret_access_key = 'wJalrXUtnFEMI',
  endpoint = 'http://127.0.0.1:1', validate = 'false') FORMAT PLAIN ENCODE JSON;
CREATE SINK copies FROM clicks WITH (connector = 'kafka', properties.bootstrap.server = '127.0.0.1:1', topic = 'clicks',
  properties.security.protocol = 'SSL', primary_key = 'id') FORMAT PLAIN ENCODE JSON
"""


def a_cluster(bundle, data):
    admin, exchange, coordinator_http, worker_http = (free_port() for _ in range(4))
    server = f"http://127.0.0.1:{admin}"
    began = time.monotonic()
    coordinator = bundle.start(
        "coordinator", "--store", "embedded:/var/lib/shardwright/metadata.redb", "--listen", f"127.0.0.1:{admin}",
        "--telemetry-listen", f"127.0.0.1:{coordinator_http}", "--log-format", "json", volume=data,
    )  # fmt: skip
    until(lambda: ready(coordinator_http), "the coordinator is ready", coordinator)
    coordinator_took = time.monotonic() - began
    began = time.monotonic()
    worker = bundle.start(
        "worker", "--name", "worker-0", "--coordinators", server, "--data-dir", "/var/lib/shardwright/worker",
        "--exchange-listen", f"127.0.0.1:{exchange}", "--telemetry-listen", f"127.0.0.1:{worker_http}", "--log-format", "json",
    )  # fmt: skip
    until(lambda: ready(worker_http), "the worker is ready", worker, coordinator)
    worker_took = time.monotonic() - began

    def live():
        reply = bundle.run("--server", server, "status", "--format", "json")
        if reply.code != 0:
            return None
        workers = json.loads(reply.out)["workers"]
        return [worker["name"] for worker in workers if worker["state"] == "live"] == ["worker-0"] or None

    check(until(live, "`shardwright status` shows the worker live", coordinator, worker), "the worker is seen live")
    confined(coordinator, [admin, coordinator_http])
    confined(worker, [exchange, worker_http])
    # librdkafka and its TLS load and run here: what it says is that nobody listens, and not that something is missing.
    refused = bundle.run("--server", server, "sql", "-c", KAFKA)
    said = refused.out + refused.err
    check(refused.code == 1 and "ssl://127.0.0.1:1/bootstrap" in said, f"librdkafka tries to reach the broker: {refused}")
    return server, coordinator, worker, coordinator_took, worker_took


def its_end(bundle, server, coordinator, worker, data):
    check(worker.stop(PATIENCE) == 0, f"a worker ends with 0 at SIGTERM:\n{worker.output()}")
    check(coordinator.stop(PATIENCE) == 0, f"a coordinator ends with 0 at SIGTERM:\n{coordinator.output()}")
    for container in (coordinator, worker):
        lines = [json.loads(line) for line in container.output().splitlines()]
        check(lines and all(line["level"] in ("INFO", "WARN") for line in lines), f"{container.name} logs JSON without errors")
    check((data / "metadata.redb").stat().st_uid == USER, "what a coordinator keeps is on the volume")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("layout", type=pathlib.Path)
    arguments.add_argument("work", type=pathlib.Path)
    arguments.add_argument("--labelled", required=True, metavar="VERSION")
    arguments.add_argument("--sbom", required=True, type=pathlib.Path)
    given = arguments.parse_args()

    image = Image(given.layout)
    labels = what_it_says(image, given.labelled)
    subprocess.run(["umoci", "unpack", "--image", f"{given.layout}:latest", given.work / "bundle"], check=True, capture_output=True)
    bundle = Bundle(given.work / "bundle")
    what_is_in_it(bundle.files)
    what_it_is_made_of(given.sbom, bundle.files, given.labelled)
    how_it_was_linked(bundle.files)
    what_it_answers(bundle, labels)
    data = given.work / "data"
    data.mkdir()
    data.chmod(0o700)
    bundle.own(data, USER)
    try:
        server, coordinator, worker, *took = a_cluster(bundle, data)
        its_end(bundle, server, coordinator, worker, data)
    finally:
        Container.end_all()
    whole, binary = bundle.files.size(), bundle.files.path("usr/bin/shardwright").stat().st_size
    print(f"image: ready in {took[0]:.2f} s (coordinator) and {took[1]:.2f} s (worker), from the start of the container")
    print(
        f"image: {image.compressed / 2**20:.1f} MiB to pull ({image.compressed / 1e6:.1f} MB), {whole / 2**20:.1f} MiB on the disk "
        f"({whole / 1e6:.1f} MB), of which the binary {binary / 2**20:.1f} MiB; {checks} checks"
    )


if __name__ == "__main__":
    main()
