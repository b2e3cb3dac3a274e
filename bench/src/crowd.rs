//! A coordinator with 2,000 splits on 20 workers that do nothing but say that they move on, and a real etcd.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use integration_tests::servers::Etcd;
use tokio::task::JoinSet;

use crate::{
    cluster::Bench,
    endpoint,
    fake_worker::{self, Seen},
    probe,
    report::{
        Aim::{self, AtMost},
        Report,
    },
    scrape,
};

const STREAM: &str = "bench-crowd";
const SPLITS: i32 = 2000;
const WORKERS: u32 = 20;

/// No assignment of so many takes so long.
const ASSIGNED_DEADLINE: Duration = Duration::from_secs(180);

/// How long it runs before it is watched.
const SETTLING: Duration = Duration::from_secs(10);

/// What is counted, at one moment.
struct Counts {
    at: Instant,
    cpu: f64,
    transactions: f64,
    puts: f64,
    checkpoints: f64,
    committed: f64,
}

/// Measures it.
pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    if !bench.wants("crowd") {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let etcd = Etcd::start(directory.path()).await?;
    endpoint::create_stream(&bench.endpoint.client(), STREAM, SPLITS).await?;
    let mut cluster = bench.cluster_on(&etcd.url()).await?;
    let options = bench.kinesis(STREAM);
    let (seen, mut workers) = (Arc::new(Seen::default()), JoinSet::new());
    for number in 0..WORKERS {
        // Their seconds begin at different times, as those of any workers.
        let late = Duration::from_secs(1) * number / WORKERS;
        workers.spawn(fake_worker::run(cluster.url.clone(), number, late, Arc::clone(&seen)));
    }
    cluster.sql(&format!("CREATE SOURCE s (data BYTEA) WITH ({options}) FORMAT PLAIN ENCODE BYTES")).await?;
    let start = Instant::now();
    cluster.sql("CREATE SINK k FROM s WITH (connector = 'blackhole')").await?;
    let watched = async {
        assigned(&seen).await?;
        report.figure(name("all assigned after"), start.elapsed().as_secs_f64(), "s", Aim::None);
        tokio::time::sleep(SETTLING).await;
        let before = count(&cluster.coordinator, &etcd, &seen).await?;
        tokio::time::sleep(Duration::from_secs(bench.args.rest)).await;
        let after = count(&cluster.coordinator, &etcd, &seen).await?;
        tell(report, &before, &after);
        let memory = probe::memory(cluster.coordinator.pid())?;
        report.figure(name("coordinator, peak"), memory.peak, "MiB", AtMost(150.0));
        anyhow::Ok(())
    };
    tokio::select! {
        outcome = watched => outcome.with_context(|| format!("etcd {}", etcd.version())),
        Some(ended) = workers.join_next() => ended?.context("a fake worker"),
    }
}

fn name(what: &str) -> String {
    format!("{SPLITS} splits on {WORKERS} workers: {what}")
}

async fn assigned(seen: &Seen) -> Result<()> {
    let deadline = Instant::now() + ASSIGNED_DEADLINE;
    let wanted = usize::try_from(SPLITS)?;
    loop {
        let running = seen.running.load(Ordering::Relaxed);
        if running == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "only {running} of {wanted} splits are assigned");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn count(coordinator: &crate::cluster::Member, etcd: &Etcd, seen: &Seen) -> Result<Counts> {
    let page = scrape::get(etcd.url().trim_start_matches("http://").parse()?, "/metrics").await?;
    let of_etcd = |name: &str, labels: &str| {
        scrape::sum(&page, name, labels).with_context(|| format!("etcd does not count `{name}`"))
    };
    Ok(Counts {
        at: Instant::now(),
        cpu: probe::cpu_seconds(coordinator.pid())?,
        transactions: of_etcd("grpc_server_handled_total", "grpc_method=\"Txn\"")?,
        puts: of_etcd("etcd_debugging_mvcc_put_total", "")?,
        checkpoints: coordinator.metric("checkpoint_write_seconds_count").await?.unwrap_or(0.0),
        committed: seen.committed.load(Ordering::Relaxed) as f64,
    })
}

fn tell(report: &mut Report, before: &Counts, after: &Counts) {
    let seconds = after.at.duration_since(before.at).as_secs_f64();
    let rate = |of: fn(&Counts) -> f64| (of(after) - of(before)) / seconds;
    report.figure(name("coordinator"), 100.0 * rate(|c| c.cpu), "% of a core", AtMost(5.0));
    report.figure(name("etcd transactions"), rate(|c| c.transactions), "a second", Aim::None);
    report.figure(name("of these, checkpoints"), rate(|c| c.checkpoints), "a second", Aim::None);
    report.figure(name("keys written"), rate(|c| c.puts), "a second", Aim::None);
    report.figure(name("positions made durable"), rate(|c| c.committed), "a second", Aim::None);
}
