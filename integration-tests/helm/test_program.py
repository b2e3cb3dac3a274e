"""The chart's own clients with the real program: their arguments are run against a cluster in one process, which asks for the
administrator's password, with TLS and without."""

import re
import shutil
import subprocess
import time

import pytest

import tools
from tools import BINARY, every, find, main_container, render

PASSWORD = "a-password-of-the-test"
MOUNTED = "/etc/shardwright/"


def openssl(*arguments) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


def certificates(folder) -> None:
    """What cert-manager would write: an authority and a certificate for both directions."""
    folder.mkdir()
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-days", 2, "-subj", "/CN=authority", "-keyout", folder / "ca.key", "-out", folder / "ca.crt")
    openssl("req", *key, "-subj", "/CN=standalone", "-keyout", folder / "tls.key", "-out", folder / "request")
    (folder / "use").write_text("subjectAltName=DNS:localhost,DNS:standalone,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    openssl("x509", "-req", "-in", folder / "request", "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-days", 2, "-extfile", folder / "use", "-out", folder / "tls.crt")


@pytest.fixture(scope="module", params=["minimal", "tls-own-authority"])
def server(request, tmp_path_factory):
    """(values, folder that stands for /etc/shardwright, URL)"""
    if not BINARY.exists():
        pytest.skip(f"the chart's clients: {BINARY.name} is not built")
    home = tmp_path_factory.mktemp("standalone")
    (home / "auth").mkdir()
    (home / "auth" / "password").write_text(PASSWORD + "\n")
    settings = ["auth.anonymous=never", f"auth.admin_password_file={home}/auth/password"]
    if request.param != "minimal":
        if not shutil.which("openssl"):
            pytest.skip("the chart's clients with TLS: no openssl")
        certificates(home / "tls")
        settings += [f"tls.{name}_path={home}/tls/{file}" for name, file in (("cert", "tls.crt"), ("key", "tls.key"), ("ca", "ca.crt"))]
    command = [str(BINARY), "standalone", "--data-dir", str(home / "data"), "--listen", "127.0.0.1:0", "--telemetry-listen", "off"]
    command += [part for one in settings for part in ("--set", one)]
    with open(home / "out", "w") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment()) as process:
        try:
            yield request.param, home, address(process, home / "out")
        finally:
            process.terminate()
            process.wait(timeout=60)


def environment() -> dict[str, str]:
    """Without credentials of AWS, and without asking for some."""
    return tools.environment(AWS_EC2_METADATA_DISABLED="true")


def address(process, out) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"admin +(https?://\S+)", out.read_text()):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(out.read_text()[-2000:])


def run(server, arguments: list[str], text: str | None = None) -> subprocess.CompletedProcess:
    """What a pod of the chart would run, against this server and with these files."""
    _, home, url = server
    here = [argument.replace(MOUNTED, f"{home}/") for argument in arguments]
    here[here.index("--server") + 1] = url
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run([str(BINARY), *here], capture_output=True, text=True, timeout=120, env=environment(), input=text)
        # 3: nobody leads yet.
        if done.returncode != 3 or time.monotonic() > deadline:
            return done


def asked(server, sql: str) -> subprocess.CompletedProcess:
    """This SQL, as the chart's clients would ask it."""
    args = list(main_container(find(render(server[0]), "Pod", "-test-status"))["args"])
    return run(server, ["sql", "--command", sql, *args[args.index("--server") :]])


def test_helm_test_passes_twice_and_leaves_nothing(server):
    for one in every(render(server[0]), "Pod") * 2:
        done = run(server, main_container(one)["args"])
        assert done.returncode == 0, f"{one['metadata']['name']}: {done.stdout}{done.stderr}"
        if not one["metadata"]["name"].endswith("-test-status"):
            assert done.stdout == "ledger: selftest: sent 1000, delivered 1000, lost 0\n"
    left = asked(server, "SHOW SOURCES; SHOW SINKS")
    assert left.returncode == 0 and "selftest" not in left.stdout


def test_without_the_password_nobody_gets_in(server):
    args = list(main_container(find(render(server[0]), "Pod", "-test-status"))["args"])
    at = args.index("--user")
    done = run(server, args[:at] + args[at + 4 :])
    assert done.returncode == 4, done.stdout + done.stderr


def test_helm_test_fails_where_nobody_answers():
    if not BINARY.exists():
        pytest.skip(f"the chart's clients: {BINARY.name} is not built")
    command = [str(BINARY), "status", "--server", "http://127.0.0.1:9"]
    assert subprocess.run(command, capture_output=True, timeout=60, env=environment()).returncode == 3


def test_statements_can_be_applied_twice(server):
    flags = ("--set", "statements.sql=SHOW SINKS")
    args = list(main_container(find(render(server[0], *flags), "Job")["spec"]["template"])["args"])
    file = server[1] / "statements"
    file.mkdir(exist_ok=True)
    (file / "statements.sql").write_text(
        "CREATE SOURCE IF NOT EXISTS s (id BIGINT) WITH (connector = 'kinesis', stream = 's', aws.region = 'eu-west-1', validate = 'false') FORMAT PLAIN ENCODE JSON;\n"
        "CREATE SINK IF NOT EXISTS b FROM s WITH (connector = 'blackhole');\n"
    )
    for _ in range(2):
        done = run(server, args)
        assert done.returncode == 0, done.stdout + done.stderr
    assert asked(server, "DROP SOURCE s CASCADE").returncode == 0


def test_a_declared_text_changes_nothing_until_it_is_changed(server):
    flags = ("--set", "statements.sql=SHOW SINKS")
    args = list(main_container(find(render(server[0], *flags), "Job")["spec"]["template"])["args"])
    file = server[1] / "statements"
    file.mkdir(exist_ok=True)
    text = (
        "CREATE OR REPLACE SOURCE r (id BIGINT, url VARCHAR) WITH (connector = 'kinesis', stream = 's', aws.region = 'eu-west-1', validate = 'false') FORMAT PLAIN ENCODE JSON;\n"
        "CREATE OR REPLACE SINK rb AS SELECT id FROM r WHERE id > 1 WITH (connector = 'blackhole', primary_key = 'id');\n"
    )
    unchanged = ['source "r" is unchanged', 'sink "rb" is unchanged']
    steps = [
        (text, 0, []),
        (text, 0, unchanged),
        (text.replace("id > 1", "id > 2"), 0, ['source "r" is unchanged', 'sink "rb" keeps its positions; changed: query']),
        (text.replace("primary_key = 'id'", "distribution = 'key(2, id)'"), 1, ["cannot be replaced: its key would change from 'id' to none"]),
        (text, 0, ['sink "rb" keeps its positions; changed: query']),
        (text, 0, unchanged),
    ]
    for sql, code, said in steps:
        (file / "statements.sql").write_text(sql)
        done = run(server, args)
        assert done.returncode == code, done.stdout + done.stderr
        for wanted in said:
            assert wanted in done.stdout + done.stderr, (wanted, done.stdout, done.stderr)
    assert asked(server, "DROP SOURCE r CASCADE").returncode == 0


def test_the_sql_of_the_installation_is_taken(server):
    """Without the look at streams that are not there."""
    text = (tools.ROOT / "docs" / "install-kubernetes.md").read_text()
    sql = re.search(r"cat > clicks\.sql <<SQL\n(.*?)\nSQL\n", text, re.S)[1]
    sql = sql.replace("aws.region = '$AWS_REGION'", "aws.region = 'eu-west-1', validate = 'false'")
    for _ in range(2):
        done = asked(server, sql)
        assert done.returncode == 0, done.stdout + done.stderr
    assert asked(server, "DROP SOURCE clicks CASCADE").returncode == 0
    # In a pod of a release without TLS: the program gets the text from its input.
    if server[0] == "minimal":
        inside = re.findall(r"exec (?:-i )?statefulset/shardwright-coordinator -- shardwright +(--server .*)", text.replace("\\\n", ""))
        assert len(inside) == 2 and inside[1].endswith(" sql --file - < clicks.sql")
        for command in inside:
            done = run(server, command.removesuffix(" < clicks.sql").split(), sql)
            assert done.returncode == 0, done.stdout + done.stderr
        assert asked(server, "DROP SOURCE clicks CASCADE").returncode == 0
