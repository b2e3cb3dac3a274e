//! A coordinator with thousands of splits on workers that do nothing but say that they move on, and a real etcd.

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

/// How large a crowd is, and what its coordinator may use.
struct Crowd {
    splits: i32,
    sinks: usize,
    workers: u32,
    /// % of a core.
    cpu: f64,
    /// MiB at most.
    memory: f64,
}

const CROWDS: [Crowd; 2] = [
    Crowd { splits: 2000, sinks: 1, workers: 20, cpu: 5.0, memory: 150.0 },
    Crowd { splits: 10_000, sinks: 2, workers: 50, cpu: 15.0, memory: 400.0 },
];

/// Transactions a second that etcd is asked for at most, whatever the crowd.
const TRANSACTIONS: f64 = 200.0;
/// Seconds of one comparison of desired and observed.
const RECONCILE: f64 = 0.050;

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
    reconciled: (f64, f64),
}

/// Measures both.
pub(crate) async fn measure(bench: &Bench, report: &mut Report) {
    for crowd in CROWDS {
        if bench.wants(&format!("crowd-{}", crowd.splits)) {
            let outcome = crowd.measure(bench, report).await;
            report.outcome(&format!("crowd of {}", crowd.splits), outcome);
        }
    }
}

impl Crowd {
    fn name(&self, what: &str) -> String {
        let Self { splits, sinks, workers, .. } = self;
        format!("{splits} splits × {sinks} on {workers} workers: {what}")
    }

    async fn measure(&self, bench: &Bench, report: &mut Report) -> Result<()> {
        let directory = tempfile::tempdir()?;
        let etcd = Etcd::start(directory.path()).await?;
        let stream = format!("bench-crowd-{}", self.splits);
        endpoint::create_stream(&bench.endpoint.client(), &stream, self.splits).await?;
        let mut cluster = bench.cluster_on(&etcd.url()).await?;
        let options = bench.kinesis(&stream);
        let (seen, mut workers) = (Arc::new(Seen::default()), JoinSet::new());
        for number in 0..self.workers {
            // Their seconds begin at different times, as those of any workers.
            let late = Duration::from_secs(1) * number / self.workers;
            workers.spawn(fake_worker::run(cluster.url.clone(), number, late, Arc::clone(&seen)));
        }
        cluster
            .sql(&format!("CREATE SOURCE s (data BYTEA) WITH ({options}) FORMAT PLAIN ENCODE BYTES"))
            .await?;
        let start = Instant::now();
        for sink in 0..self.sinks {
            cluster.sql(&format!("CREATE SINK k{sink} FROM s WITH (connector = 'blackhole')")).await?;
        }
        let watched = async {
            self.assigned(&seen).await?;
            report.figure(self.name("all assigned after"), start.elapsed().as_secs_f64(), "s", Aim::None);
            tokio::time::sleep(SETTLING).await;
            let before = count(&cluster.coordinator, &etcd, &seen).await?;
            tokio::time::sleep(Duration::from_secs(bench.args.rest)).await;
            let after = count(&cluster.coordinator, &etcd, &seen).await?;
            self.tell(report, &before, &after);
            let memory = probe::memory(cluster.coordinator.pid())?;
            report.figure(self.name("coordinator, peak"), memory.peak, "MiB", AtMost(self.memory));
            anyhow::Ok(())
        };
        tokio::select! {
            outcome = watched => outcome.with_context(|| format!("etcd {}", etcd.version())),
            Some(ended) = workers.join_next() => ended?.context("a fake worker"),
        }
    }

    async fn assigned(&self, seen: &Seen) -> Result<()> {
        let deadline = Instant::now() + ASSIGNED_DEADLINE;
        let wanted = usize::try_from(self.splits)? * self.sinks;
        loop {
            let running = seen.running.load(Ordering::Relaxed);
            if running == wanted {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "only {running} of {wanted} tasks are assigned");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn tell(&self, report: &mut Report, before: &Counts, after: &Counts) {
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let rate = |of: fn(&Counts) -> f64| (of(after) - of(before)) / seconds;
        let name = |what: &str| self.name(what);
        report.figure(name("coordinator"), 100.0 * rate(|c| c.cpu), "% of a core", AtMost(self.cpu));
        let transactions = rate(|c| c.transactions);
        report.figure(name("etcd transactions"), transactions, "a second", AtMost(TRANSACTIONS));
        report.figure(name("of these, checkpoints"), rate(|c| c.checkpoints), "a second", Aim::None);
        report.figure(name("keys written"), rate(|c| c.puts), "a second", Aim::None);
        report.figure(name("positions made durable"), rate(|c| c.committed), "a second", Aim::None);
        let passes = after.reconciled.1 - before.reconciled.1;
        if passes > 0.0 {
            let pass = (after.reconciled.0 - before.reconciled.0) / passes;
            report.figure(name("a comparison"), 1000.0 * pass, "ms", AtMost(1000.0 * RECONCILE));
        }
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
        reconciled: (
            coordinator.metric("reconcile_seconds_sum").await?.unwrap_or(0.0),
            coordinator.metric("reconcile_seconds_count").await?.unwrap_or(0.0),
        ),
        committed: seen.committed.load(Ordering::Relaxed) as f64,
    })
}
