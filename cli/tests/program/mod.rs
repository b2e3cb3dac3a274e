//! The real binary, as tests start it.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// A command of it: nothing to read, all that it says kept, gone with the test.
pub fn shardwright(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardwright"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Where a standalone that starts can be asked: it prints that.
#[allow(dead_code, reason = "not every test has a standalone")]
pub async fn admin_url(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some(url) = line.trim().strip_prefix("admin ") {
            return url.trim().to_owned();
        }
    }
    panic!("it ended without an admin URL");
}
