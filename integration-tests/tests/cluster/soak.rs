//! The soak, for a third of a minute: it must not rot between the times that somebody runs it.

use std::process::Stdio;

use shardwright_integration_tests::servers::Etcd;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn a_short_soak_loses_nothing() {
    let test = "a_short_soak_loses_nothing";
    let dir = tempfile::tempdir().unwrap();
    if Etcd::of_test(test, dir.path()).await.is_none() {
        return;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_soak"))
        .args(["--minutes", "0.34", "--seed", "1"])
        .env("TMPDIR", dir.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}");
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for sink in ["copy", "archive"] {
        let line = text.lines().find(|line| line.starts_with(&format!("ledger: {sink}:"))).unwrap();
        assert!(line.contains("lost 0,") && line.contains("out of order 0"), "{line}");
    }
    assert!(text.contains("worker-0") && text.contains("coordinator-1"), "growth is told: {text}");
}
