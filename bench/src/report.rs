//! The figures, as tables for people and as JSON, each beside what we want of it.

use std::{fmt, path::Path};

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

/// What we want of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aim {
    /// Nothing: it is there to compare with.
    None,
    /// This or less.
    AtMost(f64),
    /// Less than this.
    Below(f64),
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            // Two places, as the figures have.
            Self::AtMost(most) => write!(f, "≤ {}", (most * 100.0).round() / 100.0),
            Self::Below(bound) => write!(f, "< {bound}"),
        }
    }
}

/// A value, the aim, and whether it was met.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Judged {
    value: f64,
    aim: Option<String>,
    met: Option<bool>,
}

impl Judged {
    /// Compares a value with its aim.
    pub(crate) fn new(value: f64, aim: Aim) -> Self {
        let met = match aim {
            Aim::None => None,
            Aim::AtMost(most) => Some(value <= most),
            Aim::Below(bound) => Some(value < bound),
        };
        Self { value, aim: met.map(|_| aim.to_string()), met }
    }

    /// `≤ 2: met`, or nothing where there is no aim.
    fn verdict(&self) -> String {
        match (&self.aim, self.met) {
            (Some(aim), Some(true)) => format!("{aim}: met"),
            (Some(aim), Some(false)) => format!("{aim}: **missed**"),
            _ => String::new(),
        }
    }
}

/// What records cost one process.
#[derive(Serialize)]
pub(crate) struct Throughput {
    /// Which case.
    pub(crate) case: String,
    /// CPU seconds for a million records.
    pub(crate) cpu_seconds_per_million: Judged,
    /// MiB.
    pub(crate) peak_memory: Judged,
    /// How many were read.
    pub(crate) records: u64,
    /// From the first request to the last delivery; readers that keep to Kinesis' quota (2 MB/s a shard) take their time.
    pub(crate) wall_seconds: f64,
}

/// One other figure.
#[derive(Serialize)]
struct Figure {
    name: String,
    unit: &'static str,
    #[serde(flatten)]
    judged: Judged,
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
        let (cpu, memory) = (&row.cpu_seconds_per_million, &row.peak_memory);
        eprintln!("{}: {:.2} CPU-s per million records, {:.0} MiB", row.case, cpu.value, memory.value);
        self.throughput.push(row);
    }

    /// Adds a figure, and says it.
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str, aim: Aim) {
        let (name, judged) = (name.into(), Judged::new(value, aim));
        eprintln!("{name}: {value:.3} {unit} {}", judged.verdict());
        self.figures.push(Figure { name, unit, judged });
    }

    /// The median, the 99th percentile, which is judged, and the largest of some spans in seconds.
    pub(crate) fn spread(&mut self, name: &str, mut seconds: Vec<f64>, aim: Aim) {
        seconds.sort_by(f64::total_cmp);
        let Some(most) = seconds.last().copied() else {
            return self.skip(name, "nothing was seen");
        };
        self.figure(format!("{name}, p50 of {}", seconds.len()), percentile(&seconds, 0.5), "s", Aim::None);
        self.figure(format!("{name}, p99"), percentile(&seconds, 0.99), "s", aim);
        self.figure(format!("{name}, max"), most, "s", Aim::None);
    }

    /// Takes what came of a case: its failure is told, counted, and no other case's.
    pub(crate) fn outcome(&mut self, case: &str, outcome: Result<()>) {
        if let Err(error) = outcome {
            let text = format!("{error:#}");
            let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
            eprintln!("{rest}");
            self.skip(case, first);
        }
    }

    /// Says what was not measured and why.
    fn skip(&mut self, case: &str, why: &str) {
        let line = format!("{case}: {why}");
        eprintln!("left out: {line}");
        self.skipped.push(line);
    }

    /// The tables, in Markdown.
    pub(crate) fn print(&self) {
        println!("\n{} · {} profile · {}\n", self.machine, self.profile, self.at);
        println!("| case | CPU-s per million records | aim | peak memory, MiB | aim | records | wall, s |");
        println!("|---|---:|---|---:|---|---:|---:|");
        for row in &self.throughput {
            let (cpu, memory) = (&row.cpu_seconds_per_million, &row.peak_memory);
            println!(
                "| {} | {:.2} | {} | {:.0} | {} | {} | {:.1} |",
                row.case,
                cpu.value,
                cpu.verdict(),
                memory.value,
                memory.verdict(),
                row.records,
                row.wall_seconds
            );
        }
        println!("\n| figure | value | aim |\n|---|---:|---|");
        for Figure { name, unit, judged } in &self.figures {
            println!("| {name} | {:.2} {unit} | {} |", judged.value, judged.verdict());
        }
        println!();
        for line in &self.skipped {
            println!("skipped: {line}");
        }
        let (met, missed) = self.aims();
        println!("bench: {met} aims met, {missed} missed, {} cases skipped", self.skipped.len());
    }

    /// How many aims were met and missed.
    fn aims(&self) -> (usize, usize) {
        let rows = self.throughput.iter().flat_map(|row| [&row.cpu_seconds_per_million, &row.peak_memory]);
        let verdicts: Vec<bool> =
            rows.chain(self.figures.iter().map(|figure| &figure.judged)).filter_map(|j| j.met).collect();
        let met = verdicts.iter().filter(|met| **met).count();
        (met, verdicts.len() - met)
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

/// The value below which this share of them lies, the nearest rank.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_says_whether_its_aim_was_met() {
        assert_eq!(Judged::new(2.0, Aim::AtMost(2.0)).verdict(), "≤ 2: met");
        assert_eq!(Judged::new(0.5, Aim::Below(0.5)).verdict(), "< 0.5: **missed**");
        assert_eq!(Judged::new(7.0, Aim::None).verdict(), "");
        let json = serde_json::to_value(Judged::new(2.5, Aim::AtMost(2.0))).unwrap();
        assert_eq!(json, serde_json::json!({"value": 2.5, "aim": "≤ 2", "met": false}));
    }

    #[test]
    fn a_failed_case_is_one_line_and_counted() {
        let mut report = Report::new();
        report.figure("a", 1.0, "s", Aim::Below(2.0));
        report.figure("b", 3.0, "s", Aim::Below(2.0));
        report.outcome("fine", Ok(()));
        report.outcome("broken", Err(anyhow::anyhow!("no such thing\nits log").context("starting it")));
        assert_eq!(report.skipped, ["broken: starting it: no such thing"]);
        assert_eq!(report.aims(), (1, 1));
    }
}
