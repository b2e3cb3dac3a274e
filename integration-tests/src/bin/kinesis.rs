//! `make kinesis`: a local Kinesis endpoint with one live stream, for trying things out. Everything is in memory.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Parser;
use shardwright_integration_tests::{
    endpoint::{self, Endpoint},
    load::{Load, Plan},
};

/// A local Kinesis endpoint with one live stream.
#[derive(Parser)]
struct Args {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:4567")]
    listen: SocketAddr,
    /// Name of the stream
    #[arg(long, default_value = "clicks")]
    stream: String,
    /// Its shards
    #[arg(long, default_value_t = 4)]
    shards: i32,
    /// Records a second that are put: {"key": …, "n": …, "filler": …}
    #[arg(long, default_value_t = 100)]
    per_second: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    match serve(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kinesis: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> Result<()> {
    let endpoint = Endpoint::listen(args.listen, endpoint::quick()).await?;
    let client = endpoint.client();
    endpoint::create_stream(&client, &args.stream, args.shards).await?;
    let plan = Plan { keys: 20, per_second: args.per_second, ..Plan::default() };
    let load = Load::start(client, &args.stream, plan);
    println!("a Kinesis endpoint listens on {}", endpoint.url());
    println!(
        "stream `{}` has {} shards and takes {} records a second",
        args.stream, args.shards, plan.per_second
    );
    println!("any access key will do; Ctrl-C ends it and forgets everything");
    let mut tick = tokio::time::interval(Duration::from_secs(10));
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            _ = tick.tick() => println!("{} records so far", load.sent()),
        }
    }
}
