//! Random runs: 200 seeds, in four parts so that they share a machine's processors, every second one with partition tasks; and
//! that a seed is a run, not a mood.

use std::process::Command;

fn sim(args: &[&str]) -> (bool, String) {
    let sim = Command::new(env!("CARGO_BIN_EXE_sim")).args(args).output();
    let sim = sim.expect("the simulation is built with its tests");
    (sim.status.success(), String::from_utf8_lossy(&sim.stdout).into_owned())
}

fn fifty(from: u64) {
    let (well, said) = sim(&["--seeds", "50", "--from", &from.to_string(), "--jobs", "1"]);
    assert!(well, "{said}");
}

#[test]
fn the_first_fifty_seeds_balance() {
    fifty(0);
}

#[test]
fn the_second_fifty_seeds_balance() {
    fifty(50);
}

#[test]
fn the_third_fifty_seeds_balance() {
    fifty(100);
}

#[test]
fn the_fourth_fifty_seeds_balance() {
    fifty(150);
}

/// Each script that was made for a defect, with a seed of its own and without the defect: `make mutants` relies on them.
#[test]
fn the_scripts_for_the_defects_balance_without_them() {
    for (seed, mutant) in (0_u64..).zip(shardwright_sim::mutants::MUTANTS) {
        let (well, said) = sim(&["--mutant", mutant.name, "--seed", &seed.to_string()]);
        assert!(well, "the script of {}:\n{said}", mutant.name);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = |args: &[&str]| {
        let said = sim(args).1;
        said.lines().last().filter(|line| line.starts_with("trace ")).expect("a trace comes last").to_owned()
    };
    for args in [["--seed", "3"].as_slice(), &["--seed", "8"], &["--scenario", "S16", "--seed", "1"]] {
        assert_eq!(trace(args), trace(args), "{args:?}");
    }
    assert_ne!(trace(&["--seed", "3"]), trace(&["--seed", "4"]));
}
