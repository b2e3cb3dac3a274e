//! `shardwright selftest` against real processes: records move, two at once do not meet, and nothing is left behind.

#![allow(clippy::unwrap_used, reason = "a test")]

mod program;

use std::{process::Stdio, time::Duration};

use tokio::process::{Child, Command};

use program::{admin_url, shardwright};

/// No step of these takes so long.
const PATIENCE: Duration = Duration::from_secs(90);

/// Exit code, stdout, stderr.
async fn ended(child: Child) -> (i32, String, String) {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it hangs").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

async fn run(url: &str, arguments: &[&str]) -> (i32, String, String) {
    let mut arguments = arguments.to_vec();
    arguments.extend(["--server", url]);
    ended(shardwright(&arguments).spawn().unwrap()).await
}

/// A standalone that keeps everything in `directory`, and its admin URL. Its log goes nowhere: nobody would read it.
async fn standalone(directory: &tempfile::TempDir) -> (Child, String) {
    let data = directory.path().join("data").display().to_string();
    let arguments =
        ["standalone", "--listen", "127.0.0.1:0", "--telemetry-listen", "off", "--data-dir", &data];
    let mut child = shardwright(&arguments).stderr(Stdio::null()).spawn().unwrap();
    let url = tokio::time::timeout(PATIENCE, admin_url(&mut child)).await.expect("it does not come up");
    (child, url)
}

async fn nothing_is_left(url: &str) {
    let (code, out, said) =
        run(url, &["sql", "--format", "json", "-c", "SHOW SOURCES", "-c", "SHOW SINKS"]).await;
    assert_eq!((code, out.as_str()), (0, "[]\n[]\n"), "{said}");
}

#[tokio::test]
async fn two_at_once_count_their_own_records_and_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (_cluster, url) = standalone(&directory).await;
    let (first, second) = tokio::join!(
        run(&url, &["selftest", "--timeout", "60s"]),
        run(&url, &["selftest", "--records", "7", "--timeout", "60"])
    );
    assert_eq!(
        (first.0, first.1.as_str()),
        (0, "ledger: selftest: sent 1000, delivered 1000, lost 0\n"),
        "{}",
        first.2
    );
    assert_eq!(
        (second.0, second.1.as_str()),
        (0, "ledger: selftest: sent 7, delivered 7, lost 0\n"),
        "{}",
        second.2
    );
    let by_key = run(&url, &["selftest", "--records", "500", "--partitions", "2"]).await;
    assert_eq!(by_key.1, "ledger: selftest: sent 500, delivered 500, lost 0\n", "{}", by_key.2);
    nothing_is_left(&url).await;
}

/// Nobody reads, since the only worker is drained.
#[tokio::test]
async fn who_is_late_says_what_each_split_waits_for_and_clears_up() {
    let directory = tempfile::tempdir().unwrap();
    let (_cluster, url) = standalone(&directory).await;
    let worker = async {
        loop {
            let (_, out, _) = run(&url, &["status", "--format", "json"]).await;
            let status: serde_json::Value = serde_json::from_str(&out).unwrap_or_default();
            if let Some(name) = status["workers"][0]["name"].as_str() {
                return name.to_owned();
            }
        }
    };
    let worker = tokio::time::timeout(PATIENCE, worker).await.expect("its worker joins");
    assert_eq!(run(&url, &["drain", &worker]).await.0, 0);
    // A busy machine may need longer to list the splits than it gets.
    let mut said = String::new();
    for timeout in ["2s", "8s", "32s"] {
        let (code, out, errors) = run(&url, &["selftest", "--records", "10", "--timeout", timeout]).await;
        assert_eq!((code, out.as_str()), (1, ""), "{errors}");
        said = errors;
        if said.contains("split-0003") {
            break;
        }
    }
    assert!(said.contains("10 of 10 records were not delivered in time"), "{said}");
    for split in 0..4 {
        let line = format!("split-000{split} is unassigned at `start (horizon)` and waits for ");
        assert!(said.contains(&line), "{said}");
    }
    assert!(!said.contains("nothing that is known"), "{said}");
    nothing_is_left(&url).await;

    // Who is told to stop clears up too.
    let child = shardwright(&["selftest", "--timeout", "60s", "--server", &url]).spawn().unwrap();
    let sinks = async || run(&url, &["sql", "--format", "json", "-c", "SHOW SINKS"]).await.1;
    let made = async { while !sinks().await.contains("selftest_") {} };
    tokio::time::timeout(PATIENCE, made).await.expect("its sink is made");
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let (code, _, said) = ended(child).await;
    assert!(code == 1 && said.contains("told to stop"), "{said}");
    nothing_is_left(&url).await;
}

#[tokio::test]
async fn what_made_records_hold_may_change_and_what_positions_rest_on_may_not() {
    let directory = tempfile::tempdir().unwrap();
    let (_cluster, url) = standalone(&directory).await;
    let sql = async |text: &str| run(&url, &["sql", "-c", text]).await;
    let source = "CREATE SOURCE made (id BIGINT) WITH (connector = 'datagen', fields.id.max = 5) FORMAT PLAIN ENCODE JSON";
    assert_eq!(sql(source).await.0, 0);
    assert_eq!(sql("ALTER SOURCE made SET (fields.id.max = 6)").await.0, 0);
    for change in ["datagen.rows.per.second = 20", "datagen.split.num = 2"] {
        let (code, _, said) = sql(&format!("ALTER SOURCE made SET ({change})")).await;
        assert!(code == 1 && said.contains("would read another stream"), "{change}: {said}");
    }
    let near = source.replace("made", "other").replace("fields.id.max", "fields.id.mux");
    let (code, _, said) = sql(&near).await;
    assert!(code == 1 && said.contains("did you mean `fields.id.max`?"), "{said}");
}

#[tokio::test]
async fn without_a_cluster_it_ends_as_every_command() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    assert_eq!(run(&url, &["selftest"]).await.0, 3);
    for wrong in [&["--records", "0"], &["--timeout", "soon"]] {
        assert_eq!(run(&url, &[&["selftest"][..], wrong].concat()).await.0, 2, "{wrong:?}");
    }
}
