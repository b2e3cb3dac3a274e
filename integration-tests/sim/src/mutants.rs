//! The deliberate defects: what each breaks, in which place, and what brings it to light (`make mutants`).
//!
//! A defect is *caught* by a seed if the run with it fails and the same run without it does not. The step that is told with it is
//! the line of the story at which the run had failed: what is lost is known at its end only, what overtakes at once.

use crate::{directed, faults::Script, runner};

/// Seeds that are tried for each.
pub const SEEDS: u64 = 40;

/// How a run is told its defect.
const CHOICE: &str = "SHARDWRIGHT_MUTANT";

/// One defect.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// As `logic::mutant::on` has it.
    pub name: &'static str,
    /// The rule of docs/protocol.md or the invariant of ARCHITECTURE.md that it breaks.
    pub rule: &'static str,
    /// What is wrong with it on.
    pub breaks: &'static str,
    /// The sources that it is in.
    pub at: &'static [&'static str],
    /// What brings it to light, by seed.
    pub script: fn(u64) -> Script,
}

const fn mutant(
    name: &'static str,
    rule: &'static str,
    breaks: &'static str,
    at: &'static [&'static str],
    script: fn(u64) -> Script,
) -> Mutant {
    Mutant { name, rule, breaks, at, script }
}

/// Every one there is.
pub const MUTANTS: &[Mutant] = &[
    mutant(
        "no_parent_gate",
        "I2, P15",
        "a child is read at once",
        &["crates/logic/src/lineage/mod.rs"],
        directed::reshards,
    ),
    mutant(
        "gate_reads_closed",
        "I2, P15",
        "a child is read once its parent is closed, delivered or not",
        &["crates/logic/src/lineage/mod.rs"],
        directed::reshards,
    ),
    mutant(
        "end_not_checkpointed",
        "I6",
        "the end of a split is not made durable",
        &["worker/src/task/forward.rs", "worker/src/task/prefix.rs"],
        directed::reshards,
    ),
    mutant(
        "children_at_latest",
        "I1",
        "a child is read from the moment it is discovered on",
        &["crates/logic/src/lineage/merge.rs"],
        directed::reshards,
    ),
    mutant(
        "latest_evaluated_again",
        "I1",
        "a run that follows one without a checkpoint begins at now",
        &["crates/logic/src/plan/task.rs"],
        directed::early_deaths,
    ),
    mutant(
        "joins_past_a_record",
        "I1",
        "a run that joins the reading of another begins one record too late",
        &["worker/src/reading/window.rs"],
        directed::rough_sink,
    ),
    mutant(
        "highest_ack",
        "I1",
        "the highest ack is the position, not the complete prefix",
        &["crates/logic/src/ack.rs"],
        directed::rough_sink,
    ),
    mutant(
        "checkpoint_before_delivery",
        "I1",
        "rows count as delivered once they are sent",
        &["worker/src/task/writer.rs"],
        directed::rough_sink,
    ),
    mutant(
        "partial_put_counts_as_delivered",
        "I1",
        "entries that PutRecords did not take count as delivered",
        &["crates/connectors/src/sink/kinesis/writer.rs"],
        directed::failing_puts,
    ),
    mutant(
        "two_rows_of_a_key_in_a_request",
        "I10",
        "a destination that takes entries one by one gets two rows of a key at once",
        &["worker/src/task/job.rs"],
        directed::piecemeal,
    ),
    mutant(
        "renewal_from_wrong_cursor",
        "I1",
        "a new iterator begins after the first record of the last answer",
        &["crates/connectors/src/source/kinesis/place.rs"],
        directed::expiring,
    ),
    mutant(
        "kpl_cursor_without_sub",
        "I1",
        "a record inside an aggregate has the cursor of the whole",
        &["crates/connectors/src/source/kinesis/place.rs"],
        directed::aggregates,
    ),
    mutant(
        "dead_letter_after_ack",
        "I1",
        "a refused row counts as done before its dead letter is durable",
        &["worker/src/task/verdict.rs"],
        directed::dead_letters,
    ),
    mutant(
        "outage_uses_attempts",
        "I1",
        "an outage counts as a refusal",
        &["worker/src/task/verdict.rs"],
        directed::outage,
    ),
    mutant(
        "renewal_from_now",
        "I1",
        "a new subscription begins at the moment of its call, not where the last one had got to",
        &["crates/connectors/src/source/kinesis/fanout/reader.rs"],
        directed::subscriptions,
    ),
    mutant(
        "renewal_repeats",
        "I10",
        "what the old subscription and the new one both bring is handed on twice",
        &["crates/connectors/src/source/kinesis/fanout/reader.rs"],
        directed::subscriptions,
    ),
    mutant(
        "hidden_is_gone",
        "I2, P15",
        "a split that two listings lack is gone, whatever the service says",
        &["coordinator/src/discovery.rs"],
        directed::hidden,
    ),
    mutant(
        "late_hello_displaces",
        "P1",
        "a join counts at the hello",
        &["coordinator/src/session/service.rs"],
        directed::late_hellos,
    ),
    mutant(
        "no_self_fencing",
        "P2",
        "a worker goes on past its deadline",
        &["worker/src/fence.rs"],
        directed::takeover,
    ),
    mutant(
        "fence_from_answer",
        "P2",
        "the deadline counts from the answer, not from the sending",
        &["worker/src/session.rs"],
        directed::slow_answers,
    ),
    mutant(
        "late_answer_revives",
        "P2",
        "a worker past its deadline goes on when somebody answers",
        &["worker/src/session.rs", "worker/src/fence.rs"],
        directed::revival,
    ),
    mutant(
        "deadline_after_polling",
        "P2",
        "the deadline is looked at after a request was polled",
        &["worker/src/fence.rs"],
        directed::asleep,
    ),
    mutant(
        "deposed_leader_answers",
        "P3",
        "a leader answers heartbeats when another may lead",
        &["coordinator/src/term.rs", "coordinator/src/office.rs"],
        directed::deposed,
    ),
    mutant(
        "list_before_loaded",
        "P3",
        "a new leader sends lists before it has loaded",
        &["coordinator/src/session/hear.rs"],
        directed::calm_change,
    ),
    mutant(
        "list_answers_unseen_heartbeats",
        "P4",
        "a list answers heartbeats that its leader has not seen",
        &["worker/src/session.rs"],
        directed::unheard,
    ),
    mutant(
        "term_remembers",
        "P5, P10",
        "what was not heard in this term counts from before its election",
        &["coordinator/src/term.rs", "coordinator/src/clock.rs"],
        directed::calm_change,
    ),
    mutant(
        "restart_under_old_epoch",
        "P6",
        "a new process goes on under the epochs of the old one",
        &["crates/logic/src/plan/list.rs", "crates/logic/src/gate.rs"],
        directed::restarts,
    ),
    mutant(
        "run_begins_at_horizon",
        "P6, P13",
        "a run that follows another begins at the oldest record, not at the checkpoint",
        &["worker/src/orders.rs"],
        directed::restarts,
    ),
    mutant(
        "stopped_epoch_starts",
        "P7",
        "an epoch that has stopped starts again",
        &["worker/src/runs.rs"],
        directed::fenced_for_a_moment,
    ),
    mutant(
        "drained_too_early",
        "P8",
        "a run is drained while something of it may land",
        &["worker/src/task/writer.rs"],
        directed::handovers,
    ),
    mutant(
        "first_owner_forgotten",
        "P9",
        "an assignment names the last owner only",
        &["crates/logic/src/plan/task.rs"],
        directed::third_owner,
    ),
    mutant(
        "first_write_does_not_wait",
        "P10, I11",
        "a new owner has no gate",
        &["worker/src/task/writer.rs"],
        directed::takeover,
    ),
    mutant(
        "stopped_counts_as_drained",
        "P10",
        "the gate does not wait for a run that was merely stopped",
        &["crates/logic/src/gate.rs"],
        directed::fenced_for_a_moment,
    ),
    mutant(
        "gate_by_wall_clock",
        "P11",
        "a moment crosses the wire, not a duration",
        &["coordinator/src/session/list.rs", "worker/src/orders.rs"],
        directed::takeover,
    ),
    mutant(
        "newer_rows_at_once",
        "P12",
        "newer rows of a key do not wait for an attempt of unknown outcome",
        &["crates/logic/src/outbox.rs"],
        directed::late_rows,
    ),
    mutant(
        "assign_unguarded",
        "P13",
        "a start may be older than the checkpoint",
        &["coordinator/src/execute.rs"],
        directed::late_commits,
    ),
    mutant(
        "no_fence",
        "P14, I3",
        "checkpoints are not guarded by the assignments",
        &["coordinator/src/checkpointer.rs"],
        directed::late_commits,
    ),
    mutant(
        "leader_unguarded",
        "I3",
        "a commit of a leader that is none any more lands",
        &["coordinator/src/term.rs"],
        directed::late_leaders,
    ),
    mutant(
        "no_lane",
        "P14, I4",
        "a late checkpoint lands after its successor",
        &["coordinator/src/checkpointer.rs"],
        directed::late_lanes,
    ),
    mutant(
        "unknown_counts_as_durable",
        "P14",
        "a checkpoint whose answer was lost counts as durable",
        &["coordinator/src/checkpointer.rs"],
        directed::lost_answers,
    ),
    mutant(
        "deposed_leader_stops_workers",
        "P14",
        "a leader that lost its key tells its workers to stop",
        &["coordinator/src/term.rs"],
        directed::usurped,
    ),
    mutant(
        "p16_not_named",
        "P16",
        "a split goes on sending to whatever runs its partitions have, named or not",
        &["crates/logic/src/plan/task.rs", "worker/src/orders.rs", "worker/src/task/parts.rs"],
        directed::moving_owners,
    ),
    mutant(
        "p17_split_before_partitions",
        "P17",
        "a split is assigned before the partitions of its sink are",
        &["crates/logic/src/plan/partition.rs"],
        directed::moving_owners,
    ),
    mutant(
        "p18_older_epoch_accepted",
        "P18",
        "a partition takes what an older run of a split sent after a newer one has sent to it",
        &["worker/src/task/parts.rs"],
        directed::delayed_parts,
    ),
    mutant(
        "p19_part_lost_unnoticed",
        "P19",
        "a stream goes on although parts were lost with its connection",
        &["worker/src/task/parts.rs"],
        directed::torn_streams,
    ),
    mutant(
        "p20_acks_not_repeated",
        "P20",
        "a stream that is opened again is not told what is durable already",
        &["worker/src/task/parts.rs"],
        directed::torn_acks,
    ),
    mutant(
        "p20_ack_without_epoch",
        "P20",
        "an ack counts for whatever run of the split there is",
        &["worker/src/task/outlet.rs", "worker/src/task/parts.rs"],
        directed::dying_readers,
    ),
    mutant(
        "p21_old_rows_written",
        "P21",
        "what an older run of a split has under way holds nothing of a newer one back",
        &["crates/logic/src/outbox/given_up.rs"],
        directed::late_parts,
    ),
    mutant(
        "p22_own_predecessors",
        "P22",
        "a new map's writers wait for the old one of their own number only",
        &["crates/logic/src/plan/partition.rs"],
        directed::remapped,
    ),
    mutant(
        "ack_before_all_partitions",
        "I1",
        "a chunk is complete when the first partition that got rows of it has acked",
        &["worker/src/task/forward.rs"],
        directed::dying_owners,
    ),
    mutant(
        "ack_on_receipt",
        "I1",
        "a partition acks what it has received",
        &["worker/src/task/parts.rs"],
        directed::dying_owners,
    ),
    mutant(
        "child_overtakes_in_exchange",
        "I2, P15",
        "a split has ended when everything of it is sent",
        &["worker/src/task/forward.rs"],
        directed::dying_owners_of_children,
    ),
];

/// The one of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Mutant> {
    MUTANTS.iter().find(|mutant| mutant.name == name)
}

/// What came of the search for one defect.
#[derive(Clone, Debug, Default)]
pub struct Hunt {
    /// The seed that caught it, and the line of its story at which the run had failed.
    pub caught: Option<(u64, u64)>,
    /// Seeds that fail without the defect too: something is wrong with the product, or with the script.
    pub unsound: Vec<u64>,
}

/// Tries seeds until one fails with the defect and not without.
#[must_use]
pub fn hunt(mutant: &Mutant, seeds: std::ops::Range<u64>) -> Hunt {
    let mut hunt = Hunt::default();
    for seed in seeds {
        let args = ["--mutant".to_owned(), mutant.name.to_owned(), "--seed".to_owned(), seed.to_string()];
        let Some(step) = failed_at(&runner::child(&args, &[(CHOICE, mutant.name)]).text) else { continue };
        if runner::child(&args, &[(CHOICE, "none")]).well {
            hunt.caught = Some((seed, step));
            break;
        }
        hunt.unsound.push(seed);
    }
    hunt
}

/// The step at which a run failed, by what it said.
fn failed_at(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("failed at step ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        path::{Path, PathBuf},
    };

    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
    }

    fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// The sources of the product by the defects that are in them.
    fn switches() -> BTreeMap<String, BTreeSet<String>> {
        let mut files = Vec::new();
        for room in ["crates", "coordinator", "worker", "proto", "cli"] {
            sources(&root().join(room), &mut files);
        }
        let mut switches: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in files.iter().filter(|file| !file.ends_with("logic/src/mutant.rs")) {
            let text = std::fs::read_to_string(file).unwrap();
            let place = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            for rest in text.split("mutant::on(\"").skip(1) {
                let (name, _) = rest.split_once('"').unwrap();
                switches.entry(name.to_owned()).or_default().insert(place.clone());
            }
            let others = text.matches("mutant::on(").count() - text.matches("mutant::on(\"").count();
            assert_eq!(others, 0, "{place} switches a defect whose name is not written there");
        }
        switches
    }

    #[test]
    fn every_defect_is_in_the_product_where_the_list_says_and_every_one_there_is_in_the_list() {
        let listed: BTreeMap<String, BTreeSet<String>> = MUTANTS
            .iter()
            .map(|mutant| (mutant.name.to_owned(), mutant.at.iter().map(|at| (*at).to_owned()).collect()))
            .collect();
        assert_eq!(listed.len(), MUTANTS.len(), "a name is in the list twice");
        assert_eq!(listed, switches());
    }

    #[test]
    fn every_rule_of_the_protocol_has_a_defect_that_breaks_it() {
        let broken: BTreeSet<&str> = MUTANTS.iter().flat_map(|mutant| mutant.rule.split(", ")).collect();
        for rule in (1..=22).map(|number| format!("P{number}")) {
            assert!(broken.contains(rule.as_str()), "nothing breaks {rule}");
        }
    }

    #[test]
    fn a_run_says_at_which_step_it_failed() {
        assert_eq!(failed_at("failure: I4: back\nfailed at step 17\ntrace 0\n"), Some(17));
        assert_eq!(failed_at("did not end within 240s\n"), None);
    }
}
