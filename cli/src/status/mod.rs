//! `shardwright status`: the whole cluster on one screen, once or each second.

mod screen;

use std::{io::Write, time::Duration};

use clap::Args;
use proto::v1::{StatusReply, StatusRequest};

use crate::{
    client::{self, Admin, Patience, Target},
    failure::Failure,
    grid::Format,
};
pub(crate) use screen::{age, milliseconds, split_grid, to_json};

/// Between two drawings.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Rows of the table of splits that a watched screen has room for.
const WATCH_SPLITS_MAX: usize = 40;

/// Back to the upper left corner, and nothing below it.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Show workers, sources, sinks and splits.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Draw again each second, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Only splits of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only splits of this sink
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// How it is printed; `csv` prints the splits only
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    patience: Patience,
}

/// Asks and draws.
pub async fn run(args: StatusArgs, target: &Target) -> Result<(), Failure> {
    let mut admin = client::connect(target).await?;
    if args.watch {
        return watch(&args, &mut admin, target).await;
    }
    let status = ask(&args, &mut admin).await?;
    let mut out = std::io::stdout().lock();
    screen::draw(&status, args.format, None, &mut out)?;
    Ok(())
}

async fn ask(args: &StatusArgs, admin: &mut Admin) -> Result<StatusReply, Failure> {
    let mut status = client::ask(args.patience, admin.status(StatusRequest {})).await?;
    known("source", args.source.as_deref(), status.sources.iter().map(|source| source.name.as_str()))?;
    known("sink", args.sink.as_deref(), status.sinks.iter().map(|sink| sink.name.as_str()))?;
    let wanted = |asked: &Option<String>, name: &str| asked.as_deref().is_none_or(|asked| asked == name);
    status.splits.retain(|split| wanted(&args.source, &split.source) && wanted(&args.sink, &split.sink));
    Ok(status)
}

/// Refuses a name that nothing has.
fn known<'a>(
    kind: &str,
    asked: Option<&str>,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), Failure> {
    let Some(asked) = asked.filter(|asked| names.clone().all(|name| name != *asked)) else { return Ok(()) };
    let hint = match connector::nearest(asked, names) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => format!("; `shardwright status` lists every {kind}"),
    };
    Err(Failure::Refused(format!("ERROR: {kind} `{asked}` does not exist{hint}")))
}

/// Draws until somebody stops it; a server that goes away is said and waited for.
async fn watch(args: &StatusArgs, admin: &mut Admin, target: &Target) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    loop {
        ticks.tick().await;
        let mut frame = Vec::new();
        match ask(args, admin).await {
            Ok(status) => screen::draw(&status, args.format, Some(WATCH_SPLITS_MAX), &mut frame)?,
            Err(failure) => {
                writeln!(frame, "{failure}\nasking again each second")?;
                if let Ok(again) = client::connect(target).await {
                    *admin = again;
                }
            }
        }
        let mut out = std::io::stdout().lock();
        if args.format == Format::Table {
            out.write_all(CLEAR.as_bytes())?;
        }
        out.write_all(&frame)?;
        out.flush()?;
    }
}
