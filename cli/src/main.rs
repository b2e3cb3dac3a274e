//! `shardwright`: the roles of a cluster and the tools to look at it, in one binary.
//!
//! Exit codes: 0 fine · 1 refused or failed · 2 typed or configured wrong · 3 the server could not be reached ·
//! 4 not logged in, or not permitted.

mod args;
mod backup;
mod bundle;
mod check;
mod client;
mod failure;
mod grid;
mod inspect;
mod login;
mod reset;
mod role;
mod secrets;
mod selftest;
mod sql;
mod status;

use std::process::ExitCode;

use clap::Parser;
use failure::Failure;

fn main() -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let cli = args::Cli::parse();
    // A leader of thousands of tasks has long polls; sockets are looked at after a few of them, so that its lease is kept alive.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().event_interval(5).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return end(&Failure::Refused(format!("ERROR: cannot start threads: {error}"))),
    };
    let outcome = runtime.block_on(args::run(cli));
    // Reads of a terminal cannot be cancelled; nothing of ours is left to wait for.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => end(&failure),
    }
}

fn end(failure: &Failure) -> ExitCode {
    if *failure != Failure::OutputGone {
        eprintln!("{failure}");
    }
    ExitCode::from(failure.exit_code())
}
