//! A status as tables, as JSON, or its splits as CSV.

use std::io::{self, Write};

use proto::v1::{SinkStatus, SourceStatus, SplitStatus, StatusReply, WorkerStatus};
use serde_json::json;

use crate::grid::{Cell, Format, Grid, Kind};

/// Prints a status. With `splits_max`, only so many splits, those that need a look first.
pub(super) fn draw(
    status: &StatusReply,
    format: Format,
    splits_max: Option<usize>,
    out: &mut impl Write,
) -> io::Result<()> {
    match format {
        Format::Table => draw_tables(status, splits_max, out),
        Format::Json => writeln!(out, "{}", to_json(status)),
        Format::Csv => split_grid(&status.splits).print(Format::Csv, out),
    }
}

pub(crate) fn to_json(status: &StatusReply) -> serde_json::Value {
    json!({
        "cluster": status.cluster,
        "leader": status.leader,
        "leader_revision": status.leader_revision,
        "store": status.store,
        "warnings": status.warnings,
        "workers": worker_grid(&status.workers).to_json(),
        "sources": source_grid(&status.sources).to_json(),
        "sinks": sink_grid(&status.sinks).to_json(),
        "splits": split_grid(&status.splits).to_json(),
    })
}

fn draw_tables(status: &StatusReply, splits_max: Option<usize>, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "cluster {} · leader {} (revision {}) · store {}",
        status.cluster, status.leader, status.leader_revision, status.store
    )?;
    for warning in &status.warnings {
        writeln!(out, "WARNING:  {warning}")?;
    }
    section("workers", &worker_grid(&status.workers), out)?;
    section("sources", &source_grid(&status.sources), out)?;
    section("sinks", &sink_grid(&status.sinks), out)?;
    let mut splits: Vec<SplitStatus> = status.splits.clone();
    let Some(most) = splits_max.filter(|most| splits.len() > *most) else {
        return section("splits", &split_grid(&splits), out);
    };
    // What reads without trouble needs no look; of the rest, the one furthest behind needs it most.
    let calm = |split: &SplitStatus| {
        matches!(split.state.as_str(), "reading" | "writing" | "drained") && split.error.is_empty()
    };
    splits.sort_by_key(|split| (calm(split), std::cmp::Reverse(split.lag_ms)));
    let left_out = splits.len() - most;
    splits.truncate(most);
    section("splits", &split_grid(&splits), out)?;
    writeln!(out, "… and {left_out} more; --source or --sink narrows it down")
}

fn section(title: &str, grid: &Grid, out: &mut impl Write) -> io::Result<()> {
    writeln!(out)?;
    if grid.len() == 0 {
        return writeln!(out, "no {title}");
    }
    writeln!(out, "{title} ({})", grid.len())?;
    grid.print_table(out)
}

fn worker_grid(workers: &[WorkerStatus]) -> Grid {
    let mut grid = Grid::new(&[
        ("name", Kind::Text),
        ("state", Kind::Text),
        ("tasks", Kind::Number),
        ("capacity", Kind::Number),
        ("heard_ms_ago", Kind::Number),
        ("budget_used", Kind::Number),
        ("budget_size", Kind::Number),
        ("zone", Kind::Text),
        ("version", Kind::Text),
    ]);
    for worker in workers {
        grid.push(vec![
            Cell::new(&worker.name),
            Cell::new(&worker.state),
            Cell::new(worker.tasks),
            Cell::new(worker.capacity),
            duration(worker.heard_ago.as_ref()),
            bytes(worker.budget_used),
            bytes(worker.budget_size),
            Cell::new(&worker.zone),
            Cell::new(&worker.version),
        ]);
    }
    grid
}

fn source_grid(sources: &[SourceStatus]) -> Grid {
    let mut grid = Grid::new(&[
        ("name", Kind::Text),
        ("connector", Kind::Text),
        ("splits_open", Kind::Number),
        ("splits_closed", Kind::Number),
        ("discovered_ms_ago", Kind::Number),
        ("error", Kind::Text),
    ]);
    for source in sources {
        grid.push(vec![
            Cell::new(&source.name),
            Cell::new(&source.connector),
            Cell::new(source.splits_open),
            Cell::new(source.splits_closed),
            duration(source.discovered_ago.as_ref()),
            Cell::new(&source.error),
        ]);
    }
    grid
}

fn sink_grid(sinks: &[SinkStatus]) -> Grid {
    let mut grid = Grid::new(&[
        ("name", Kind::Text),
        ("source", Kind::Text),
        ("connector", Kind::Text),
        ("state", Kind::Text),
        ("lag_ms", Kind::Number),
        ("records_per_second", Kind::Number),
        ("records", Kind::Number),
        ("skipped", Kind::Number),
        ("dead_lettered", Kind::Number),
        ("error", Kind::Text),
    ]);
    for sink in sinks {
        grid.push(vec![
            Cell::new(&sink.name),
            Cell::new(&sink.source),
            Cell::new(&sink.connector),
            Cell::new(&sink.state),
            Cell::new(sink.lag_ms_max).shown(age(sink.lag_ms_max)),
            rate(sink.records_per_second),
            Cell::new(sink.records),
            Cell::new(sink.skipped),
            Cell::new(sink.dead_lettered),
            Cell::new(&sink.error),
        ]);
    }
    grid
}

/// Splits as a table.
pub(crate) fn split_grid(splits: &[SplitStatus]) -> Grid {
    let mut grid = Grid::new(&[
        ("source", Kind::Text),
        ("sink", Kind::Text),
        ("split", Kind::Text),
        ("state", Kind::Text),
        ("worker", Kind::Text),
        ("epoch", Kind::Text),
        ("lag_ms", Kind::Number),
        ("records_per_second", Kind::Number),
        ("records", Kind::Number),
        ("reason", Kind::Text),
    ]);
    for split in splits {
        grid.push(vec![
            Cell::new(&split.source),
            Cell::new(&split.sink),
            Cell::new(&split.split),
            Cell::new(&split.state),
            Cell::new(&split.worker),
            Cell::new(&split.epoch),
            Cell::maybe(split.lag_ms).shown(split.lag_ms.map_or_else(|| "-".to_owned(), age)),
            rate(split.records_per_second),
            Cell::new(split.records),
            Cell::new(reason(split)),
        ]);
    }
    grid
}

/// Why it is as it is: what is missing, else what it waits for, else its last error.
fn reason(split: &SplitStatus) -> &str {
    let reasons = [(split.state == "gap", &split.gap), (true, &split.waits_for), (true, &split.error)];
    reasons.into_iter().find(|(counts, text)| *counts && !text.is_empty()).map_or("", |(_, text)| text)
}

fn duration(span: Option<&prost_types::Duration>) -> Cell {
    let Some(milliseconds) = span.map(milliseconds) else { return Cell::default().shown("-") };
    Cell::new(milliseconds).shown(age(milliseconds))
}

/// A span of the wire in milliseconds; less than nothing is nothing.
pub(crate) fn milliseconds(span: &prost_types::Duration) -> u64 {
    let seconds = u64::try_from(span.seconds).unwrap_or(0);
    seconds.saturating_mul(1000) + u64::from(u32::try_from(span.nanos).unwrap_or(0) / 1_000_000)
}

fn rate(per_second: f64) -> Cell {
    Cell::new(per_second).shown(if per_second == 0.0 { "0".to_owned() } else { format!("{per_second:.1}") })
}

fn bytes(count: u64) -> Cell {
    let mebibytes = count >> 20;
    Cell::new(count).shown(if mebibytes > 0 {
        format!("{mebibytes} MiB")
    } else {
        format!("{} KiB", count >> 10)
    })
}

/// A span as people say it.
#[must_use]
pub(crate) fn age(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..60 => format!("{seconds}.{} s", milliseconds % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_in_two_units_at_most() {
        let said: Vec<String> = [0, 999, 1_250, 61_000, 3_661_000, 90_000_000].into_iter().map(age).collect();
        assert_eq!(said, ["0 ms", "999 ms", "1.2 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn a_short_screen_shows_what_needs_a_look_first() {
        let split = |name: &str, state: &str, lag_ms| SplitStatus {
            split: name.to_owned(),
            state: state.to_owned(),
            lag_ms,
            ..SplitStatus::default()
        };
        let status = StatusReply {
            splits: vec![
                split("calm", "reading", Some(9)),
                split("stuck", "retrying", Some(5)),
                split("late", "failed", Some(7)),
            ],
            ..StatusReply::default()
        };
        let mut out = Vec::new();
        draw(&status, Format::Table, Some(2), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.find("late").unwrap() < text.find("stuck").unwrap(), "{text}");
        assert!(!text.contains("calm") && text.contains("… and 1 more"), "{text}");
    }
}
