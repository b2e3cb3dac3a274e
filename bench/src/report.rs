//! The figures, as tables for people and as JSON.

use std::path::Path;

use anyhow::{Context, Result};
use chrono::{SecondsFormat, Utc};
use serde::Serialize;

use crate::probe;

/// Everything that was measured.
#[derive(Serialize)]
pub(crate) struct Report {
    machine: String,
    at: String,
    profile: &'static str,
    throughput: Vec<Throughput>,
    figures: Vec<Figure>,
    skipped: Vec<String>,
}

/// What records cost one process.
#[derive(Serialize)]
pub(crate) struct Throughput {
    /// Which case.
    pub(crate) case: String,
    /// CPU seconds for a million records.
    pub(crate) cpu_seconds_per_million: f64,
    /// MiB.
    pub(crate) peak_memory: f64,
    /// How many were read.
    pub(crate) records: u64,
    /// From the first request to the last delivery; readers that keep to Kinesis' quota (2 MB/s a shard) take their time.
    pub(crate) wall_seconds: f64,
    /// What we want; empty for the loops beside.
    pub(crate) aim: &'static str,
}

/// One other figure.
#[derive(Serialize)]
pub(crate) struct Figure {
    /// What it is.
    pub(crate) name: String,
    /// How much.
    pub(crate) value: f64,
    /// Of what.
    pub(crate) unit: &'static str,
    /// What we want; empty where there is none.
    pub(crate) aim: &'static str,
}

impl Report {
    /// Without figures yet.
    pub(crate) fn new() -> Self {
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        let at = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
        let machine = probe::machine();
        Self { machine, at, profile, throughput: Vec::new(), figures: Vec::new(), skipped: Vec::new() }
    }

    /// Adds what records cost, and says it.
    pub(crate) fn throughput(&mut self, row: Throughput) {
        eprintln!(
            "{}: {:.2} CPU-s per million records, {:.0} MiB",
            row.case, row.cpu_seconds_per_million, row.peak_memory
        );
        self.throughput.push(row);
    }

    /// Adds a figure, and says it.
    pub(crate) fn figure(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        aim: &'static str,
    ) {
        let name = name.into();
        eprintln!("{name}: {value:.3} {unit}");
        self.figures.push(Figure { name, value, unit, aim });
    }

    /// The median, the 99th percentile and the largest of some spans in seconds.
    pub(crate) fn spread(&mut self, name: &str, mut seconds: Vec<f64>, aim: &'static str) {
        seconds.sort_by(f64::total_cmp);
        let Some(most) = seconds.last().copied() else {
            return self.skip(format!("{name}: nothing was seen"));
        };
        let at = |share: f64| seconds[((seconds.len() - 1) as f64 * share).round() as usize];
        self.figure(format!("{name}, p50 of {}", seconds.len()), at(0.5), "s", "");
        self.figure(format!("{name}, p99"), at(0.99), "s", aim);
        self.figure(format!("{name}, max"), most, "s", "");
    }

    /// Says what was not measured and why.
    pub(crate) fn skip(&mut self, line: String) {
        eprintln!("skipped: {line}");
        self.skipped.push(line);
    }

    /// The tables, in Markdown.
    pub(crate) fn print(&self) {
        println!("\n{} · {} profile · {}\n", self.machine, self.profile, self.at);
        println!("| case | CPU-s per million records | peak memory, MiB | records | wall, s | aim |");
        println!("|---|---:|---:|---:|---:|---|");
        for row in &self.throughput {
            println!(
                "| {} | {:.2} | {:.0} | {} | {:.1} | {} |",
                row.case,
                row.cpu_seconds_per_million,
                row.peak_memory,
                row.records,
                row.wall_seconds,
                row.aim
            );
        }
        println!("\n| figure | value | aim |\n|---|---:|---|");
        for Figure { name, value, unit, aim } in &self.figures {
            println!("| {name} | {value:.2} {unit} | {aim} |");
        }
        for line in &self.skipped {
            println!("\nskipped: {line}");
        }
    }

    /// Writes all of it as JSON.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", path.display()))?;
        println!("\nJSON: {}", path.display());
        Ok(())
    }
}
