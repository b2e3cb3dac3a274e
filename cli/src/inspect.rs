//! The small commands: one split explained, a worker drained, the events told.

use std::{io::Write, time::Duration};

use crate::{
    client::{self, Admin, Patience, Target},
    failure::{self, Failure, Stopped},
    grid::Format,
    status::{age, split_grid},
};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use proto::v1::{
    DescribeSplitReply, DescribeSplitRequest, DrainWorkerRequest, Event, SplitStatus, WatchEventsRequest,
};
use serde_json::json;

/// Between two attempts to follow the events after a break.
const FOLLOW_PAUSE: Duration = Duration::from_secs(1);

/// Explain why something is as it is.
#[derive(Subcommand, Debug)]
pub enum Explain {
    /// What a split does for each sink, and what it waits for
    Split {
        /// Name of the source
        source: String,
        /// Name of the split: the shard id
        split: String,
        /// How it is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        patience: Patience,
    },
}

/// Hand all tasks of a worker to others.
#[derive(Args, Debug)]
pub struct DrainArgs {
    /// Name of the worker
    worker: String,
    /// Let it take tasks again
    #[arg(long)]
    undo: bool,
    /// How long to wait until it is empty, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

/// Tell what happened.
#[derive(Args, Debug)]
pub struct EventsArgs {
    /// Go on telling, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only events after this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u64,
    /// How they are printed; `json` is one object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    patience: Patience,
}

/// `explain split`.
pub async fn explain(what: Explain, target: &Target) -> Result<(), Failure> {
    let Explain::Split { source, split, format, patience } = what;
    let mut admin = client::connect(target).await?;
    let request = DescribeSplitRequest { source, split };
    let DescribeSplitReply { sinks } = client::ask(patience, admin.describe_split(request)).await?;
    let mut out = std::io::stdout().lock();
    if format != Format::Table {
        split_grid(&sinks).print(format, &mut out)?;
        return Ok(());
    }
    if sinks.is_empty() {
        writeln!(out, "no sink reads this split")?;
    }
    for sink in &sinks {
        explain_one(sink, &mut out)?;
    }
    Ok(())
}

fn explain_one(split: &SplitStatus, out: &mut impl Write) -> Result<(), Failure> {
    let mut say = |name: &str, value: &str| {
        if value.is_empty() { Ok(()) } else { writeln!(out, "  {name:<12} {value}") }
    };
    let span = |span: &Option<prost_types::Duration>| {
        span.as_ref().map_or_else(String::new, |span| age(crate::status::milliseconds(span)))
    };
    say("sink", &split.sink)?;
    say("state", &split.state)?;
    say("gap", &split.gap)?;
    say("waits for", &split.waits_for)?;
    say("advice", &split.advice)?;
    say("worker", &split.worker)?;
    say("epoch", &split.epoch)?;
    say("position", &split.position)?;
    say("checkpoint", &span(&split.checkpoint_age))?;
    say("lag", &split.lag_ms.map_or_else(String::new, age))?;
    say(
        "rate",
        &format!("{:.1} records/s, {:.0} bytes/s", split.records_per_second, split.bytes_per_second),
    )?;
    say("records", &split.records.to_string())?;
    say("last error", &split.error)?;
    say("next retry", &span(&split.next_retry))?;
    say("parents", &split.parents.join(", "))?;
    if !split.hash_first.is_empty() {
        say("hash range", &format!("{} … {}", split.hash_first, split.hash_last))?;
    }
    writeln!(out)?;
    Ok(())
}

/// `drain`.
pub async fn drain(args: DrainArgs, target: &Target) -> Result<(), Failure> {
    let mut admin = client::connect(target).await?;
    let request = DrainWorkerRequest { worker: args.worker.clone(), undo: args.undo };
    let deadline = Duration::from_secs(args.timeout.max(1));
    match client::within(deadline, empty(&mut admin, request)).await {
        Ok(()) => {}
        Err(Stopped::Call(status)) => return Err(Failure::of_status(&status, None)),
        Err(Stopped::Output(failure)) => return Err(failure),
    }
    let done = if args.undo { "takes tasks again" } else { "is empty" };
    writeln!(std::io::stdout(), "worker {} {done}", args.worker)?;
    Ok(())
}

async fn empty(admin: &mut Admin, request: DrainWorkerRequest) -> Result<(), Stopped> {
    let mut progress = admin.drain_worker(request).await?.into_inner();
    while let Some(step) = progress.message().await? {
        if step.tasks_left > 0 {
            let because = if step.waits_for.is_empty() { "" } else { ": " };
            let line = format!("{} tasks left{because}{}", step.tasks_left, step.waits_for);
            writeln!(std::io::stdout(), "{line}").map_err(Failure::from)?;
        }
    }
    Ok(())
}

/// `events`.
pub async fn events(args: EventsArgs, target: &Target) -> Result<(), Failure> {
    let mut admin = client::connect(target).await?;
    let mut after = args.after;
    loop {
        let telling = tell(&args, &mut admin, &mut after);
        let ended = if args.follow { telling.await } else { client::look(args.patience, telling).await };
        match ended {
            Err(Stopped::Call(status)) if args.follow && failure::unreachable(&status) => {
                tokio::time::sleep(FOLLOW_PAUSE).await;
                if let Ok(again) = client::connect(target).await {
                    admin = again;
                }
            }
            // The server closes the stream when another one leads.
            Ok(()) if args.follow => tokio::time::sleep(FOLLOW_PAUSE).await,
            Ok(()) => return Ok(()),
            Err(Stopped::Call(status)) => return Err(client::silent(&status)),
            Err(Stopped::Output(failure)) => return Err(failure),
        }
    }
}

async fn tell(args: &EventsArgs, admin: &mut Admin, after: &mut u64) -> Result<(), Stopped> {
    let request = WatchEventsRequest { after_event: *after, follow: args.follow };
    let mut events = admin.watch_events(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        print(&event, args.format)?;
        *after = event.number;
    }
    Ok(())
}

/// An event for programs.
pub(crate) fn event_json(event: &Event) -> serde_json::Value {
    let labels: std::collections::BTreeMap<&String, &String> = event.labels.iter().collect();
    json!({
        "number": event.number, "at": at(event), "level": event.level, "kind": event.kind,
        "message": event.message, "labels": labels,
    })
}

fn at(event: &Event) -> String {
    let at = DateTime::<Utc>::from_timestamp_millis(event.at_ms).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn print(event: &Event, format: Format) -> Result<(), Failure> {
    let at = at(event);
    let mut labels: Vec<(&String, &String)> = event.labels.iter().collect();
    labels.sort();
    let mut out = std::io::stdout().lock();
    match format {
        Format::Table => {
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            writeln!(
                out,
                "{at} {:<5} {:<16} {}  {}",
                event.level,
                event.kind,
                event.message,
                labels.join(" ")
            )?;
        }
        Format::Json => {
            writeln!(out, "{}", event_json(event))?;
        }
        Format::Csv => {
            let message = event.message.replace('"', "\"\"");
            writeln!(out, "{},{at},{},{},\"{message}\"", event.number, event.level, event.kind)?;
        }
    }
    out.flush()?;
    Ok(())
}
