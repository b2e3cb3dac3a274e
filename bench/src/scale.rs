//! What it costs to spread: rows sent to partitions by key beside rows written where they were read, ten sinks that share a
//! reader beside one, the same work on more workers, and a worker that is added.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use proto::v1::StatusReply;

use crate::{
    cluster::{Bench, Cluster},
    endpoint,
    live::Live,
    probe,
    report::{
        Aim::{self, AtMost, Below},
        Judged, Report, Throughput,
    },
};

/// What the records hold.
const COLUMNS: &str = "id BIGINT, \"user\" VARCHAR, kind VARCHAR, at TIMESTAMPTZ, price DOUBLE PRECISION, ok BOOLEAN, \
     score DOUBLE PRECISION, note VARCHAR";

/// Of the exchange over rows that stay where they are.
const EXCHANGE: f64 = 1.6;
/// CPU of the same work on one worker over that on several.
const EFFICIENCY: f64 = 0.9;
/// Of mutual TLS over none.
const MTLS: f64 = 1.03;
const MTLS_ROUNDS: usize = 2;
const SINKS: usize = 10;
/// A newcomer has its share by then.
const EVEN_WITHIN: Duration = Duration::from_secs(60);
/// Every split that has a key has delivered by then.
const LOADED_AFTER: Duration = Duration::from_secs(3);

/// Measures all of it.
pub(crate) async fn measure(bench: &Bench, report: &mut Report) {
    if bench.wants("exchange") {
        let outcome = exchange(bench, report).await;
        report.outcome("exchange", outcome);
    }
    if bench.wants("mtls") {
        let outcome = mtls(bench, report).await;
        report.outcome("mtls", outcome);
    }
    if bench.wants("ten sinks") {
        let outcome = ten_sinks(bench, report).await;
        report.outcome("ten sinks", outcome);
    }
    if bench.wants("scale-out") {
        let outcome = scale_out(bench, report).await;
        report.outcome("scale-out", outcome);
    }
    if bench.wants("rebalance") {
        let outcome = rebalance(bench, report).await;
        report.outcome("rebalance", outcome);
    }
}

/// One way to run: its name, its workers and its sinks.
struct Case<'a> {
    name: &'a str,
    workers: usize,
    sinks: &'a [String],
    aim: Aim,
    /// Every connection between the processes is mutual TLS.
    secured: bool,
}

async fn source(bench: &Bench) -> Result<String> {
    let options = format!("{}, scan.startup.mode = 'earliest'", bench.kinesis(bench.full().await?));
    Ok(format!("CREATE SOURCE s ({COLUMNS}) WITH ({options}) FORMAT PLAIN ENCODE JSON"))
}

fn blackhole(number: usize, more: &str) -> String {
    format!("CREATE SINK k{number} FROM s WITH (connector = 'blackhole'{more})")
}

/// Runs a case and says what all its workers used for a million records read.
async fn run(bench: &Bench, report: &mut Report, case: &Case<'_>) -> Result<f64> {
    let mut cluster = if case.secured { bench.secured_cluster().await? } else { bench.cluster().await? };
    for number in 0..case.workers {
        cluster.worker(&format!("w{number}")).await?;
    }
    cluster.sql(&source(bench).await?).await?;
    let (before, start) = (cpu(&cluster)?, Instant::now());
    for sink in case.sinks {
        cluster.sql(sink).await?;
    }
    all_delivered(&mut cluster, bench.args.records).await?;
    let used = (cpu(&cluster)? - before) * 1e6 / bench.args.records as f64;
    let peaks: Vec<f64> = cluster
        .workers
        .values()
        .map(|worker| Ok(probe::memory(worker.pid())?.peak))
        .collect::<Result<_>>()?;
    report.throughput(Throughput {
        case: case.name.to_owned(),
        cpu_seconds_per_million: Judged::new(used, case.aim),
        peak_memory: Judged::new(peaks.into_iter().fold(0.0, f64::max), Aim::None),
        records: bench.args.records,
        wall_seconds: start.elapsed().as_secs_f64(),
    });
    Ok(used)
}

/// CPU seconds of all workers so far.
fn cpu(cluster: &Cluster) -> Result<f64> {
    cluster.workers.values().map(|worker| probe::cpu_seconds(worker.pid())).sum()
}

/// Waits until every sink has delivered so many records.
async fn all_delivered(cluster: &mut Cluster, records: u64) -> Result<()> {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let sinks = cluster.status().await?.sinks;
        let total: u64 = sinks.iter().map(|sink| sink.records).sum();
        if !sinks.is_empty() && sinks.iter().all(|sink| sink.records >= records) {
            return Ok(());
        }
        if total > last {
            (last, moved) = (total, Instant::now());
        }
        ensure!(
            moved.elapsed() < Duration::from_secs(60),
            "the sinks stand still at {total} of {} × {records} records\n{}",
            sinks.len(),
            cluster.logs()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Rows that stay with their split, rows that go to eight partitions within a process, and between two.
async fn exchange(bench: &Bench, report: &mut Report) -> Result<()> {
    let stays = [blackhole(0, ", primary_key = 'user'")];
    let goes = [blackhole(0, ", primary_key = 'user', distribution = 'key(8)'")];
    let case = |name, workers, sinks| Case { name, workers, sinks, aim: Aim::None, secured: false };
    let split = run(bench, report, &case("exchange: distribution split", 1, &stays)).await?;
    let within = run(bench, report, &case("exchange: key(8) within one worker", 1, &goes)).await?;
    let between = run(bench, report, &case("exchange: key(8) between two workers", 2, &goes)).await?;
    report.figure("exchange: within one worker over split", within / split, "×", AtMost(EXCHANGE));
    report.figure("exchange: between two workers over split", between / split, "×", AtMost(EXCHANGE));
    Ok(())
}

/// The same with and without mutual TLS between all processes: rows that stay, and rows that go to another worker. Turn and
/// turn about, and the better of each: what differs by little is not to be told by one run.
async fn mtls(bench: &Bench, report: &mut Report) -> Result<()> {
    let stays = [blackhole(0, "")];
    let goes = [blackhole(0, ", primary_key = 'user', distribution = 'key(8)'")];
    let kinds = [("JSON → blackhole", 1, &stays), ("exchange between two workers", 2, &goes)];
    for (what, workers, sinks) in kinds {
        let mut best = [f64::INFINITY; 2];
        for round in 1..=MTLS_ROUNDS {
            for (best, secured) in best.iter_mut().zip([false, true]) {
                let how = if secured { "with" } else { "without" };
                let name = format!("mtls: {what}, {how}, round {round}");
                let case = Case { name: &name, workers, sinks, aim: Aim::None, secured };
                *best = run(bench, report, &case).await?.min(*best);
            }
        }
        report.figure(format!("mtls: {what}, CPU with over without"), best[1] / best[0], "×", AtMost(MTLS));
    }
    Ok(())
}

/// Ten sinks of one source on one worker, beside one.
async fn ten_sinks(bench: &Bench, report: &mut Report) -> Result<()> {
    let all: Vec<String> = (0..SINKS).map(|number| blackhole(number, "")).collect();
    let case = |name, sinks| Case { name, workers: 1, sinks, aim: Aim::None, secured: false };
    let one = run(bench, report, &case("ten sinks: one of them", &all[..1])).await?;
    let ten = run(bench, report, &case("ten sinks: all of them", &all)).await?;
    report.figure("ten sinks: CPU of all over one", ten / one, "×", Aim::None);
    let each = (ten - one) / (SINKS - 1) as f64;
    report.figure("ten sinks: each more sink", each, "CPU-s per million records", Aim::None);
    Ok(())
}

/// The same records on one, two and four workers.
async fn scale_out(bench: &Bench, report: &mut Report) -> Result<()> {
    let sinks = [blackhole(0, "")];
    let mut alone = None;
    for (name, workers) in
        [("scale-out: 1 worker", 1), ("scale-out: 2 workers", 2), ("scale-out: 4 workers", 4)]
    {
        let case = Case { name, workers, sinks: &sinks, aim: Aim::None, secured: false };
        let used = run(bench, report, &case).await?;
        let alone = *alone.get_or_insert(used);
        if workers > 1 {
            let text = format!("{name}: CPU over that of one (efficiency {:.0} %)", 100.0 * alone / used);
            report.figure(text, used / alone, "×", AtMost(1.0 / EFFICIENCY));
        }
    }
    Ok(())
}

/// A fourth worker joins three that read 24 splits under a live load.
async fn rebalance(bench: &Bench, report: &mut Report) -> Result<()> {
    const SOURCE: &str = "bench-rebalance";
    const DESTINATION: &str = "bench-rebalance-out";
    let client = bench.endpoint.client();
    endpoint::create_stream(&client, SOURCE, 24).await?;
    endpoint::create_stream(&client, DESTINATION, 4).await?;
    let mut cluster = bench.cluster().await?;
    for number in 0..3 {
        cluster.worker(&format!("w{number}")).await?;
    }
    for statement in bench.copy(SOURCE, DESTINATION) {
        cluster.sql(&statement).await?;
    }
    cluster.wait("even shares", EVEN_WITHIN, |status| even(status, 3)).await?;
    let before = owners(&cluster.status().await?);
    let live = Live::start(&client, SOURCE, DESTINATION).await?;
    tokio::time::sleep(LOADED_AFTER).await;
    let (mark, loaded) = live.mark();
    cluster.spawn_worker("w3")?;
    cluster.wait("even shares of four", EVEN_WITHIN, |status| even(status, 4)).await?;
    let took = mark.at.elapsed();
    let after = owners(&cluster.status().await?);
    let moved = after.into_iter().filter(|(split, owner)| before.get(split) != Some(owner));
    let moved: BTreeSet<String> = moved.map(|(split, _)| split).collect();
    report.figure("rebalance: moves to a fourth worker", moved.len() as f64, "of 24 splits", AtMost(6.0));
    report.figure("rebalance: even after", took.as_secs_f64(), "s", AtMost(30.0));
    // No key of the load belongs to some splits.
    let moved = moved.into_iter().filter(|split| loaded.contains_key(split)).collect();
    let silence = live.longest_silence(&moved, mark).await?;
    live.stop();
    let silence = silence.iter().map(|silence| silence.length).collect();
    report.spread("rebalance: silence of each moved split", silence, Below(1.0));
    Ok(())
}

fn owners(status: &StatusReply) -> BTreeMap<String, String> {
    status.splits.iter().map(|split| (split.split.clone(), split.worker.clone())).collect()
}

/// Whether all splits are read, evenly, by so many workers.
fn even(status: &StatusReply, workers: usize) -> bool {
    let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
    for split in &status.splits {
        if split.state != "reading" {
            return false;
        }
        *shares.entry(split.worker.as_str()).or_default() += 1;
    }
    let (least, most) = (shares.values().min().copied(), shares.values().max().copied());
    shares.len() == workers && least.zip(most).is_some_and(|(least, most)| most - least <= 1)
}
