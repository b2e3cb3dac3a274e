//! Twenty rows: each scenario over a few seeds, each seed in a process of its own.

use std::{collections::BTreeMap, ops::Range, sync::Mutex};

use super::{Row, Scenario};
use crate::runner::{self, Said};

/// The seeds of one scenario, as far as they have ended.
#[derive(Default)]
struct Played {
    row: Row,
    count: u64,
    failed: Vec<(u64, String)>,
}

/// Plays these scenarios with these seeds, `jobs` at a time, and prints a row for each when it and those before it are done.
/// Returns whether all went well.
pub fn run(scenarios: &[Scenario], seeds: &Range<u64>, jobs: usize) -> bool {
    let plays = (0..scenarios.len()).flat_map(|at| seeds.clone().map(move |seed| (at, seed)));
    let played: Mutex<BTreeMap<usize, Played>> = Mutex::default();
    let mut printed = 0;
    let mut failures = Vec::new();
    runner::each(
        plays,
        jobs,
        |(at, seed)| (at, seed, child(scenarios[at], seed)),
        |(at, seed, said)| {
            let mut played = played.lock().expect("no thread panics");
            played.entry(at).or_default().add(seed, said);
            while let Some(done) = played.get(&printed).filter(|one| one.count == seeds.end - seeds.start) {
                println!("{}", line(scenarios[printed], done));
                failures
                    .extend(done.failed.iter().map(|(seed, text)| (scenarios[printed], *seed, text.clone())));
                printed += 1;
            }
        },
    );
    for (scenario, seed, text) in &failures {
        println!("\n{} with seed {seed}:\n{text}", scenario.name);
        println!("its story: make scenario NAME={} SEED={seed} STORY=1", scenario.name);
    }
    failures.is_empty()
}

impl Played {
    fn add(&mut self, seed: u64, said: Said) {
        self.count += 1;
        match said.text.lines().rev().find_map(Row::read) {
            Some(row) => {
                self.row = self.row.plus(row);
                if !said.well {
                    self.failed.push((seed, said.text));
                }
            }
            None => self.failed.push((seed, said.text)),
        }
    }
}

fn line(scenario: Scenario, played: &Played) -> String {
    let mut line = super::line(scenario, played.row);
    if !played.failed.is_empty() {
        let seeds: Vec<String> = played.failed.iter().map(|(seed, _)| seed.to_string()).collect();
        line.push_str(&format!(" | FAILED with seed {}", seeds.join(", ")));
    }
    line
}

fn child(scenario: Scenario, seed: u64) -> Said {
    let args = ["--scenario", scenario.name, "--seed", &seed.to_string()];
    runner::child(&args.map(str::to_owned), &[])
}
