//! What happens to the cluster's own processes: they restart, sleep, disagree about the time, and lose what they have just sent
//! (S10–S12, S20).

use std::time::Duration;

use rand::Rng as _;
use store::{Keyspace, View};

use super::{declare, seconds, settle};
use crate::{books, cluster::NAME, faults::Fault, place::Place, stage::Stage};

pub(super) fn restarts_at_the_same_position(stage: &mut Stage<'_>) {
    declare(stage, "");
    stage.load(seconds(5));
    for turn in 0..4 {
        // Long enough that everything is delivered and stored as such.
        stage.run_for(seconds(10));
        if turn % 2 == 0 {
            stage.stop_all();
        } else {
            stage.kill_all();
        }
        stage.run_for(seconds(1));
        stage.start_all();
        stage.run_for(seconds(15));
        if turn == 1 {
            stage.load(seconds(5));
        }
    }
    settle(stage);
    let repeats: u64 = books::accounts(stage.cluster).iter().map(|one| one.report.verdict.duplicated).sum();
    if repeats > 0 {
        stage.fail(format!("{repeats} records came again, although all was stored as delivered"));
    }
}

/// What waits stays where it is: no run ends, nothing comes twice, and it goes on when the sink does. One worker, so that none is
/// moved because a sink that takes nothing leaves the work uneven.
pub(super) fn sink_away_for_ten_minutes(stage: &mut Stage<'_>) {
    declare(stage, "");
    stage.load(seconds(5));
    stage.run_for(seconds(5));
    let before = runs(stage);
    stage.happen(Fault::SinkDown(seconds(600)));
    stage.load(seconds(60));
    stage.run_for(seconds(530));
    stage.load(seconds(15));
    settle(stage);
    let after = runs(stage);
    if before.is_empty() || before != after {
        stage.fail(format!("the runs were {before:?} and are {after:?}"));
    }
    let repeats: u64 = books::accounts(stage.cluster).iter().map(|one| one.report.verdict.duplicated).sum();
    if repeats > 0 {
        stage.fail(format!("{repeats} records came again, although no run had a reason to end"));
    }
}

/// The task and the epoch of every run.
fn runs(stage: &Stage<'_>) -> Vec<String> {
    let view = View::decode(&Keyspace::new(NAME), &stage.cluster.stored()).expect("the judge has read it");
    view.assignments.iter().map(|(task, entry)| format!("{task} {}", entry.mod_revision)).collect()
}

pub(super) fn suspended_beyond_the_session(stage: &mut Stage<'_>) {
    declare(stage, "");
    stage.load(seconds(10));
    for (worker, beyond) in [(0, 14), (1, 1)] {
        // What it sends last to the store lands late, if it lands.
        stage.happen(Fault::CommitsLate(0.2, seconds(2)));
        stage.run_for(Duration::from_millis(500));
        stage.happen(Fault::Suspend(Place::Worker(worker), seconds(6 + beyond)));
        stage.load(seconds(25));
    }
    settle(stage);
}

pub(super) fn clock_skew(stage: &mut Stage<'_>) {
    stage.skew(0.04, seconds(9 * 3600));
    // As the real service, which takes no request that is signed at another time than its own.
    stage.cluster.kinesis().check_clocks(true);
    declare(stage, "");
    stage.load(seconds(10));
    stage.happen(Fault::KillLeader(seconds(5)));
    stage.load(seconds(8));
    stage.happen(Fault::Kill(Place::Worker(0), seconds(8)));
    stage.load(seconds(15));
    stage.happen(Fault::Suspend(Place::Worker(1), seconds(9)));
    stage.load(seconds(15));
    settle(stage);
}

/// An owner disappears with requests under way, which land when they do most harm.
pub(super) fn late_write_of_an_old_owner(stage: &mut Stage<'_>) {
    declare(stage, "");
    stage.load(seconds(8));
    for turn in 0..3 {
        let worker = Place::Worker(turn % 2);
        stage.happen(Fault::SinkLate(0.7, seconds(2)));
        let wait = stage.random.random_range(300..1_500);
        stage.load(Duration::from_millis(wait));
        let away = seconds(stage.random.random_range(8..20));
        let fault = match stage.random.random_range(0..3) {
            0 => Fault::Isolate(worker, away),
            1 => Fault::Suspend(worker, away),
            _ => Fault::Vanish(worker, away),
        };
        stage.happen(fault);
        stage.load(seconds(22));
    }
    settle(stage);
}
