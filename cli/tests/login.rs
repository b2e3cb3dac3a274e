//! Logging in with the real binary: a standalone that wants to know who asks, and tools that say it or do not.

#![allow(clippy::unwrap_used, reason = "a test")]

mod program;

use std::time::Duration;

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use program::{admin_url, shardwright};

/// No step of these takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

const PASSWORD: &str = "correct horse battery";

/// Exit code, stdout, stderr.
async fn ended(mut command: Command) -> (i32, String, String) {
    let child = command.spawn().unwrap();
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it hangs").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

/// A standalone whose settings want a login, its URL, and what it logs.
async fn standalone(directory: &tempfile::TempDir) -> (Child, String, tokio::task::JoinHandle<Vec<String>>) {
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("password"), format!("{PASSWORD}\n")).unwrap();
    let (data, file) = (path("data"), format!("auth.admin_password_file={}", path("password")));
    let mut child = shardwright(&[
        "standalone",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        &data,
        "--log-format",
        "json",
        "--set",
        "auth.anonymous=never",
        "--set",
        &file,
    ])
    .spawn()
    .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let logged = tokio::spawn(async move {
        let mut lines = Vec::new();
        while let Ok(Some(line)) = log.next_line().await {
            lines.push(line);
        }
        lines
    });
    let url = tokio::time::timeout(PATIENCE, admin_url(&mut child)).await.expect("it does not come up");
    (child, url, logged)
}

#[tokio::test]
async fn who_is_not_known_or_may_not_is_told_so_and_the_audit_log_tells_all_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, url, logged) = standalone(&directory).await;
    let sql = |statement: &str| shardwright(&["sql", "--server", &url, "-c", statement]);
    let by = |user: &str, password: &str, statement: &str| {
        let mut command = sql(statement);
        command.args(["--user", user]).env("SHARDWRIGHT_PASSWORD", password);
        command
    };

    let (code, _, said) = ended(sql("SHOW SOURCES")).await;
    assert_eq!(code, 4, "{said}");
    assert!(said.starts_with("ERROR 28000: this call needs a login\nHINT:  say --user NAME"), "{said}");
    let (code, _, said) = ended(by("admin", "wrong", "SHOW SOURCES")).await;
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("ERROR 28P01: login failed: wrong password"), "{said}");

    let mut file = sql("CREATE USER alice PASSWORD 'some good password'");
    let path = directory.path().join("password").display().to_string();
    file.args(["--user", "admin", "--password-file", &path]);
    let (code, out, said) = ended(file).await;
    assert_eq!((code, out.as_str()), (0, "CREATE USER\n"), "{said}");
    let (code, _, said) = ended(by("alice", "some good password", "REBALANCE")).await;
    assert_eq!(code, 4, "{said}");
    assert!(
        said.contains("ERROR 42501: Permission denied: ADMIN privilege on the cluster is required"),
        "{said}"
    );
    let mut without = sql("SHOW SOURCES");
    without.args(["--user", "alice"]).env_remove("SHARDWRIGHT_PASSWORD");
    let (code, _, said) = ended(without).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--user needs a password"), "{said}");

    child.kill().await.unwrap();
    let lines = tokio::time::timeout(PATIENCE, logged).await.expect("the log ends").unwrap();
    let audit: Vec<&String> = lines.iter().filter(|line| line.contains("\"target\":\"audit\"")).collect();
    let told = |parts: &[&str]| audit.iter().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(told(&["Execute", "Unauthenticated", "28000"]), "{audit:#?}");
    assert!(told(&["Execute", "Unauthenticated", "28P01", "admin"]), "{audit:#?}");
    assert!(
        told(&["CREATE USER alice PASSWORD '********'", "admin", "password", "127.0.0.1", "Ok"]),
        "{audit:#?}"
    );
    assert!(told(&["REBALANCE", "alice", "PermissionDenied", "42501"]), "{audit:#?}");
    let all = lines.concat();
    assert!(
        !all.contains(PASSWORD) && !all.contains("some good password") && !all.contains("$argon2"),
        "{all}"
    );
}
