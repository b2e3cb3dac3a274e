//! What may be typed, and who does it.

use std::io::Write;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    backup::{self, BackupArgs, RestoreArgs},
    bundle::{self, BundleArgs},
    check::{self, CheckArgs},
    client::Target,
    failure::Failure,
    inspect::{self, DrainArgs, EventsArgs, Explain},
    reset::{self, ResetArgs},
    role::{self, CoordinatorArgs, StandaloneArgs, WorkerArgs},
    secrets::{self, Secrets},
    selftest::{self, SelftestArgs},
    sql::{self, SqlArgs},
    status::{self, StatusArgs},
};

/// A distributed connector cluster for Amazon Kinesis.
#[derive(Parser, Debug)]
#[command(name = "shardwright", version = env!("SHARDWRIGHT_VERSION"), propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a coordinator and a worker in one process: the quickest way in
    Standalone(StandaloneArgs),
    /// Run a coordinator
    Coordinator(CoordinatorArgs),
    /// Run a worker
    Worker(WorkerArgs),
    /// List every setting: its key in the config file and its variable
    Settings,
    /// Run SQL statements: from the keyboard, -c, -f or a pipe
    Sql(SqlArgs),
    /// Show workers, sources, sinks and splits
    Status(StatusArgs),
    /// Explain why something is as it is
    #[command(subcommand)]
    Explain(Explain),
    /// Hand all tasks of a worker to others
    Drain(DrainArgs),
    /// Move the positions of a paused sink
    Reset(ResetArgs),
    /// Tell what happened
    Events(EventsArgs),
    /// Look whether everything that the settings name is there and lets us in
    Check(CheckArgs),
    /// Move records through the cluster, from a source that makes them to a sink that forgets them, and count
    Selftest(SelftestArgs),
    /// Collect what somebody who helps wants to see, without secrets
    SupportBundle(BundleArgs),
    /// Copy the catalog and the positions of a cluster into a file
    Backup(BackupArgs),
    /// Put a backup back, while no coordinator runs
    Restore(RestoreArgs),
    /// The key that encrypts the secrets of the catalog, and how they are stored
    #[command(subcommand)]
    Secrets(Secrets),
    /// Print the completion script of a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// Does what was typed.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let target = &cli.target;
    match cli.command {
        Command::Standalone(args) => role::standalone(args).await,
        Command::Coordinator(args) => role::coordinator(args).await,
        Command::Worker(args) => role::worker(args).await,
        Command::Settings => role::list_settings(),
        Command::Sql(args) => sql::run(args, target).await,
        Command::Status(args) => status::run(args, target).await,
        Command::Explain(what) => inspect::explain(what, target).await,
        Command::Drain(args) => inspect::drain(args, target).await,
        Command::Reset(args) => reset::run(args, target).await,
        Command::Events(args) => inspect::events(args, target).await,
        Command::Check(args) => check::run(args, target).await,
        Command::Selftest(args) => selftest::run(args, target).await,
        Command::SupportBundle(args) => bundle::run(args, target).await,
        Command::Backup(args) => backup::backup(args).await,
        Command::Restore(args) => backup::restore(args).await,
        Command::Secrets(what) => secrets::run(what, target).await,
        Command::Completions { shell } => completions(shell),
    }
}

fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "shardwright", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(())
}
