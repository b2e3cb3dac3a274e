//! The commands against a fake coordinator: what they print, where, and with which exit code.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;

use std::{process::Stdio, time::Duration};

use fake::Fake;
use proto::v1::{ResetPositionRequest, reset_position_request::To};
use tokio::{io::AsyncWriteExt, process::Command};

/// No command of these takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

struct Run {
    code: i32,
    out: String,
    err: String,
}

async fn shardwright(server: &str, arguments: &[&str], stdin: Option<&str>) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardwright"));
    command.args(arguments).env("SHARDWRIGHT_SERVER", server);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(stdin.unwrap_or("").as_bytes()).await.unwrap();
    drop(input);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it hangs").unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn sql(arguments: &[&str]) -> Run {
    let fake = Fake::start().await;
    shardwright(&fake.url, &[&["sql"], arguments].concat(), None).await
}

#[tokio::test]
async fn a_tag_goes_to_stdout_and_a_notice_to_stderr() {
    let run = sql(&["-c", "CREATE SOURCE s"]).await;
    assert_eq!((run.code, run.out.as_str()), (0, "CREATE SOURCE\n"));
    assert_eq!(run.err, "NOTICE:  source \"s\" already exists, skipping\n");
}

#[tokio::test]
async fn rows_come_in_three_formats() {
    let table = sql(&["-c", "SHOW SINKS"]).await;
    assert_eq!(table.out, " name | lag\n------+-----\n a    |   5\n b,c  |\n(2 rows)\n\n");
    let json = sql(&["--format", "json", "-c", "SHOW SINKS"]).await;
    assert_eq!(json.out, "[{\"name\":\"a\",\"lag\":5},{\"name\":\"b,c\",\"lag\":null}]\n");
    let csv = sql(&["--format", "csv", "-c", "SHOW SINKS"]).await;
    assert_eq!(csv.out, "name,lag\na,5\n\"b,c\",\n");
}

#[tokio::test]
async fn a_refused_statement_shows_its_place_and_ends_with_1() {
    let run = sql(&["-c", "CREATE SOURCE s", "-c", "SHOW x;\nDROP TABEL x", "-c", "SHOW SINKS"]).await;
    assert_eq!(run.code, 1);
    assert_eq!(run.out, "CREATE SOURCE\n", "statements after the failed one do not run");
    let expected = "ERROR 42601: sql parser error: expected SOURCE or SINK, found TABEL\nLINE 2: DROP TABEL x\n             ^\nHINT:  did you mean `TABLE`?\n";
    assert!(run.err.ends_with(expected), "{}", run.err);
}

#[tokio::test]
async fn statements_come_from_a_file_from_stdin_or_from_a_pipe() {
    let fake = Fake::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sql");
    std::fs::write(&path, "CREATE SOURCE s;").unwrap();
    let run = shardwright(&fake.url, &["sql", "-f", path.to_str().unwrap()], None).await;
    assert_eq!((run.code, run.out.as_str()), (0, "CREATE SOURCE\n"));
    for arguments in [&["sql", "-f", "-"][..], &["sql"]] {
        let run = shardwright(&fake.url, arguments, Some("CREATE SOURCE s;")).await;
        assert_eq!((run.code, run.out.as_str()), (0, "CREATE SOURCE\n"), "{arguments:?}");
    }
    let run = shardwright(&fake.url, &["sql", "-f", "/nowhere.sql"], None).await;
    assert_eq!(run.code, 2);
    assert!(run.err.contains("cannot read `/nowhere.sql`"), "{}", run.err);
}

#[tokio::test]
async fn a_call_that_broke_is_made_again_under_its_id_and_printed_once() {
    let run = sql(&["-c", "BREAKS ONCE"]).await;
    assert_eq!((run.code, run.out.as_str()), (0, "FIRST\nSECOND\n"), "{}", run.err);
}

#[tokio::test]
async fn a_deadline_is_kept_and_says_that_the_outcome_is_open() {
    let run = sql(&["--timeout", "1", "-c", "HANGS"]).await;
    assert_eq!(run.code, 1);
    assert!(run.err.contains("may still be carried out"), "{}", run.err);
}

#[tokio::test]
async fn a_server_that_is_not_there_ends_with_3_and_the_way_out() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    for arguments in [&["sql", "-c", "SHOW SINKS"][..], &["status"], &["events"], &["drain", "w"]] {
        let run = shardwright(&url, arguments, None).await;
        assert_eq!(run.code, 3, "{arguments:?}");
        assert!(run.err.contains(&url) && run.err.contains("shardwright standalone"), "{}", run.err);
        assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    }
}

/// A server that takes connections and then behaves as it likes.
async fn stranger(says: Option<&'static [u8]>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            if let Some(says) = says {
                connection.write_all(says).await.ok();
            } else {
                held.push(connection);
            }
        }
    });
    url
}

#[tokio::test]
async fn a_server_that_never_answers_ends_every_command_with_3_within_5_seconds() {
    let url = &stranger(None).await;
    let commands = [
        &["sql", "-c", "SHOW SINKS"][..],
        &["status"],
        &["events"],
        &["events", "--follow"],
        &["drain", "w"],
        &["explain", "split", "s", "x"],
        &["reset", "k", "--earliest"],
    ];
    let timed = |arguments: &'static [&'static str]| async move {
        let began = std::time::Instant::now();
        (arguments, shardwright(url, arguments, None).await, began.elapsed())
    };
    for (arguments, run, took) in futures::future::join_all(commands.map(timed)).await {
        assert!(took < Duration::from_secs(5), "{arguments:?}: {took:?}");
        assert_eq!(run.code, 3, "{arguments:?}: {}", run.err);
        assert!(run.err.contains(url) && run.err.contains("no answer within 4 s"), "{}", run.err);
        assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    }
}

#[tokio::test]
async fn a_server_of_another_kind_is_said_to_be_no_coordinator() {
    let url = stranger(Some(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")).await;
    let run = shardwright(&url, &["status"], None).await;
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.err.contains(&format!("{url}: no coordinator answers there")), "{}", run.err);
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
}

/// It lives, but what it was asked does not come.
#[tokio::test]
async fn a_look_that_is_not_answered_ends_with_3_and_says_how_to_wait_longer() {
    let fake = Fake::start().await;
    let run = shardwright(&fake.url, &["explain", "split", "hangs", "x", "--timeout", "1"], None).await;
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.err.contains("waited 1 s") && run.err.contains("--timeout"), "{}", run.err);
}

#[tokio::test]
async fn a_reset_names_the_sink_and_where_to() {
    let fake = Fake::start().await;
    let asked = [
        (&["reset", "k", "--earliest"][..], "2 positions", "", To::Horizon(true)),
        (&["reset", "k", "--split", "s0", "--after", "77"], "1 position", "s0", To::AfterCursor("77".into())),
        (
            &["reset", "k", "--timestamp", "2026-01-01T01:00:00+01:00"],
            "2 positions",
            "",
            To::TimestampMs(1_767_225_600_000),
        ),
    ];
    for (arguments, said, split, to) in asked {
        let run = shardwright(&fake.url, arguments, None).await;
        let expected = format!("sink k: {said} reset; ALTER SINK k RESUME goes on from there\n");
        assert_eq!((run.code, run.out), (0, expected), "{}", run.err);
        let wanted = ResetPositionRequest { sink: "k".into(), split: split.into(), to: Some(to) };
        assert_eq!(fake.resets.lock().unwrap().pop(), Some(wanted));
    }
    for (arguments, code, part) in [
        (&["reset", "k"][..], 2, "--earliest"),
        (&["reset", "k", "--earliest", "--after", "7"], 2, "cannot be used with"),
        (&["reset", "k", "--after", "7"], 2, "--split"),
        (&["reset", "k", "--timestamp", "yesterday"], 2, "2026-01-31T12:00:00Z"),
        (&["reset", "live", "--earliest"], 1, "is not paused"),
    ] {
        let run = shardwright(&fake.url, arguments, None).await;
        assert_eq!(run.code, code, "{arguments:?}: {}", run.err);
        assert!(run.err.contains(part), "{arguments:?}: {}", run.err);
    }
}

#[tokio::test]
async fn a_name_that_nothing_has_is_refused_with_the_nearest() {
    let fake = Fake::start().await;
    let run = shardwright(&fake.url, &["status", "--source", "click"], None).await;
    assert_eq!(run.code, 1);
    assert_eq!(run.err, "ERROR: source `click` does not exist; did you mean `clicks`?\n");
    let run = shardwright(&fake.url, &["status", "--sink", "nosuch"], None).await;
    assert_eq!(run.code, 1);
    assert_eq!(run.err, "ERROR: sink `nosuch` does not exist; `shardwright status` lists every sink\n");
}

#[tokio::test]
async fn the_next_server_is_asked_when_the_first_is_away() {
    let fake = Fake::start().await;
    let run =
        shardwright(&format!("127.0.0.1:1,{}", fake.url), &["sql", "-c", "CREATE SOURCE s"], None).await;
    assert_eq!((run.code, run.out.as_str()), (0, "CREATE SOURCE\n"));
}

#[tokio::test]
async fn what_is_typed_wrong_ends_with_2_and_names_the_nearest() {
    for (arguments, near) in [
        (&["statsu"][..], "status"),
        (&["sql", "--fromat", "json"], "--format"),
        (&["sql", "--format", "jsn"], "json"),
        (&["--server", "ht tp://x", "status"], "http://127.0.0.1:7070"),
    ] {
        let run = shardwright("http://127.0.0.1:1", arguments, None).await;
        assert_eq!(run.code, 2, "{arguments:?}");
        assert!(run.err.contains(near), "{}", run.err);
    }
}

#[tokio::test]
async fn status_draws_the_cluster_for_people_and_for_programs() {
    let fake = Fake::start().await;
    let run = shardwright(&fake.url, &["status"], None).await;
    assert_eq!(run.code, 0, "{}", run.err);
    for part in [
        "store embedded",
        "WARNING:  no worker is live",
        "workers (1)",
        "shardId-1",
        "split 2 waits for 1",
        "1.2 s",
    ] {
        assert!(run.out.contains(part), "{part} is not in\n{}", run.out);
    }
    let run = shardwright(&fake.url, &["status", "--format", "json", "--sink", "k"], None).await;
    assert!(run.out.starts_with("{\"cluster\":\"test\""), "{}", run.out);
    assert!(
        run.out.contains("\"split\":\"shardId-1\"") && run.out.contains("\"lag_ms\":1250"),
        "{}",
        run.out
    );
    let run = shardwright(&fake.url, &["status", "--format", "csv", "--sink", "other"], None).await;
    assert_eq!(run.out.lines().count(), 1, "{}", run.out);
}

#[tokio::test]
async fn a_split_is_explained_and_a_missing_one_refused() {
    let fake = Fake::start().await;
    let run = shardwright(&fake.url, &["explain", "split", "clicks", "shardId-1"], None).await;
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("waits for    split 2 waits for 1"), "{}", run.out);
    let run = shardwright(&fake.url, &["explain", "split", "clicks", "shardId-9"], None).await;
    assert_eq!(run.code, 1);
    assert_eq!(run.err, "ERROR 42P01: Catalog error: split `shardId-9` of source `clicks` not found\n");
}

#[tokio::test]
async fn a_drain_tells_what_is_left_until_nothing_is() {
    let fake = Fake::start().await;
    let run = shardwright(&fake.url, &["drain", "w1"], None).await;
    assert_eq!((run.code, run.out.as_str()), (0, "2 tasks left: handing over\nworker w1 is empty\n"));
    let run = shardwright(&fake.url, &["drain", "w1", "--undo"], None).await;
    assert_eq!((run.code, run.out.as_str()), (0, "worker w1 takes tasks again\n"));
}

#[tokio::test]
async fn events_are_told_after_a_number_and_as_json() {
    let fake = Fake::start().await;
    let run = shardwright(&fake.url, &["events"], None).await;
    assert_eq!(run.out.lines().count(), 2, "{}", run.out);
    assert!(run.out.starts_with("1970-01-01T00:00:01.000Z INFO  worker_joined"), "{}", run.out);
    let run = shardwright(&fake.url, &["events", "--after", "1", "--format", "json"], None).await;
    assert_eq!(run.out.lines().count(), 1, "{}", run.out);
    assert!(
        run.out.contains("\"number\":2") && run.out.contains("\"labels\":{\"worker\":\"w1\"}"),
        "{}",
        run.out
    );
}

#[tokio::test]
async fn completions_and_version_need_no_server() {
    let run = shardwright("http://127.0.0.1:1", &["completions", "bash"], None).await;
    assert_eq!(run.code, 0);
    assert!(run.out.contains("_shardwright()"));
    let run = shardwright("http://127.0.0.1:1", &["--version"], None).await;
    assert!(run.out.starts_with(&format!("shardwright {}", env!("CARGO_PKG_VERSION"))), "{}", run.out);
}
