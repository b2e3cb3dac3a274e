//! What a million records cost: the two loops beside, then the worker, each case with processes of its own.

use std::{process::Stdio, time::Instant};

use anyhow::{Context, Result, ensure};
use faults::{Faults, kinesis::Proxy};
use tokio::process::Command;

use crate::{
    cluster::Bench,
    endpoint::{self, SHARDS},
    kafka::Kafka,
    probe,
    report::{
        Aim::{self, AtMost},
        Judged, Report, Throughput,
    },
};

/// What the records hold.
pub(crate) const COLUMNS: &str = "id BIGINT, \"user\" VARCHAR, kind VARCHAR, at TIMESTAMPTZ, price DOUBLE PRECISION, ok BOOLEAN, \
     score DOUBLE PRECISION, note VARCHAR";

pub(crate) const BLACKHOLE: &str = "CREATE SINK k FROM s WITH (connector = 'blackhole')";

/// Peak memory of a worker with eight hot shards, MiB.
const MEMORY: Aim = AtMost(150.0);

/// Measures all cases that are asked for.
pub(crate) async fn measure(bench: &Bench, report: &mut Report) {
    for (name, command) in [("limit: bare loop", "limit"), ("sdk: aws-sdk-kinesis loop", "sdk")] {
        if bench.wants(name) {
            let outcome = beside(bench, report, name, command).await;
            report.outcome(name, outcome);
        }
    }
    for case in [BYTES, BYTES_PUSHED, JSON, JSON_PUSHED, KINESIS, KAFKA] {
        if bench.wants(case) {
            let outcome = worker_case(bench, report, case).await;
            report.outcome(case, outcome);
        }
    }
}

const BYTES: &str = "worker: BYTES → blackhole";
const BYTES_PUSHED: &str = "worker: BYTES → blackhole, fan-out";
const JSON: &str = "worker: JSON → blackhole";
const JSON_PUSHED: &str = "worker: JSON → blackhole, fan-out";
const KINESIS: &str = "worker: JSON → JSON → Kinesis";
const KAFKA: &str = "worker: JSON → Kafka";

async fn worker_case(bench: &Bench, report: &mut Report, case: &str) -> Result<()> {
    let options = format!("{}, scan.startup.mode = 'earliest'", bench.kinesis(bench.full().await?));
    let json = json(&options);
    match case {
        BYTES => worker(bench, report, case, AtMost(2.0), [&bytes(&options), BLACKHOLE]).await,
        JSON => worker(bench, report, case, AtMost(3.0), [&json, BLACKHOLE]).await,
        BYTES_PUSHED | JSON_PUSHED => pushed(bench, report, case).await,
        KINESIS => {
            let out = "bench-out";
            endpoint::create_stream(&bench.endpoint.client(), out, SHARDS).await?;
            let to = bench.kinesis(out);
            let sink =
                format!("CREATE SINK k FROM s WITH ({to}, primary_key = 'user') FORMAT PLAIN ENCODE JSON");
            worker(bench, report, case, AtMost(6.0), [&json, &sink]).await
        }
        _ => {
            let kafka = Kafka::prepare(&bench.args, SHARDS).await?;
            let sink = format!(
                "CREATE SINK k FROM s WITH (connector = 'kafka', properties.bootstrap.server = '{}', topic = '{}', \
                 primary_key = 'user') FORMAT PLAIN ENCODE JSON",
                kafka.bootstrap, kafka.topic
            );
            let outcome = worker(bench, report, case, Aim::None, [&json, &sink]).await;
            kafka.end().await?;
            outcome
        }
    }
}

fn bytes(options: &str) -> String {
    format!("CREATE SOURCE s (data BYTEA) WITH ({options}) FORMAT PLAIN ENCODE BYTES")
}

fn json(options: &str) -> String {
    format!("CREATE SOURCE s ({COLUMNS}) WITH ({options}) FORMAT PLAIN ENCODE JSON")
}

/// The same records, pushed by the service. The fault layer, with no fault, stands in front of the endpoint, which knows no
/// subscription from the beginning of a shard; its work is done in this process, not in the worker's.
async fn pushed(bench: &Bench, report: &mut Report, case: &str) -> Result<()> {
    let stream = bench.full().await?;
    let proxy =
        Proxy::start(&bench.endpoint.url, Faults::new(0)).await.context("starting the fault layer")?;
    // A consumer for each case: the subscriptions of the one before are not taken over.
    let name = if case == BYTES_PUSHED { "bytes" } else { "json" };
    let options = format!(
        "{}, scan.startup.mode = 'earliest', kinesis.consumer.mode = 'efo', kinesis.consumer.name = '{name}-{{sink}}'",
        Bench::kinesis_at(&proxy.url(), stream)
    );
    let source = if case == BYTES_PUSHED { bytes(&options) } else { json(&options) };
    worker(bench, report, case, Aim::None, [&source, BLACKHOLE]).await
}

/// One of the loops beside, in a process of its own.
async fn beside(bench: &Bench, report: &mut Report, name: &str, command: &str) -> Result<()> {
    let stream = bench.full().await?;
    let start = Instant::now();
    let mut child = Command::new(std::env::current_exe()?);
    child.args([command, "--endpoint", &bench.endpoint.url, "--stream", stream]);
    child.args(["--records", &bench.args.records.to_string()]).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = child.kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "{name} failed");
    let used: probe::Used = serde_json::from_slice(&output.stdout).context("its figures")?;
    report.throughput(Throughput {
        case: name.to_owned(),
        cpu_seconds_per_million: Judged::new(used.cpu_seconds * 1e6 / used.records as f64, Aim::None),
        peak_memory: Judged::new(used.peak, Aim::None),
        records: used.records,
        wall_seconds: start.elapsed().as_secs_f64(),
    });
    Ok(())
}

/// A worker that reads the full stream once; its CPU counts from the statement that makes the sink.
async fn worker(
    bench: &Bench,
    report: &mut Report,
    name: &str,
    aim: Aim,
    statements: [&str; 2],
) -> Result<()> {
    let mut cluster = bench.cluster().await?;
    cluster.worker("w").await?;
    cluster.sql(statements[0]).await?;
    let pid = cluster.workers["w"].pid();
    let (before, start) = (probe::cpu_seconds(pid)?, Instant::now());
    cluster.sql(statements[1]).await?;
    cluster.delivered(bench.args.records).await?;
    let (cpu, wall) = (probe::cpu_seconds(pid)? - before, start.elapsed().as_secs_f64());
    report.throughput(Throughput {
        case: name.to_owned(),
        cpu_seconds_per_million: Judged::new(cpu * 1e6 / bench.args.records as f64, aim),
        peak_memory: Judged::new(probe::memory(pid)?.peak, MEMORY),
        records: bench.args.records,
        wall_seconds: wall,
    });
    Ok(())
}
