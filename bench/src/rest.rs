//! What a cluster uses when nothing happens, and how soon a worker that starts has its first record.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{
    cluster::{Bench, Rest},
    endpoint,
    report::{
        Aim::{self, AtMost, Below},
        Report,
    },
};

/// How long readers are left alone before they are watched: after five empty answers they slow down to one a second.
const SETTLING: Duration = Duration::from_secs(10);

/// How often the first record is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Measures rest and start.
pub(crate) async fn measure(bench: &Bench, report: &mut Report) {
    if bench.wants("rest") {
        let outcome = nothing_to_do(bench, report).await;
        report.outcome("rest, no task", outcome);
        let outcome = idle_splits(bench, report).await;
        report.outcome("rest, 8 and 200 shards", outcome);
    }
    if bench.wants("start") {
        let outcome = first_record(bench, report).await;
        report.outcome("start", outcome);
    }
}

/// A worker without a task.
async fn nothing_to_do(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut cluster = bench.cluster().await?;
    cluster.worker("w").await?;
    let rest = cluster.workers["w"].rest(Duration::from_secs(bench.args.rest)).await?;
    report.figure("rest, no task: worker", rest.cpu_percent, "% of a core", Aim::None);
    report.figure("rest, no task: worker", rest.resident, "MiB", AtMost(60.0));
    report.figure("rest, no task: worker", rest.threads, "threads", Aim::None);
    Ok(())
}

/// Few and many shards in which nothing happens; what they differ in, each split costs.
async fn idle_splits(bench: &Bench, report: &mut Report) -> Result<()> {
    let few = at_rest(bench, report, 8, 0.5).await?;
    let many = at_rest(bench, report, 200, 3.0).await?;
    let each = |few: f64, many: f64| (many - few) / f64::from(200 - 8);
    report.figure("an idle split: worker", each(few.resident, many.resident), "MiB", AtMost(1.0));
    // One thread more or less for all of them together is none for each.
    report.figure("an idle split: worker", each(few.threads, many.threads), "threads", Below(0.05));
    Ok(())
}

/// A worker that reads shards in which nothing happens.
async fn at_rest(bench: &Bench, report: &mut Report, shards: i32, percent: f64) -> Result<Rest> {
    let stream = format!("bench-rest-{shards}");
    endpoint::create_stream(&bench.endpoint.client(), &stream, shards).await?;
    let mut cluster = bench.cluster().await?;
    cluster.worker("w").await?;
    let options = bench.kinesis(&stream);
    cluster.sql(&format!("CREATE SOURCE s (data BYTEA) WITH ({options}) FORMAT PLAIN ENCODE BYTES")).await?;
    cluster.sql("CREATE SINK k FROM s WITH (connector = 'blackhole')").await?;
    let wanted = usize::try_from(shards)?;
    cluster
        .wait("all splits to be read", Duration::from_secs(90), |status| {
            status.splits.iter().filter(|split| split.state == "reading").count() == wanted
        })
        .await?;
    tokio::time::sleep(SETTLING).await;
    let span = Duration::from_secs(bench.args.rest);
    let (worker, coordinator) = tokio::join!(cluster.workers["w"].rest(span), cluster.coordinator.rest(span));
    let (worker, coordinator) = (worker?, coordinator?);
    let name = |who: &str| format!("rest, {shards} shards: {who}");
    report.figure(name("worker"), worker.cpu_percent, "% of a core", AtMost(percent));
    report.figure(name("worker"), worker.resident, "MiB", Aim::None);
    report.figure(name("worker"), worker.threads, "threads", Aim::None);
    report.figure(name("coordinator"), coordinator.cpu_percent, "% of a core", Aim::None);
    report.figure(name("coordinator"), coordinator.resident, "MiB", Aim::None);
    Ok(worker)
}

/// From the start of a worker's process to its first record, when the work is there already.
async fn first_record(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut cluster = bench.cluster().await?;
    let options = format!("{}, scan.startup.mode = 'earliest'", bench.kinesis(bench.full().await?));
    cluster.sql(&format!("CREATE SOURCE s (data BYTEA) WITH ({options}) FORMAT PLAIN ENCODE BYTES")).await?;
    cluster.sql("CREATE SINK k FROM s WITH (connector = 'blackhole')").await?;
    let start = Instant::now();
    cluster.spawn_worker("w")?;
    let look = async {
        loop {
            // Until it listens there is nobody to ask.
            if let Ok(Some(read)) = cluster.workers["w"].metric("records_read_total").await
                && read > 0.0
            {
                return start.elapsed();
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let span =
        tokio::time::timeout(Duration::from_secs(60), look).await.context("no record within a minute")?;
    report.figure("start of a worker → first record read", span.as_secs_f64(), "s", Below(2.0));
    Ok(())
}
