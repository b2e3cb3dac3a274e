//! `shardwright reset`: moves the positions of a paused sink. The leader waits until nothing of its runs can land, and the next
//! run of each split is a new epoch (I4, P6).

use std::{io::Write, time::Duration};

use chrono::{DateTime, Utc};
use clap::{ArgGroup, Args};
use proto::v1::{ResetPositionRequest, reset_position_request::To};

use crate::{
    client::{self, Target},
    failure::Failure,
};

/// Move the positions of a paused sink: backwards delivers again, forwards leaves records out.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("to").required(true).args(["earliest", "timestamp", "after"]))]
pub struct ResetArgs {
    /// Name of the sink; pause it first: ALTER SINK name PAUSE
    sink: String,
    /// Only this split (the shard id); without it every split that the source lists
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// To the oldest record that is still there
    #[arg(long)]
    earliest: bool,
    /// To the first record that arrived at or after this moment, for example 2026-01-31T12:00:00Z
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    timestamp: Option<DateTime<Utc>>,
    /// Just after this sequence number; needs --split
    #[arg(long, value_name = "NUMBER", requires = "split")]
    after: Option<String>,
    /// How long to wait until the sink's runs have ended, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    let parsed = DateTime::parse_from_rfc3339(text);
    parsed.map(|at| at.to_utc()).map_err(|error| format!("{error}; write it like 2026-01-31T12:00:00Z"))
}

/// Asks for it and says how many positions moved.
pub async fn run(args: ResetArgs, target: &Target) -> Result<(), Failure> {
    let to = match (&args.after, args.timestamp) {
        (Some(cursor), _) => To::AfterCursor(cursor.clone()),
        (None, Some(at)) => To::TimestampMs(at.timestamp_millis()),
        (None, None) => To::Horizon(args.earliest),
    };
    let mut admin = client::connect(target).await?;
    let split = args.split.unwrap_or_default();
    let request = ResetPositionRequest { sink: args.sink.clone(), split, to: Some(to) };
    let deadline = Duration::from_secs(args.timeout.max(1));
    let reply = client::within(deadline, admin.reset_position(request)).await;
    let reply = reply.map_err(|status| Failure::of_status(&status, None))?.into_inner();
    let word = if reply.tasks == 1 { "position" } else { "positions" };
    writeln!(
        std::io::stdout(),
        "sink {}: {} {word} reset; ALTER SINK {} RESUME goes on from there",
        args.sink,
        reply.tasks,
        args.sink
    )?;
    Ok(())
}
