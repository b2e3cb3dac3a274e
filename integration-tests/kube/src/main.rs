//! `make upgrade-test`: the chart's pods as processes of this machine, under load, through a rolling upgrade, the leader's orderly and
//! sudden end, and the crash of a worker. Exit code 1 if anything was lost or out of order.

use std::process::ExitCode;

use clap::Parser;
use shardwright_kube::trial::{self, Extent};

/// A rolling upgrade of the chart's pods under load, on this machine.
#[derive(Parser)]
struct Args {
    /// Workers
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// Seconds that a pod must have been ready before the next one is replaced
    #[arg(long, default_value_t = 5)]
    min_ready: u64,
    /// Seconds between a coordinator's leaving its service and its SIGTERM
    #[arg(long, default_value_t = 3)]
    pre_stop: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let args = Args::parse();
    let dir = std::env::temp_dir().join(format!("shardwright-upgrade-{}", std::process::id()));
    if let Err(error) = std::fs::create_dir_all(&dir) {
        eprintln!("kube: {}: {error}", dir.display());
        return ExitCode::FAILURE;
    }
    let extent =
        Extent { workers: args.workers, min_ready: args.min_ready, pre_stop: args.pre_stop, whole: true };
    let ran = tokio::select! {
        ran = trial::run(&dir, extent) => ran,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match ran {
        Ok(report) => {
            println!("{report}");
            if report.balances() {
                std::fs::remove_dir_all(&dir).ok();
                return ExitCode::SUCCESS;
            }
            println!("the logs are in {}", dir.join("logs").display());
        }
        Err(error) => println!("kube: {error:#}\nthe logs are in {}", dir.join("logs").display()),
    }
    ExitCode::FAILURE
}
