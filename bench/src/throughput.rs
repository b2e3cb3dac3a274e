//! What a million records cost: the two loops beside, then the worker, each case with processes of its own.

use std::{process::Stdio, time::Instant};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::{
    cluster::Bench,
    endpoint, probe,
    report::{Report, Throughput},
};

/// Shards of every stream here.
const SHARDS: i32 = 8;

/// What the records hold.
pub(crate) const COLUMNS: &str = "id BIGINT, \"user\" VARCHAR, kind VARCHAR, at TIMESTAMPTZ, price DOUBLE PRECISION, ok BOOLEAN, \
     score DOUBLE PRECISION, note VARCHAR";

/// The stream that is full.
pub(crate) const FULL: &str = "bench-full";

/// Measures all cases that are asked for.
pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let client = bench.endpoint.client();
    endpoint::create_stream(&client, FULL, SHARDS).await?;
    let start = Instant::now();
    endpoint::fill(&client, FULL, bench.args.records).await?;
    eprintln!("{} records put in {:.1} s", bench.args.records, start.elapsed().as_secs_f64());
    for (name, command) in [("limit: bare loop", "limit"), ("sdk: aws-sdk-kinesis loop", "sdk")] {
        if bench.wants(name) {
            report.throughput(beside(bench, name, command).await?);
        }
    }
    let bytes =
        format!("CREATE SOURCE s (data BYTEA) WITH ({}) FORMAT PLAIN ENCODE BYTES", from_start(bench));
    let json = format!("CREATE SOURCE s ({COLUMNS}) WITH ({}) FORMAT PLAIN ENCODE JSON", from_start(bench));
    let blackhole = "CREATE SINK k FROM s WITH (connector = 'blackhole')".to_owned();
    let out = "bench-out";
    let kinesis = format!(
        "CREATE SINK k FROM s WITH ({}, primary_key = 'user') FORMAT PLAIN ENCODE JSON",
        bench.kinesis(out)
    );
    worker(bench, report, "worker: BYTES → blackhole", "≤ 2.0", [&bytes, &blackhole]).await?;
    worker(bench, report, "worker: JSON → blackhole", "≤ 3.0", [&json, &blackhole]).await?;
    if bench.wants("worker: JSON → JSON → Kinesis") {
        endpoint::create_stream(&client, out, SHARDS).await?;
    }
    worker(bench, report, "worker: JSON → JSON → Kinesis", "≤ 6.0", [&json, &kinesis]).await?;
    let Some(kafka) = &bench.args.kafka else {
        report.skip("worker: JSON → Kafka: no SHARDWRIGHT_BENCH_KAFKA (bootstrap servers)".to_owned());
        return Ok(());
    };
    let kafka = format!(
        "CREATE SINK k FROM s WITH (connector = 'kafka', properties.bootstrap.server = '{kafka}', topic = 'shardwright-bench', \
         primary_key = 'user') FORMAT PLAIN ENCODE JSON"
    );
    worker(bench, report, "worker: JSON → Kafka", "", [&json, &kafka]).await
}

/// The options of a source that reads the full stream from its start.
fn from_start(bench: &Bench) -> String {
    format!("{}, scan.startup.mode = 'earliest'", bench.kinesis(FULL))
}

/// One of the loops beside, in a process of its own.
async fn beside(bench: &Bench, name: &str, command: &str) -> Result<Throughput> {
    let start = Instant::now();
    let mut child = Command::new(std::env::current_exe()?);
    child.args([command, "--endpoint", &bench.endpoint.url, "--stream", FULL]);
    child.args(["--records", &bench.args.records.to_string()]).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = child.kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "{name} failed");
    let used: probe::Used = serde_json::from_slice(&output.stdout).context("its figures")?;
    Ok(Throughput {
        case: name.to_owned(),
        cpu_seconds_per_million: used.cpu_seconds * 1e6 / used.records as f64,
        peak_memory: used.peak,
        records: used.records,
        wall_seconds: start.elapsed().as_secs_f64(),
        aim: "",
    })
}

/// A worker that reads the full stream once; its CPU counts from the statement that makes the sink.
async fn worker(
    bench: &Bench,
    report: &mut Report,
    name: &str,
    aim: &'static str,
    statements: [&String; 2],
) -> Result<()> {
    if !bench.wants(name) {
        return Ok(());
    }
    let mut cluster = bench.cluster().await?;
    cluster.worker("w").await?;
    cluster.sql(statements[0]).await?;
    let pid = cluster.workers["w"].pid();
    let (before, start) = (probe::cpu_seconds(pid)?, Instant::now());
    cluster.sql(statements[1]).await?;
    cluster.delivered(bench.args.records).await.with_context(|| name.to_owned())?;
    let (cpu, wall) = (probe::cpu_seconds(pid)? - before, start.elapsed().as_secs_f64());
    report.throughput(Throughput {
        case: name.to_owned(),
        cpu_seconds_per_million: cpu * 1e6 / bench.args.records as f64,
        peak_memory: probe::memory(pid)?.peak,
        records: bench.args.records,
        wall_seconds: wall,
        aim,
    });
    Ok(())
}
