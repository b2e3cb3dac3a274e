//! The roles as processes: how they start, how they refuse to, how they stop.

#![allow(clippy::unwrap_used, reason = "a test")]

mod program;

use std::{collections::BTreeSet, path::Path, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStderr, Command},
};

use program::shardwright;

/// No step of these takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Exit code, stdout, stderr without the lines of the log.
async fn ended(child: Child) -> (i32, String, String) {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it hangs").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let said = text(output.stderr);
    let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("20")).collect();
    (output.status.code().expect("no signal"), text(output.stdout), said.join("\n"))
}

async fn refused(arguments: &[&str], code: i32, parts: &[&str]) {
    let (found, _, said) = ended(shardwright(arguments).spawn().unwrap()).await;
    assert_eq!(found, code, "{arguments:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

fn data(directory: &tempfile::TempDir) -> String {
    directory.path().join("data").display().to_string()
}

/// The admin URL that a standalone prints.
async fn admin_url(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let find = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(url) = line.trim().strip_prefix("admin ") {
                return url.trim().to_owned();
            }
        }
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
        panic!("no admin URL: {said}");
    };
    tokio::time::timeout(PATIENCE, find).await.expect("it does not come up")
}

/// Waits for a line of its log.
async fn says(log: &mut Lines<BufReader<ChildStderr>>, text: &str) -> String {
    let said = async {
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains(text) {
                return line;
            }
        }
        panic!("it ended without saying {text}");
    };
    tokio::time::timeout(PATIENCE, said).await.expect("it hangs")
}

async fn terminate(child: &Child) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
}

#[tokio::test]
async fn times_that_cannot_work_together_are_refused_before_anything_starts() {
    let directory = tempfile::tempdir().unwrap();
    let data = data(&directory);
    let relation = "[coordinator.timing] `fence_after` (5 s) must not exceed `session_timeout` (3 s)";
    for role in [&["standalone", "--data-dir", &data][..], &["coordinator", "--store", "memory:"]] {
        let timing = ["--set", "coordinator.timing.session_timeout=3s"];
        refused(&[role, &timing].concat(), 2, &[relation, "given up before it has ended its runs"]).await;
    }
    assert!(!std::path::Path::new(&data).exists(), "nothing is left behind");
}

#[tokio::test]
async fn a_standalone_serves_statements_and_stops_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let data = data(&directory);
    let arguments = ["standalone", "--listen", "127.0.0.1:0", "--data-dir", &data];
    let mut child = shardwright(&arguments).spawn().unwrap();
    let url = admin_url(&mut child).await;

    let sql = ["sql", "--server", &url, "--format", "json", "-c", "SHOW SOURCES"];
    let (code, out, said) = ended(shardwright(&sql).spawn().unwrap()).await;
    assert_eq!((code, out.as_str()), (0, "[]\n"), "{said}");
    let status = ["status", "--server", &url];
    let worker_joins = async {
        loop {
            let (code, out, said) = ended(shardwright(&status).spawn().unwrap()).await;
            assert_eq!(code, 0, "{said}");
            assert!(out.contains("store embedded"), "{out}");
            if out.contains("workers (1)") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, worker_joins).await.expect("its worker joins");

    refused(&arguments, 2, &["metadata.redb", "in use"]).await;

    terminate(&child).await;
    let (code, _, said) = ended(child).await;
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_port_in_use_is_refused_with_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let coordinator = ["coordinator", "--store", "memory:"];
    refused(&[&coordinator[..], &["--listen", &address]].concat(), 1, &[&address, "in use"]).await;
    let telemetry = ["--listen", "127.0.0.1:0", "--telemetry-listen", &address];
    refused(&[&coordinator[..], &telemetry].concat(), 1, &[&address, "telemetry.listen", "in use"]).await;
}

#[tokio::test]
async fn a_store_that_is_away_ends_with_3() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let store = format!("etcd://{address}");
    refused(&["coordinator", "--listen", "127.0.0.1:0", "--store", &store], 3, &["etcd", &address]).await;
}

#[tokio::test]
async fn wrong_settings_end_with_2_and_say_where() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("s.toml");
    std::fs::write(&file, "[store]\nurl = 'memory:'\n[coordinator]\nlisten_on = '127.0.0.1:1'\n").unwrap();
    let file = Path::new(&file).to_str().unwrap();
    let near = "line 4: unknown key `coordinator.listen_on`; did you mean `listen`?";
    refused(&["coordinator", "--config", file], 2, &[near]).await;
    refused(&["coordinator"], 2, &["no store", "--store"]).await;
    refused(&["coordinator", "--store", "ectd://h:1"], 2, &["etcd://HOST:PORT"]).await;
    refused(&["worker", "--set", "worker.capasity=2"], 2, &["did you mean `capacity`?"]).await;
    refused(
        &["worker", "--set", "worker.drain_deadline=5"],
        2,
        &["--set worker.drain_deadline", "not a duration"],
    )
    .await;
    refused(
        &["coordinator", "--store", "memory:", "--listen", "here"],
        2,
        &["--listen", "coordinator.listen"],
    )
    .await;
    refused(&["worker", "--log", "=x="], 2, &["telemetry.log"]).await;
}

/// The coordinator in it cannot go on; its worker alone would wait for it for ever.
#[tokio::test]
async fn a_standalone_whose_store_is_not_for_this_release_says_so_and_ends() {
    use store::{EmbeddedStore, Keyspace, MetadataStore as _, Schema, SchemaKey};
    let directory = tempfile::tempdir().unwrap();
    let data = data(&directory);
    std::fs::create_dir_all(&data).unwrap();
    let store = EmbeddedStore::open(Path::new(&data).join("metadata.redb")).await.unwrap();
    let newer = Keyspace::new("shardwright").put::<SchemaKey>(&(), &Schema::first(store::SCHEMA_VERSION + 1));
    store.commit(&[], vec![newer]).await.unwrap();
    drop(store);
    let arguments = ["standalone", "--listen", "127.0.0.1:0", "--data-dir", &data];
    refused(&arguments, 1, &["written by a newer release"]).await;
}

#[tokio::test]
async fn a_coordinator_stops_in_order_when_told() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("embedded:{}", directory.path().join("m.redb").display());
    let mut child =
        shardwright(&["coordinator", "--listen", "127.0.0.1:0", "--store", &store]).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    says(&mut log, "leader_elected").await;
    terminate(&child).await;
    let drained = async { while log.next_line().await.unwrap().is_some() {} };
    tokio::time::timeout(PATIENCE, drained).await.unwrap();
    assert_eq!(ended(child).await.0, 0);
    // It gave the leadership back, and the file free.
    let store = store::EmbeddedStore::open(directory.path().join("m.redb")).await.unwrap();
    let keys = store::Keyspace::new("shardwright");
    let kept = store::MetadataStore::list(&store, &keys.all()).await.unwrap();
    assert!(kept.get(&keys.leader()).is_none() && kept.get(&keys.schema()).is_some());
}

#[tokio::test]
async fn a_check_reaches_the_coordinators_as_the_settings_say() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    // One certificate for all, with the name of none of their addresses.
    let shared = rcgen::generate_simple_self_signed(vec!["shared.example".to_owned()]).unwrap();
    std::fs::write(file("tls.crt"), shared.cert.pem()).unwrap();
    std::fs::write(file("tls.key"), shared.signing_key.serialize_pem()).unwrap();
    let settings = format!(
        "[store]\nurl = 'embedded:{}'\n[tls]\ncert_path = '{crt}'\nca_path = '{crt}'\nkey_path = '{}'\nverify_names = false\n",
        file("m.redb"),
        file("tls.key"),
        crt = file("tls.crt"),
    );
    std::fs::write(file("s.toml"), settings).unwrap();
    let settings = file("s.toml");
    let mut child =
        shardwright(&["coordinator", "--config", &settings, "--listen", "127.0.0.1:0"]).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = says(&mut log, "leader_elected").await;
    let (_, address) = line.split_once("https://").expect(&line);
    let address: String =
        address.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
    let check = async |set: &str, verify_names: bool| {
        let names = format!("tls.verify_names={verify_names}");
        let arguments = ["check", "--config", &settings, "--set", set, "--set", &names];
        ended(shardwright(&arguments).spawn().unwrap()).await
    };
    let (advertise, told) = (
        format!("coordinator.advertise=https://{address}"),
        format!("worker.coordinators=https://{address}"),
    );
    let listen = format!("coordinator.listen={address}");
    for (set, verify_names) in [(&advertise, false), (&told, false), (&listen, false), (&listen, true)] {
        let (code, out, said) = check(set, verify_names).await;
        assert_eq!(code, 0, "{set}: {out}{said}");
        assert!(out.lines().any(|line| line.starts_with("ok       coordinator")), "{set}: {out}");
    }
    // Where hosts are compared, the certificate must be for them.
    let (code, out, _) = check(&advertise, true).await;
    assert!(code == 1 && out.contains("failed   coordinator"), "{out}");
    terminate(&child).await;
    let drained = async { while log.next_line().await.unwrap().is_some() {} };
    tokio::time::timeout(PATIENCE, drained).await.unwrap();
    assert_eq!(ended(child).await.0, 0);
}

#[tokio::test]
async fn telemetry_says_which_process_it_is_of() {
    for (attributes, said) in [
        ("k8s.pod.name=pod-7", [r#"service_instance_id="w-7""#, r#"k8s_pod_name="pod-7""#]),
        ("service.instance.id=i", [r#"service_instance_id="i""#, r#"service_name="shardwright-worker""#]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let data = data(&directory);
        let mut child = shardwright(&["worker", "--name", "w-7", "--data-dir", &data])
            .args(["--coordinators", "http://127.0.0.1:1", "--telemetry-listen", "127.0.0.1:0"])
            .env("OTEL_RESOURCE_ATTRIBUTES", attributes)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = says(&mut log, "telemetry is served").await;
        let (_, rest) = line.split_once("http://").expect(&line);
        let mut stream = TcpStream::connect(rest.split('/').next().unwrap()).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        for said in said {
            assert!(page.contains(said), "{said}: {page}");
        }
        child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn a_listener_for_strangers_is_refused_or_named_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let data = data(&directory);
    let worker = ["worker", "--data-dir", &data, "--coordinators", "http://127.0.0.1:1"];
    let exchange = ["--exchange-listen", "0.0.0.0:0", "--exchange-advertise", "127.0.0.1:1"];
    let coordinator = ["coordinator", "--store", "memory:", "--listen", "0.0.0.0:0"];
    refused(&coordinator, 2, &["coordinator.listen", "tls.plaintext", "docs/security.md"]).await;
    refused(&[&worker[..], &exchange].concat(), 2, &["worker.exchange_listen", "tls.plaintext"]).await;
    for role in [coordinator.to_vec(), [&worker[..], &exchange].concat()] {
        let allowed = [&role[..], &["--set", "tls.plaintext=always"]].concat();
        let mut child = shardwright(&allowed).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = says(&mut log, "can join as a worker").await;
        assert!(line.contains("WARN") && line.contains("0.0.0.0:0"), "{line}");
        child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn a_second_signal_ends_a_process_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("s.toml");
    // A drain that waits for a coordinator that is not there takes a while; nobody has to wait for it.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    std::fs::write(&file, format!("[worker]\ncoordinators = ['{url}']\ndrain_deadline = '10m'\n")).unwrap();
    let config = file.display().to_string();
    let mut child =
        shardwright(&["worker", "--config", &config, "--data-dir", &data(&directory)]).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    says(&mut log, "the worker starts").await;
    terminate(&child).await;
    terminate(&child).await;
    let code = tokio::time::timeout(PATIENCE, child.wait()).await.expect("it hangs").unwrap().code();
    // Who is quick has stopped in order before the second one came.
    assert!(matches!(code, Some(0 | 130)), "{code:?}");
}

#[tokio::test]
async fn every_setting_has_a_key_and_a_variable() {
    let (code, out, said) = ended(shardwright(&["settings"]).spawn().unwrap()).await;
    assert_eq!(code, 0, "{said}");
    for line in [
        ["coordinator.timing.fence_after", "SHARDWRIGHT_COORDINATOR_TIMING_FENCE_AFTER"],
        ["worker.memory_budget", "SHARDWRIGHT_WORKER_MEMORY_BUDGET"],
        ["store.url", "SHARDWRIGHT_STORE_URL"],
        ["telemetry.listen", "SHARDWRIGHT_TELEMETRY_LISTEN"],
    ] {
        assert!(out.lines().any(|l| l.split_whitespace().eq(line)), "{line:?} is not in\n{out}");
    }
    // And a row in the manual, which tells of no other.
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let (_, table) = manual.split_once("| key | default | means |\n|---|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let told: BTreeSet<&str> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split(','))
        .map(|key| key.trim().trim_matches('`'))
        .collect();
    let keys: BTreeSet<&str> = out.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(told, keys, "docs/operations.md, Settings");
}

#[tokio::test]
async fn a_worker_without_a_coordinator_waits_and_stops_when_told() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let mut child =
        shardwright(&["worker", "--coordinators", &url, "--data-dir", &data(&directory)]).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    says(&mut log, "the worker starts").await;
    terminate(&child).await;
    let drained = async { while log.next_line().await.unwrap().is_some() {} };
    tokio::time::timeout(PATIENCE, drained).await.unwrap();
    assert_eq!(ended(child).await.0, 0);
}
