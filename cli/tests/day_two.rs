//! Backup, restore, check and support bundle as a user types them, right and wrong; and coordinators of another release.

#![allow(clippy::unwrap_used, reason = "a test")]

#[allow(dead_code, reason = "others use the rest of it")]
mod fake;
mod program;

use std::{path::Path, time::Duration};

use fake::Fake;
use model::{Checkpoint, Creation, Cursor, Epoch, ObjectId, Position, SplitId, TaskId, Timestamp};
use store::{CheckpointKey, EmbeddedStore, Keyspace, MetadataStore as _, Schema, SchemaKey};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    process::Command,
};

/// No command of these takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

struct Run {
    code: i32,
    out: String,
    err: String,
}

async fn shardwright(arguments: &[&str]) -> Run {
    let mut command = program::shardwright(arguments);
    // Cargo's, of the build.
    command.env_remove("SHARDWRIGHT_VERSION");
    let child = command.spawn().unwrap();
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it hangs").unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// One clear line, and the code that scripts rely on.
async fn refused(arguments: &[&str], code: i32, parts: &[&str]) {
    let run = shardwright(arguments).await;
    assert_eq!(run.code, code, "{arguments:?}: {} {}", run.out, run.err);
    assert_eq!(run.err.lines().count(), 1, "{arguments:?}: {}", run.err);
    for part in parts {
        assert!(run.err.contains(part), "{arguments:?}: {}", run.err);
    }
}

/// A cluster `shardwright` with one position, in a file.
async fn cluster(path: &Path) {
    let (store, keys) = (EmbeddedStore::open(path).await.unwrap(), Keyspace::new("shardwright"));
    let task = TaskId::reads(ObjectId::from_parts(1, 2), SplitId::new(Creation(8), "shard-0"));
    let checkpoint = Checkpoint {
        position: Position::After(Cursor::new("7")),
        epoch: Epoch { generation: 1, revision: 4 },
        serial: 7,
        caught_up_at: None,
        records: 9,
        run_records: 4,
        at: Timestamp(3),
        gap: None,
    };
    let schema = Schema::first(store::SCHEMA_VERSION);
    let writes = vec![keys.put::<SchemaKey>(&(), &schema), keys.put::<CheckpointKey>(&task, &checkpoint)];
    store.commit(&[], writes).await.unwrap();
}

struct Place {
    _dir: tempfile::TempDir,
    /// Folder, with a slash.
    at: String,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = format!("{}/", dir.path().display());
        Self { _dir: dir, at }
    }

    fn file(&self, name: &str) -> String {
        format!("{}{name}", self.at)
    }

    fn store(&self, name: &str) -> String {
        format!("embedded:{}{name}", self.at)
    }
}

#[tokio::test]
async fn a_backup_goes_to_a_file_and_back_and_says_what_happened() {
    let place = Place::new();
    cluster(Path::new(&place.file("a.redb"))).await;
    let (file, from, to) = (place.file("b.jsonl"), place.store("a.redb"), place.store("c.redb"));
    let run = shardwright(&["backup", &file, "--store", &from]).await;
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{}", run.out);
    assert!(run.out.contains("cluster `shardwright`") && run.out.contains("1 positions"), "{}", run.out);
    refused(&["backup", &file, "--store", &from], 1, &["b.jsonl", "it exists"]).await;
    assert!(!Path::new(&place.file("b.jsonl.part")).exists());

    let run = shardwright(&["restore", &file, "--verify"]).await;
    assert!(run.code == 0 && run.out.contains("nothing was restored"), "{}", run.out);
    let run = shardwright(&["restore", &file, "--store", &to]).await;
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{}", run.out);
    assert!(run.out.contains("1 keys are restored") && run.out.contains("begins generation"), "{}", run.out);
    refused(&["restore", &file, "--store", &to], 2, &["holds 2 keys", "--replace"]).await;
    let run = shardwright(&["restore", &file, "--store", &to, "--replace"]).await;
    assert!(run.code == 0 && run.out.contains("1 keys were removed"), "{} {}", run.out, run.err);
}

#[tokio::test]
async fn what_is_typed_wrong_is_refused_with_the_way_out_and_changes_nothing() {
    let place = Place::new();
    cluster(Path::new(&place.file("a.redb"))).await;
    let (good, from) = (place.file("good.jsonl"), place.store("a.redb"));
    assert_eq!(shardwright(&["backup", &good, "--store", &from]).await.code, 0);
    let bad = place.file("bad.jsonl");

    refused(&["backup", &bad], 2, &["no store is named", "--store"]).await;
    refused(&["backup", &bad, "--store", "memory:"], 2, &["gone with its process"]).await;
    refused(&["backup", &bad, "--store", &place.store("typo.redb")], 2, &["no metadata file", "typo.redb"])
        .await;
    refused(&["backup", &bad, "--store", &from, "--cluster", "prdo"], 2, &["no cluster under `/prdo/`"])
        .await;
    refused(&["backup", "/nowhere/b.jsonl", "--store", &from], 1, &["/nowhere/b.jsonl"]).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = format!("etcd://{}", nobody.local_addr().unwrap());
    drop(nobody);
    refused(&["backup", &bad, "--store", &away], 3, &["etcd"]).await;
    assert!(!Path::new(&bad).exists(), "a backup that failed leaves nothing");
    assert!(!Path::new(&place.file("typo.redb")).exists(), "a store that is not there is not made");

    let to = place.store("new.redb");
    refused(&["restore", &bad, "--store", &to], 2, &["bad.jsonl"]).await;
    refused(&["restore", &place.file("a.redb"), "--store", &to], 2, &["not a backup"]).await;
    let text = std::fs::read_to_string(&good).unwrap();
    std::fs::write(&bad, text.replacen("\"version\":1", "\"version\":2", 1)).unwrap();
    refused(&["restore", &bad, "--store", &to], 2, &["form 2", "newer one"]).await;
    std::fs::write(&bad, &text[..text.len() - 20]).unwrap();
    refused(&["restore", &bad, "--store", &to], 2, &["cut off"]).await;
    std::fs::write(&bad, text.replacen("\"serial\":7", "\"serial\":9", 1)).unwrap();
    refused(&["restore", &bad, "--store", &to], 2, &["checksum"]).await;
    assert!(!Path::new(&place.file("new.redb")).exists(), "nothing is made for a file that is refused");
    refused(&["restore", &good, "--store", &to, "--cluster", "other"], 2, &["`other`", "--rename-cluster"])
        .await;
    refused(&["restore", &good, "--store", &away], 3, &["etcd"]).await;
    refused(&["restore", &good, "--set", "store.ulr=x"], 2, &["store.ulr", "did you mean"]).await;
}

#[tokio::test]
async fn a_check_tells_of_each_thing_how_it_is_and_what_to_do() {
    let place = Place::new();
    cluster(Path::new(&place.file("a.redb"))).await;
    let fake = Fake::start().await;
    let store = place.store("a.redb");
    let run = shardwright(&["check", "--store", &store, "--server", &fake.url, "--skip", "limits"]).await;
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{}", run.out);
    for line in [
        "ok       settings",
        "ok       coordinator",
        "ok       store",
        "ok       cluster",
        "warning  cluster",
    ] {
        assert!(run.out.lines().any(|l| l.starts_with(line)), "{line} is not in\n{}", run.out);
    }

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let (url, store) = (format!("http://{away}"), format!("etcd://{away}"));
    let run = shardwright(&["check", "--store", &store, "--server", &url]).await;
    assert_eq!((run.code, run.err.as_str()), (1, "ERROR: 2 failed, 0 warnings\n"), "{}", run.out);
    for line in ["failed   coordinator", "failed   store", "ok       memory"] {
        assert!(run.out.lines().any(|l| l.starts_with(line)), "{line} is not in\n{}", run.out);
    }
    assert!(run.out.contains("-> is it running"), "{}", run.out);

    let file = place.file("s.toml");
    std::fs::write(&file, "[worker]\ncapasity = 2\n").unwrap();
    let run = shardwright(&["check", "--config", &file]).await;
    assert_eq!(run.code, 1, "{}", run.out);
    assert!(
        run.out.starts_with("failed   settings") && run.out.contains("did you mean `capacity`?"),
        "{}",
        run.out
    );
    let run = shardwright(&[
        "check",
        "--skip",
        "coordinators,limits",
        "--cluster",
        "x",
        "--store",
        &place.store("no"),
    ])
    .await;
    assert!(run.code == 0 && run.out.contains("warning  store"), "{}", run.out);
    assert!(!Path::new(&place.file("no")).exists(), "a look makes nothing");
}

/// Serves the same page at every path.
async fn page(body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 1024];
            if stream.read(&mut asked).await.is_ok_and(|n| n == 0) {
                continue;
            }
            let answer = format!("HTTP/1.0 200 OK\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    address
}

#[tokio::test]
async fn a_support_bundle_has_everything_but_the_secrets() {
    let place = Place::new();
    let fake = Fake::start().await;
    let secrets = ["canary-in-settings", "canary-in-a-file", "canary-in-a-url", "AKIAIOSFODNN7EXAMPLE"];
    std::fs::write(place.file("pw"), "canary-in-a-file\n").unwrap();
    let settings = format!(
        "[store]\nurl = 'etcd://me:canary-in-a-url@h:1'\nuser = 'me'\npassword = 'canary-in-settings'\n\
         [telemetry]\nlog = 'info'\n[worker]\nname_file = '{}'\n[auth]\nadmin_password_file = '{0}'\n",
        place.file("pw")
    );
    std::fs::write(place.file("s.toml"), settings).unwrap();
    std::fs::write(place.file("w.log"), format!("first\nused {}\nlast\n", secrets.join(" and "))).unwrap();
    let telemetry = page(format!("up 1\n# {}\n", secrets.join(" "))).await;
    let (archive, config, log) = (place.file("b.tar.gz"), place.file("s.toml"), place.file("w.log"));
    let arguments = [
        "support-bundle",
        "--output",
        &archive,
        "--config",
        &config,
        "--log",
        &log,
        "--telemetry",
        &telemetry,
        "--telemetry",
        "127.0.0.1:1",
        "--server",
        &fake.url,
    ];
    let run = shardwright(&arguments).await;
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{}", run.out);
    let unpacked = Command::new("tar").args(["-xzf", &archive, "-C", &place.at]).status().await.unwrap();
    assert!(unpacked.success());
    let folders = std::fs::read_dir(&place.at).unwrap().map(|entry| entry.unwrap().path());
    let folder = folders.into_iter().find(|path| path.is_dir()).unwrap();
    let mut all = String::new();
    let mut names = Vec::new();
    let mut left = vec![folder.clone()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                all.push_str(&std::fs::read_to_string(&path).unwrap());
                names.push(path.strip_prefix(&place.at).unwrap().display().to_string());
            }
        }
    }
    for secret in secrets {
        assert!(!all.contains(secret), "{secret} is in the bundle");
    }
    for wanted in
        ["machine.txt", "settings.toml", "status.json", "events.jsonl", "metrics.txt", "w.log", "missing.txt"]
    {
        assert!(names.iter().any(|name| name.ends_with(wanted)), "{wanted} is not among {names:?}");
    }
    for kept in ["worker_joined", "user = \"me\"", "up 1", "last", "127.0.0.1_1"] {
        assert!(all.contains(kept), "{kept} is not in the bundle");
    }
    refused(&arguments, 1, &["b.tar.gz", "exists"]).await;
}

#[tokio::test]
async fn a_tool_and_a_coordinator_two_releases_apart_say_so() {
    let newer = Fake::speaking(3, 4).await;
    for arguments in [&["status"][..], &["sql", "-c", "SHOW SINKS"], &["events"]] {
        let arguments = [arguments, &["--server", &newer.url]].concat();
        refused(&arguments, 1, &["speaks protocol 1 to 2", "3 to 4", "one minor version apart"]).await;
    }
    for (from, to) in [(2, 3), (1, 1), (1, 2)] {
        let neighbour = Fake::speaking(from, to).await;
        assert_eq!(shardwright(&["status", "--server", &neighbour.url]).await.code, 0, "{from} to {to}");
    }
}
