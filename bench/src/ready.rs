//! How long a process takes from its start until it can do its work, as `/readyz` says: a coordinator that finds an empty store, and
//! a worker whose coordinator is there.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::process::{Child, Command};

use crate::{
    cluster::{Bench, free_address, spawn},
    report::{Aim::Below, Report},
    scrape,
};

/// How often each is started.
const ROUNDS: usize = 5;
/// How often it is asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// No start takes so long.
const DEADLINE: Duration = Duration::from_secs(30);
/// What we want of both, seconds.
const AIM: f64 = 1.0;

/// Measures both.
pub(crate) async fn measure(bench: &Bench, report: &mut Report) {
    if bench.wants("ready") {
        let outcome = cold(bench, report).await;
        report.outcome("ready", outcome);
    }
}

async fn cold(bench: &Bench, report: &mut Report) -> Result<()> {
    let (mut coordinators, mut workers) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let directory = tempfile::tempdir()?;
        let path = directory.path();
        let (listen, store) =
            (free_address()?.to_string(), format!("embedded:{}", path.join("db").display()));
        let arguments = ["coordinator", "--store", &store, "--listen", &listen];
        let (_coordinator, took) = ready(&bench.binary, &arguments, &path.join("coordinator.log")).await?;
        coordinators.push(took);
        let (url, data) = (format!("http://{listen}"), path.join("w").display().to_string());
        let arguments = ["worker", "--name", "w", "--coordinators", &url, "--data-dir", &data];
        let (_worker, took) = ready(&bench.binary, &arguments, &path.join("worker.log")).await?;
        workers.push(took);
    }
    report.spread("ready: cold coordinator", coordinators, Below(AIM));
    report.spread("ready: cold worker", workers, Below(AIM));
    Ok(())
}

/// Starts a process, and says after how many seconds it was ready.
async fn ready(binary: &Path, arguments: &[&str], log: &Path) -> Result<(Child, f64)> {
    let telemetry = free_address()?;
    let mut command = Command::new(binary);
    command.args(arguments).args(["--telemetry-listen", &telemetry.to_string()]);
    let start = Instant::now();
    let child = spawn(command, log)?;
    while !is_ready(telemetry).await {
        if start.elapsed() > DEADLINE {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            bail!("{arguments:?} is not ready after {} s\n{text}", DEADLINE.as_secs());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok((child, start.elapsed().as_secs_f64()))
}

async fn is_ready(telemetry: SocketAddr) -> bool {
    scrape::get(telemetry, "/readyz").await.is_ok_and(|text| text == "ready\n")
}
