//! `sim`: runs simulated clusters, each seed in a process of its own.

use std::{io::Write as _, process::ExitCode, time::Instant};

use clap::Parser;
use shardwright_sim::{
    cluster::Cluster,
    faults::Script,
    mutants, os,
    runner::{self, Said},
    scenario::{self, Scenario},
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
    /// How many seeds; 100, and 5 of a scenario.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Every deliberate defect: by which seed it is caught. Needs a build with them (`make mutants`).
    #[arg(long)]
    mutants: bool,
    /// Only this one; with a seed, the script that is made for it.
    #[arg(long)]
    mutant: Option<String>,
    /// All twenty scenarios (docs/kinesis.md), a row for each.
    #[arg(long)]
    scenarios: bool,
    /// Only this one, `S07`; with `--seed` in this process.
    #[arg(long)]
    scenario: Option<String>,
    /// How many at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let chosen = match &args.scenario {
        None if args.scenarios => scenario::ALL.to_vec(),
        None => Vec::new(),
        Some(name) => match scenario::named(name) {
            Some(scenario) => vec![scenario],
            None => {
                eprintln!("error: there is no scenario {name}");
                return ExitCode::from(2);
            }
        },
    };
    match (args.seed, chosen.as_slice()) {
        (Some(seed), &[scenario]) => scene(scenario, seed, &args),
        (Some(seed), _) => one(seed, &args),
        (None, []) if args.mutants => defects(&args),
        (None, []) => many(&args),
        (None, chosen) => {
            let seeds = args.from..args.from + args.seeds.unwrap_or(5);
            ExitCode::from(u8::from(!scenario::table::run(chosen, &seeds, args.jobs)))
        }
    }
}

/// The script of a seed.
fn script(seed: u64, args: &Args) -> Script {
    let name = args.mutant.as_deref();
    let Some(name) = name else { return Script::of(seed) };
    let mutant = mutants::named(name).unwrap_or_else(|| panic!("there is no mutant `{name}`"));
    (mutant.script)(seed)
}

/// Looks for a seed for each defect.
fn defects(args: &Args) -> ExitCode {
    if !logic::mutant::BUILT {
        eprintln!("sim: built without the defects: make mutants");
        return ExitCode::from(2);
    }
    let asked = |mutant: &&mutants::Mutant| args.mutant.as_ref().is_none_or(|name| *name == mutant.name);
    let (mut caught, mut survived, mut unsound) = (0, 0, 0);
    let work = |mutant: &'static mutants::Mutant| {
        (mutant, mutants::hunt(mutant, args.from..args.from + mutants::SEEDS))
    };
    runner::each(mutants::MUTANTS.iter().filter(asked), args.jobs, work, |(mutant, hunt)| {
        for seed in &hunt.unsound {
            println!("mutant {}: seed {seed} of its script fails without it too", mutant.name);
        }
        unsound += hunt.unsound.len();
        match hunt.caught {
            Some((seed, step)) => {
                caught += 1;
                println!("mutant {} caught seed {seed} step {step}", mutant.name);
            }
            None => {
                survived += 1;
                println!("mutant {} survived: {}, {}", mutant.name, mutant.rule, mutant.breaks);
            }
        }
    });
    println!("mutants: {caught} caught, {survived} survived");
    ExitCode::from(u8::from(survived + unsound > 0 || caught == 0))
}

/// Shows the logs that were asked for, and enters simulated time.
fn enter(seed: u64, args: &Args) {
    if let Some(filter) = &args.log {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    os::enter(seed);
}

/// Plays one scenario here.
fn scene(scenario: Scenario, seed: u64, args: &Args) -> ExitCode {
    enter(seed, args);
    let mut cluster = scenario::world(scenario, seed);
    let ending = scenario::play(scenario, &mut cluster);
    leave(&cluster, &ending.failures, args, &scenario::line(scenario, ending.row))
}

/// Runs one seed here.
fn one(seed: u64, args: &Args) -> ExitCode {
    let script = script(seed, args).prefix(args.faults.unwrap_or(usize::MAX));
    enter(seed, args);
    let mut cluster = Cluster::new(script);
    let outcome = trial::run(&mut cluster);
    let books =
        outcome.ledgers.iter().map(|account| format!("ledger: {}: {}\n", account.name, account.report));
    let words = format!(
        "{}simulated {:.1} s, settled {:.1?} after healing",
        books.collect::<String>(),
        outcome.lasted.as_secs_f64(),
        outcome.settled
    );
    leave(&cluster, &outcome.failures, args, &words)
}

/// Says what came of a run, and ends without running what is left of the simulated processes.
fn leave(cluster: &Cluster, failures: &[String], args: &Args, words: &str) -> ! {
    let trace = cluster.net().trace();
    if args.story {
        for line in trace.lines() {
            println!("{line}");
        }
    }
    for failure in failures {
        println!("failure: {failure}");
    }
    if !failures.is_empty() {
        println!("failed at step {}", trace.len());
    }
    println!("{words}");
    println!("trace {:016x}", trace.hash());
    cluster.clean();
    let _ = std::io::stdout().flush();
    std::process::exit(i32::from(!failures.is_empty()));
}

fn seed(seed: u64, faults: Option<usize>) -> Said {
    let mut args = vec!["--seed".to_owned(), seed.to_string()];
    args.extend(faults.iter().flat_map(|count| ["--faults".to_owned(), count.to_string()]));
    runner::child(&args, &[])
}

/// Runs a range, some at a time.
fn many(args: &Args) -> ExitCode {
    let seeds = args.seeds.unwrap_or(100);
    let began = Instant::now();
    let mut failed = Vec::new();
    runner::each(
        args.from..args.from + seeds,
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
    println!("sim: {} seeds, {} failed, {seconds:.0} s", seeds, failed.len());
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
