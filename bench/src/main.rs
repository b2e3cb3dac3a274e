//! The benchmark: what a record costs, what rest costs, and how long things take to heal.
//!
//! `run` starts every measured thing as a process of its own and reads its CPU time and memory from `/proc`: a Kinesis endpoint
//! in memory, two loops to compare with (`limit` and `sdk`, this same binary), and the real `shardwright` coordinator and
//! worker. It prints tables and writes JSON. Nothing here is asserted: figures belong to a machine.

mod cluster;
mod crowd;
mod endpoint;
mod fake_worker;
mod handover;
mod heal;
mod kafka;
mod limit;
mod live;
mod probe;
mod reads;
mod ready;
mod report;
mod rest;
mod scale;
mod scrape;
mod sdk;
mod simulated;
mod telemetry;
mod throughput;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures Shardwright beside a bare loop and the plain SDK.
#[derive(Parser)]
struct Bench {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Measure everything (the default)
    Run(RunArgs),
    /// Be the Kinesis endpoint; prints its URL
    ServeKinesis,
    /// Be the bare loop: read a stream once and print what it cost
    Limit(ReadArgs),
    /// Be the plain SDK loop: read a stream once and print what it cost
    Sdk(ReadArgs),
}

/// What `run` measures.
#[derive(clap::Args, Clone)]
pub(crate) struct RunArgs {
    /// Records of 562 bytes
    #[arg(long, env = "SHARDWRIGHT_BENCH_RECORDS", default_value_t = 400_000)]
    records: u64,
    /// Seconds that a process at rest is watched
    #[arg(long, env = "SHARDWRIGHT_BENCH_REST", default_value_t = 20)]
    rest: u64,
    /// How many workers are killed
    #[arg(long, env = "SHARDWRIGHT_BENCH_KILLS", default_value_t = 10)]
    kills: u32,
    /// How many splits must heal, at least, of a fault that hits a worker; how often one is repeated that hits all of them
    #[arg(long, env = "SHARDWRIGHT_BENCH_FAULTS", default_value_t = 20)]
    faults: u32,
    /// Seeds of the simulation
    #[arg(long, env = "SHARDWRIGHT_BENCH_SEEDS", default_value_t = 20)]
    seeds: u64,
    /// Bootstrap servers of a Kafka; without them one is started for its case
    #[arg(long, env = "SHARDWRIGHT_BENCH_KAFKA")]
    kafka: Option<String>,
    /// What starts and stops a Kafka: `start --port P --data DIR --while PID`, `stop --data DIR`
    #[arg(long, default_value = "scripts/servers/kafka")]
    kafka_script: PathBuf,
    /// The `shardwright` binary; the one beside this one if absent
    #[arg(long, env = "SHARDWRIGHT_BIN")]
    binary: Option<PathBuf>,
    /// Only cases whose name contains this
    #[arg(long, env = "SHARDWRIGHT_BENCH_ONLY", default_value = "")]
    only: String,
    /// Where the JSON goes
    #[arg(long, default_value = "bench/results/latest.json")]
    json: PathBuf,
}

/// What the loops read.
#[derive(clap::Args)]
pub(crate) struct ReadArgs {
    /// URL of the endpoint
    #[arg(long)]
    endpoint: String,
    /// The stream
    #[arg(long)]
    stream: String,
    /// How many records it holds
    #[arg(long)]
    records: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    match dispatch().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ERROR: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn dispatch() -> Result<()> {
    match Bench::parse().command {
        Some(Command::Run(args)) => run(args).await,
        None => run(RunArgs::parse_from_env()).await,
        Some(Command::ServeKinesis) => endpoint::serve().await,
        Some(Command::Limit(args)) => limit::run(&args).await,
        Some(Command::Sdk(args)) => sdk::run(&args).await,
    }
}

impl RunArgs {
    fn parse_from_env() -> Self {
        match Bench::parse_from(["bench", "run"]).command {
            Some(Command::Run(args)) => args,
            _ => unreachable!("`run` was said"),
        }
    }
}

async fn run(args: RunArgs) -> Result<()> {
    let bench = cluster::Bench::prepare(args).await?;
    let mut report = report::Report::new();
    throughput::measure(&bench, &mut report).await;
    telemetry::measure(&bench, &mut report).await;
    rest::measure(&bench, &mut report).await;
    ready::measure(&bench, &mut report).await;
    crowd::measure(&bench, &mut report).await;
    scale::measure(&bench, &mut report).await;
    let outcome = handover::measure(&bench, &mut report).await;
    report.outcome("handover", outcome);
    heal::measure(&bench, &mut report).await;
    simulated::measure(&bench, &mut report).await;
    report.print();
    report.write(&bench.args.json)
}
