//! What breaks other consumers of Kinesis (docs/kinesis.md, S1–S20): each story in the simulation, with a seed or two. `make
//! scenarios` plays more of them.

use std::process::Command;

/// Plays a scenario with these seeds, and returns its row.
fn play(name: &str, seeds: u64) -> String {
    let sim = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["--scenario", name, "--seeds", &seeds.to_string(), "--jobs", "2"])
        .output()
        .expect("the simulation is built with its tests");
    let said = String::from_utf8_lossy(&sim.stdout).into_owned();
    assert!(sim.status.success(), "{said}{}", String::from_utf8_lossy(&sim.stderr));
    let row = said.lines().next().unwrap_or_default().to_owned();
    assert!(row.contains("| lost 0 | out of order 0 |"), "{said}");
    row
}

/// The number behind a word of a row.
fn count(row: &str, word: &str) -> u64 {
    let cell = row.split(" | ").find_map(|cell| cell.strip_prefix(word)).expect("a row has all of its cells");
    cell.trim().parse().expect("a number")
}

#[test]
fn s01_split_while_running_from_earliest() {
    play("S01", 2);
}

#[test]
fn s02_split_while_running_from_latest() {
    play("S02", 2);
}

#[test]
fn s03_merge_while_running() {
    play("S03", 2);
}

#[test]
fn s04_reshard_while_stopped_in_order() {
    play("S04", 2);
}

#[test]
fn s05_reshard_after_a_crash() {
    play("S05", 2);
}

#[test]
fn s06_two_generations_of_reshard_while_stopped() {
    play("S06", 2);
}

#[test]
fn s07_parent_trimmed_before_it_was_read_is_reported() {
    assert!(count(&play("S07", 2), "reported") > 0);
}

#[test]
fn s08_checkpoint_older_than_retention_is_reported() {
    assert!(count(&play("S08", 2), "reported") > 0);
}

#[test]
fn children_that_age_out_behind_their_parent_are_reported() {
    assert!(count(&play("aged-children", 2), "reported") > 0);
}

#[test]
fn s09_throttled_before_the_first_record_from_latest() {
    play("S09", 2);
}

#[test]
fn s10_restarts_at_the_same_position_repeat_nothing() {
    assert_eq!(count(&play("S10", 1), "duplicated"), 0);
}

#[test]
fn s11_worker_suspended_beyond_its_session() {
    play("S11", 2);
}

#[test]
fn s12_clock_skew() {
    play("S12", 2);
}

#[test]
fn s13_stream_deleted_and_created_again() {
    play("S13", 2);
}

#[test]
fn s14_more_shards_than_a_page() {
    play("S14", 1);
}

#[test]
fn s15_fan_out_connections_half_open() {
    play("S15", 1);
}

#[test]
fn s16_records_that_cannot_be_processed() {
    play("S16", 2);
}

#[test]
fn s17_aggregates_across_a_split() {
    play("S17", 2);
}

#[test]
fn s18_on_demand_scaling_under_load() {
    play("S18", 1);
}

#[test]
fn s19_auto_distribution_strategy() {
    play("S19", 2);
}

#[test]
fn s20_late_write_of_an_old_owner() {
    play("S20", 2);
}

#[test]
fn a_sink_that_is_away_for_ten_minutes_costs_no_run() {
    play("dead-sink", 1);
}
