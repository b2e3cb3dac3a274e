//! How much time the simulation lives through for a minute of CPU.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
};

use crate::{
    cluster::Bench,
    probe,
    report::{Aim, Report},
};

/// No seed takes so long.
const SEED_DEADLINE: Duration = Duration::from_secs(120);

/// From the end of a process's output to its own.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Measures it.
pub(crate) async fn measure(bench: &Bench, report: &mut Report) {
    if bench.wants("simulation") {
        let outcome = seeds(bench, report).await;
        report.outcome("simulation", outcome);
    }
}

/// One seed after the other, each in a process of its own.
async fn seeds(bench: &Bench, report: &mut Report) -> Result<()> {
    let binary = std::env::current_exe()?.with_file_name("sim");
    ensure!(binary.is_file(), "no `{}`; build the workspace first", binary.display());
    let count = bench.args.seeds;
    let (mut simulated, mut cpu) = (0.0, 0.0);
    for seed in 0..count {
        let one = tokio::time::timeout(SEED_DEADLINE, one(&binary, seed)).await;
        let (lasted, used) =
            one.unwrap_or_else(|_| bail!("it runs for too long")).context(format!("seed {seed}"))?;
        simulated += lasted;
        cpu += used;
    }
    ensure!(cpu > 0.0, "no seed used any CPU");
    let name = |what: &str| format!("simulation, {count} seeds: {what}");
    report.figure(name("simulated"), simulated / 3600.0, "h", Aim::None);
    report.figure(name("CPU"), cpu / 60.0, "min", Aim::None);
    report.figure(name("simulated for a CPU-minute"), simulated / 3600.0 / (cpu / 60.0), "h", Aim::None);
    Ok(())
}

/// Simulated seconds of a seed, and its CPU seconds.
async fn one(binary: &Path, seed: u64) -> Result<(f64, f64)> {
    let mut command = Command::new(binary);
    command
        .args(["--seed", &seed.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.kill_on_drop(true).spawn().context("starting it")?;
    let mut said = String::new();
    child.stdout.take().context("it has no output")?.read_to_string(&mut said).await?;
    let cpu = ended(&child).await?;
    ensure!(child.wait().await?.success(), "it failed\n{said}");
    Ok((simulated(&said).context("it does not say how long it simulated")?, cpu))
}

/// CPU seconds of a process that ends: all of them, but before it is waited for, because then nothing is left of it.
async fn ended(child: &Child) -> Result<f64> {
    let (pid, deadline) = (child.id().context("it was waited for")?, Instant::now() + ENDS_WITHIN);
    while !probe::is_zombie(pid)? {
        ensure!(Instant::now() < deadline, "its output ended, but it does not");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    probe::cpu_seconds(pid)
}

/// `simulated 78.6 s, …`
fn simulated(said: &str) -> Option<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix("simulated "))?;
    line.split_once(" s")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_seed_says_is_understood() {
        let said = "ledger: a: lost 0\nsimulated 78.6 s, settled Some(24.0ms) after healing\ntrace 10977c1e726b3a12\n";
        assert_eq!(simulated(said), Some(78.6));
        assert_eq!(simulated("trace 10977c1e726b3a12\n"), None);
    }

    #[tokio::test]
    async fn the_cpu_of_a_process_is_known_when_it_has_ended() {
        let mut command = Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        child.stdout.take().unwrap().read_to_string(&mut String::new()).await.unwrap();
        let cpu = ended(&child).await.unwrap();
        assert!(cpu > 0.0 && cpu < 60.0, "{cpu}");
        assert!(child.wait().await.unwrap().success());
    }
}
