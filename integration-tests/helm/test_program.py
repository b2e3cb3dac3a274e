"""The chart's own clients with the real program: their arguments are run against a cluster in one process."""

import re
import subprocess
import time

import pytest

import tools
from tools import BINARY, every, find, main_container, render


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not BINARY.exists():
        pytest.skip(f"the chart's clients: {BINARY.name} is not built")
    home = tmp_path_factory.mktemp("standalone")
    command = [str(BINARY), "standalone", "--data-dir", str(home / "data"), "--listen", "127.0.0.1:0", "--telemetry-listen", "off"]
    with open(home / "out", "w") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment()) as process:
        try:
            yield address(process, home / "out")
        finally:
            process.terminate()
            process.wait(timeout=60)


def environment() -> dict[str, str]:
    """Without credentials of AWS, and without asking for some."""
    return tools.environment(AWS_EC2_METADATA_DISABLED="true")


def address(process, out) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"admin +(http://\S+)", out.read_text()):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(out.read_text()[-2000:])


def run(server: str, arguments: list[str]) -> subprocess.CompletedProcess:
    """What a pod of the chart would run, against this server, where nobody is asked who they are."""
    kept = list(arguments)
    for flag in ("--user", "--password-file"):
        if flag in kept:
            at = kept.index(flag)
            del kept[at : at + 2]
    kept[kept.index("--server") + 1] = server
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run([str(BINARY), *kept], capture_output=True, text=True, timeout=120, env=environment())
        # 3: nobody leads yet.
        if done.returncode != 3 or time.monotonic() > deadline:
            return done


def test_helm_test_passes_twice_and_leaves_nothing(server):
    for one in every(render(), "Pod") * 2:
        done = run(server, main_container(one)["args"])
        assert done.returncode == 0, f"{one['metadata']['name']}: {done.stdout}{done.stderr}"
    left = run(server, ["sql", "--command", "SHOW SOURCES", "--command", "SHOW SINKS", "--server", ""])
    assert left.returncode == 0 and "helm_test" not in left.stdout


def test_helm_test_fails_where_nobody_leads():
    if not BINARY.exists():
        pytest.skip(f"the chart's clients: {BINARY.name} is not built")
    arguments = main_container(find(render(), "Pod", "-test-status"))["args"][:3]
    done = subprocess.run([str(BINARY), *arguments[:2], "http://127.0.0.1:9"], capture_output=True, text=True, timeout=60, env=environment())
    assert done.returncode == 3, done.stderr


def test_statements_can_be_applied_twice(server, tmp_path):
    args = list(main_container(find(render("statements"), "Job")["spec"]["template"])["args"])
    file = tmp_path / "statements.sql"
    file.write_text(
        "CREATE SOURCE IF NOT EXISTS s (id BIGINT) WITH (connector = 'kinesis', stream = 's', aws.region = 'eu-west-1', validate = 'false') FORMAT PLAIN ENCODE JSON;\n"
        "CREATE SINK IF NOT EXISTS b FROM s WITH (connector = 'blackhole');\n"
    )
    args[args.index("--file") + 1] = str(file)
    for _ in range(2):
        done = run(server, args)
        assert done.returncode == 0, done.stdout + done.stderr
    assert run(server, ["sql", "--command", "DROP SOURCE s CASCADE", "--server", ""]).returncode == 0


def test_the_sql_of_the_installation_is_taken(server):
    """Without the look at streams that are not there."""
    text = (tools.ROOT / "docs" / "install-kubernetes.md").read_text()
    sql = re.search(r"cat > clicks\.sql <<SQL\n(.*?)\nSQL\n", text, re.S)[1]
    sql = sql.replace("aws.region = '$AWS_REGION'", "aws.region = 'eu-west-1', validate = 'false'")
    for _ in range(2):
        done = run(server, ["sql", "--command", sql, "--server", ""])
        assert done.returncode == 0, done.stdout + done.stderr
    assert run(server, ["sql", "--command", "DROP SOURCE clicks CASCADE", "--server", ""]).returncode == 0
