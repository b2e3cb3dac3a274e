//! `shardwright sql`: statements from `-c`, `-f`, a pipe or the keyboard; their answers on stdout, everything said about
//! them on stderr.
//!
//! A batch stops at the first statement that fails. Results are printed as they come.

mod masking;
mod repl;
mod splitting;

use std::{
    io::{IsTerminal, Read, Write},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use proto::v1::{ExecuteReply, ExecuteRequest, execute_reply::Answer};
use ulid::Ulid;

use crate::{
    client::{self, Admin, Target},
    failure::{self, Failure, Stopped},
    grid::{Format, Grid},
};

/// How often a call is made again when its connection breaks; the request id keeps it from being carried out twice.
const ATTEMPTS_MAX: usize = 4;

/// Between two attempts: a change of leader takes about three seconds.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);

/// Run SQL statements.
#[derive(Args, Debug)]
pub struct SqlArgs {
    /// Run these statements and leave; may be given several times
    #[arg(short, long, value_name = "SQL")]
    command: Vec<String>,
    /// Run the statements of a file and leave; `-` is stdin
    #[arg(short, long, value_name = "FILE", conflicts_with = "command")]
    file: Option<PathBuf>,
    /// How results are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// How long a batch of statements may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

/// Runs what was asked for.
pub async fn run(args: SqlArgs, target: &Target) -> Result<(), Failure> {
    let texts = match (&args.file, args.command.is_empty()) {
        (Some(path), _) => Some(vec![read(path)?]),
        (None, false) => Some(args.command.clone()),
        (None, true) if !std::io::stdin().is_terminal() => Some(vec![read(&PathBuf::from("-"))?]),
        (None, true) => None,
    };
    let admin = client::connect(target).await?;
    let mut session =
        Session { admin, format: args.format, deadline: Duration::from_secs(args.timeout.max(1)) };
    match texts {
        Some(texts) => {
            for text in texts {
                session.execute(&text).await?;
            }
            Ok(())
        }
        None => repl::run(session, target.server.clone()).await,
    }
}

fn read(path: &PathBuf) -> Result<String, Failure> {
    let mut text = String::new();
    let outcome = if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    outcome.map_err(|error| Failure::Usage(format!("ERROR: cannot read `{}`: {error}", path.display())))?;
    Ok(text)
}

/// A connection that runs statements and prints what comes of them.
#[derive(Clone)]
pub(crate) struct Session {
    admin: Admin,
    format: Format,
    deadline: Duration,
}

impl Session {
    /// Runs the statements of one text.
    pub(crate) async fn execute(&mut self, text: &str) -> Result<(), Failure> {
        if text.trim().is_empty() {
            return Ok(());
        }
        let request = ExecuteRequest { statement: text.to_owned(), request_id: Ulid::new().to_string() };
        match client::within(self.deadline, self.persist(&request)).await {
            Ok(()) => Ok(()),
            Err(Stopped::Output(failure)) => Err(failure),
            Err(Stopped::Call(status)) => Err(Failure::of_status(&status, Some(text))),
        }
    }

    /// Makes the call again while its connection breaks.
    async fn persist(&mut self, request: &ExecuteRequest) -> Result<(), Stopped> {
        let (mut printed, mut attempts) = (0, 1);
        loop {
            match self.attempt(request, &mut printed).await {
                Err(Stopped::Call(status)) if failure::unreachable(&status) && attempts < ATTEMPTS_MAX => {
                    attempts += 1;
                    tokio::time::sleep(ATTEMPT_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// One attempt; answers that an earlier attempt has printed (their number) are not printed again.
    async fn attempt(&mut self, request: &ExecuteRequest, printed: &mut usize) -> Result<(), Stopped> {
        let mut replies = self.admin.execute(request.clone()).await?.into_inner();
        let mut seen = 0;
        while let Some(reply) = replies.message().await? {
            seen += 1;
            if seen > *printed {
                self.print(reply)?;
                *printed = seen;
            }
        }
        Ok(())
    }

    fn print(&self, reply: ExecuteReply) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        match reply.answer {
            Some(Answer::Notice(text)) => eprintln!("NOTICE:  {text}"),
            Some(Answer::Rows(set)) => Grid::of_result(set).print(self.format, &mut out)?,
            // In the formats for programs stdout carries rows only.
            Some(Answer::Tag(tag)) if self.format == Format::Table => writeln!(out, "{tag}")?,
            Some(Answer::Tag(tag)) => eprintln!("{tag}"),
            None => {}
        }
        out.flush()?;
        Ok(())
    }
}
