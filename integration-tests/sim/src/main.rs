//! `sim`: runs seeds, each in a process of its own, so that one that hangs or breaks takes nothing with it.

use std::{
    collections::VecDeque,
    io::Write as _,
    process::{Command, ExitCode, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use clap::Parser;
use shardwright_sim::{cluster::Cluster, faults::Script, os, trial};

/// Runs simulated clusters.
#[derive(Parser)]
struct Args {
    /// One seed, in this process: its ledger, and its trace's hash last.
    #[arg(long)]
    seed: Option<u64>,
    /// Only the first so many faults of it.
    #[arg(long)]
    faults: Option<usize>,
    /// Tells the whole story.
    #[arg(long)]
    story: bool,
    /// Shows the processes' logs, as `RUST_LOG` would.
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
    println!("simulated {:.1} s, settled {:.1?} after healing", outcome.lasted.as_secs_f64(), outcome.settled);
    println!("trace {:016x}", trace.hash());
    let _ = std::io::stdout().flush();
    // Without running what is left of the simulated processes.
    std::process::exit(i32::from(!outcome.failures.is_empty()));
}

/// How long one seed may take, in real time.
const SEED_LIMIT: Duration = Duration::from_secs(120);

struct Failed {
    seed: u64,
    said: String,
}

/// Runs a range, some at a time.
fn many(args: &Args) -> ExitCode {
    let began = Instant::now();
    let seeds: Mutex<VecDeque<u64>> = Mutex::new((args.from..args.from + args.seeds).collect());
    let failed: Mutex<Vec<Failed>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                loop {
                    let Some(seed) = seeds.lock().expect("no thread panics").pop_front() else { return };
                    if let Err(said) = child(seed, None) {
                        println!("seed {seed}: failed");
                        failed.lock().expect("no thread panics").push(Failed { seed, said });
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no thread panics");
    for Failed { seed, said } in &failed {
        println!("\nseed {seed}:\n{said}");
    }
    if let Some(first) = failed.first() {
        shorten(first.seed);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("sim: {} seeds, {} failed, {seconds:.0} s", args.seeds, failed.len());
    ExitCode::from(u8::from(!failed.is_empty()))
}

/// Finds the shortest prefix of a seed's faults that still fails.
fn shorten(seed: u64) {
    let all = Script::of(seed).faults.len();
    let shortest = (0..=all).find(|count| child(seed, Some(*count)).is_err()).unwrap_or(all);
    println!("\nseed {seed} fails with its first {shortest} of {all} faults:");
    for (at, fault) in Script::of(seed).prefix(shortest).faults {
        println!("  {:>8.3} {fault}", at.as_secs_f64());
    }
    println!("its story: sim --seed {seed} --faults {shortest} --story");
}

/// Runs a seed in a process of its own; what it said if it failed.
fn child(seed: u64, faults: Option<usize>) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new(program);
    command.args(["--seed", &seed.to_string()]);
    if let Some(count) = faults {
        command.args(["--faults", &count.to_string()]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let deadline = Instant::now() + SEED_LIMIT;
    while child.try_wait().map_err(|e| e.to_string())?.is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("did not end within {SEED_LIMIT:?}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(format!("{}{}", text(&output.stdout), text(&output.stderr)))
}
