//! `sim`: runs simulated clusters, each seed in a process of its own.

use std::{io::Write as _, process::ExitCode, time::Instant};

use clap::Parser;
use shardwright_sim::{
    cluster::Cluster,
    faults::Script,
    os,
    runner::{self, Said},
    trial,
};

/// Runs simulated clusters.
#[derive(Parser)]
struct Args {
    /// One seed, in this process: its ledgers, and its trace's hash last.
    #[arg(long)]
    seed: Option<u64>,
    /// Only the first so many faults of it.
    #[arg(long)]
    faults: Option<usize>,
    /// Tells the whole story.
    #[arg(long)]
    story: bool,
    /// Shows the processes' logs: a filter, as `RUST_LOG` would be.
    #[arg(long)]
    log: Option<String>,
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.seed {
        Some(seed) => one(seed, &args),
        None => many(&args),
    }
}

/// Runs one seed here.
fn one(seed: u64, args: &Args) -> ExitCode {
    if let Some(filter) = &args.log {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let script = Script::of(seed).prefix(args.faults.unwrap_or(usize::MAX));
    os::enter(seed);
    let mut cluster = Cluster::new(script);
    let outcome = trial::run(&mut cluster);
    let trace = cluster.net().trace();
    if args.story {
        for line in trace.lines() {
            println!("{line}");
        }
    }
    for (name, verdict) in &outcome.ledgers {
        println!("ledger: {name}: {verdict}");
    }
    for failure in &outcome.failures {
        println!("failure: {failure}");
    }
    println!(
        "simulated {:.1} s, settled {:.1?} after healing",
        outcome.lasted.as_secs_f64(),
        outcome.settled
    );
    println!("trace {:016x}", trace.hash());
    let _ = std::io::stdout().flush();
    // Without running what is left of the simulated processes.
    std::process::exit(i32::from(!outcome.failures.is_empty()));
}

fn seed(seed: u64, faults: Option<usize>) -> Said {
    let mut args = vec!["--seed".to_owned(), seed.to_string()];
    args.extend(faults.iter().flat_map(|count| ["--faults".to_owned(), count.to_string()]));
    runner::child(&args, &[])
}

/// Runs a range, some at a time.
fn many(args: &Args) -> ExitCode {
    let began = Instant::now();
    let mut failed = Vec::new();
    runner::each(
        args.from..args.from + args.seeds,
        args.jobs,
        |number| (number, seed(number, None)),
        |(number, said)| {
            if !said.well {
                println!("seed {number}: failed");
                failed.push((number, said.text));
            }
        },
    );
    for (number, text) in &failed {
        println!("\nseed {number}:\n{text}");
    }
    if let Some((first, _)) = failed.first() {
        shorten(*first);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("sim: {} seeds, {} failed, {seconds:.0} s", args.seeds, failed.len());
    ExitCode::from(u8::from(!failed.is_empty()))
}

/// So much of a story is told unasked.
const STORY_LINES: usize = 80;

/// Finds the shortest prefix of a seed's faults that still fails, and tells the end of its story.
fn shorten(number: u64) {
    let all = Script::of(number).faults.len();
    let shortest = (0..=all).find(|count| !seed(number, Some(*count)).well).unwrap_or(all);
    println!("\nseed {number} fails with its first {shortest} of {all} faults:");
    for (at, fault) in Script::of(number).prefix(shortest).faults {
        println!("  {:>8.3} {fault}", at.as_secs_f64());
    }
    let args = ["--seed", &number.to_string(), "--faults", &shortest.to_string(), "--story"];
    let told = runner::child(&args.map(ToOwned::to_owned), &[]).text;
    let lines: Vec<&str> = told.lines().collect();
    println!("\nthe end of its story (all of it: make sim SEED={number} FAULTS={shortest} STORY=1):");
    for line in lines.iter().skip(lines.len().saturating_sub(STORY_LINES)) {
        println!("{line}");
    }
}
