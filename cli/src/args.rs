//! What may be typed, and who does it.

use std::io::Write;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    failure::Failure,
    inspect::{self, DrainArgs, EventsArgs, Explain},
    reset::{self, ResetArgs},
    role::{self, CoordinatorArgs, StandaloneArgs, WorkerArgs},
    sql::{self, SqlArgs},
    status::{self, StatusArgs},
};

/// A distributed connector cluster for Amazon Kinesis.
#[derive(Parser, Debug)]
#[command(name = "shardwright", version = env!("SHARDWRIGHT_VERSION"), propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Coordinators to ask, separated by commas: the first that answers is taken
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SHARDWRIGHT_SERVER",
        default_value = "http://127.0.0.1:7070"
    )]
    server: String,
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
    /// Print the completion script of a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// Does what was typed.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let server = cli.server.as_str();
    match cli.command {
        Command::Standalone(args) => role::standalone(args).await,
        Command::Coordinator(args) => role::coordinator(args).await,
        Command::Worker(args) => role::worker(args).await,
        Command::Settings => role::list_settings(),
        Command::Sql(args) => sql::run(args, server).await,
        Command::Status(args) => status::run(args, server).await,
        Command::Explain(what) => inspect::explain(what, server).await,
        Command::Drain(args) => inspect::drain(args, server).await,
        Command::Reset(args) => reset::run(args, server).await,
        Command::Events(args) => inspect::events(args, server).await,
        Command::Completions { shell } => completions(shell),
    }
}

fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "shardwright", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(())
}
