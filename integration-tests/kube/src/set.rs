//! What the controller of a StatefulSet does next, as a function: which pods it makes and which it takes away, given those that
//! there are. As in Kubernetes: ordinals without gaps; by `OrderedReady` one after the other; an update replaces from the highest
//! ordinal down, one at a time, and waits for each until it is available.

use std::collections::BTreeMap;

use crate::manifest::Policy;

/// What a set wants.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// So many pods.
    pub replicas: u32,
    /// Made and taken away like this.
    pub policy: Policy,
    /// Made from this template.
    pub revision: &'a str,
}

/// A pod as the controller sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The template that it was made from.
    pub revision: String,
    /// Ready for at least minReadySeconds.
    pub available: bool,
    /// On its way out.
    pub ends: bool,
}

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Make the pod with this ordinal.
    Make(u32),
    /// Take it away.
    Remove(u32),
}

/// The steps that are due now; empty when it waits or all is as wanted.
#[must_use]
pub fn steps(wanted: Wanted<'_>, pods: &BTreeMap<u32, Seen>) -> Vec<Step> {
    let mut steps = Vec::new();
    let ordered = wanted.policy == Policy::OrderedReady;
    for ordinal in 0..wanted.replicas {
        match pods.get(&ordinal) {
            None => steps.push(Step::Make(ordinal)),
            Some(pod) if pod.available && !pod.ends => continue,
            // Its place is free only when it is gone.
            Some(_) => {}
        }
        if ordered {
            break;
        }
    }
    if ordered && (0..wanted.replicas).any(|ordinal| !is_well(pods, ordinal)) {
        return steps;
    }
    let too_many = pods.iter().rev().filter(|(ordinal, _)| **ordinal >= wanted.replicas);
    for (ordinal, pod) in too_many {
        if !pod.ends {
            steps.push(Step::Remove(*ordinal));
        }
        if ordered {
            return steps;
        }
    }
    if steps.is_empty() {
        steps.extend(update(wanted, pods));
    }
    steps
}

fn is_well(pods: &BTreeMap<u32, Seen>, ordinal: u32) -> bool {
    pods.get(&ordinal).is_some_and(|pod| pod.available && !pod.ends)
}

/// The highest one of another template, if all above it are well.
fn update(wanted: Wanted<'_>, pods: &BTreeMap<u32, Seen>) -> Option<Step> {
    for ordinal in (0..wanted.replicas).rev() {
        let pod = pods.get(&ordinal)?;
        if pod.revision != wanted.revision && !pod.ends {
            return Some(Step::Remove(ordinal));
        }
        if !is_well(pods, ordinal) {
            return None;
        }
    }
    None
}

/// Whether there is nothing left to do or to wait for.
#[must_use]
pub fn settled(wanted: Wanted<'_>, pods: &BTreeMap<u32, Seen>) -> bool {
    pods.len() == wanted.replicas as usize
        && (0..wanted.replicas).all(|ordinal| {
            is_well(pods, ordinal) && pods.get(&ordinal).is_some_and(|p| p.revision == wanted.revision)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARALLEL: Wanted<'_> = Wanted { replicas: 3, policy: Policy::Parallel, revision: "new" };
    const ORDERED: Wanted<'_> = Wanted { policy: Policy::OrderedReady, ..PARALLEL };

    fn seen(revision: &str, available: bool, ends: bool) -> Seen {
        Seen { revision: revision.to_owned(), available, ends }
    }

    fn pods(list: &[(u32, Seen)]) -> BTreeMap<u32, Seen> {
        list.iter().cloned().collect()
    }

    #[test]
    fn a_parallel_set_makes_all_pods_at_once() {
        assert_eq!(steps(PARALLEL, &pods(&[])), [Step::Make(0), Step::Make(1), Step::Make(2)]);
        let one = pods(&[(1, seen("new", false, false))]);
        assert_eq!(steps(PARALLEL, &one), [Step::Make(0), Step::Make(2)]);
    }

    #[test]
    fn an_ordered_set_waits_for_the_pod_before() {
        assert_eq!(steps(ORDERED, &pods(&[])), [Step::Make(0)]);
        assert_eq!(steps(ORDERED, &pods(&[(0, seen("new", false, false))])), []);
        assert_eq!(steps(ORDERED, &pods(&[(0, seen("new", true, false))])), [Step::Make(1)]);
    }

    #[test]
    fn an_update_begins_at_the_highest_ordinal() {
        let old = pods(&[
            (0, seen("old", true, false)),
            (1, seen("old", true, false)),
            (2, seen("old", true, false)),
        ]);
        for wanted in [PARALLEL, ORDERED] {
            assert_eq!(steps(wanted, &old), [Step::Remove(2)]);
            assert!(!settled(wanted, &old));
        }
    }

    #[test]
    fn an_update_goes_on_when_the_replaced_pod_is_available() {
        let at = |pod: Seen| pods(&[(0, seen("old", true, false)), (1, seen("old", true, false)), (2, pod)]);
        assert_eq!(steps(PARALLEL, &at(seen("old", false, true))), [], "it still ends");
        assert_eq!(steps(PARALLEL, &at(seen("new", false, false))), [], "it is not available yet");
        assert_eq!(steps(PARALLEL, &at(seen("new", true, false))), [Step::Remove(1)]);
        let gone = pods(&[(0, seen("old", true, false)), (1, seen("old", true, false))]);
        assert_eq!(steps(PARALLEL, &gone), [Step::Make(2)]);
    }

    #[test]
    fn an_update_replaces_a_pod_that_never_became_ready() {
        let stuck = pods(&[
            (0, seen("new", true, false)),
            (1, seen("old", false, false)),
            (2, seen("new", true, false)),
        ]);
        assert_eq!(steps(PARALLEL, &stuck), [Step::Remove(1)]);
    }

    #[test]
    fn pods_of_the_same_template_are_kept() {
        let same = pods(&[
            (0, seen("new", true, false)),
            (1, seen("new", true, false)),
            (2, seen("new", true, false)),
        ]);
        assert_eq!(steps(PARALLEL, &same), []);
        assert!(settled(PARALLEL, &same) && settled(ORDERED, &same));
    }

    #[test]
    fn a_smaller_set_takes_the_highest_away() {
        let small = Wanted { replicas: 1, ..PARALLEL };
        let three = pods(&[
            (0, seen("new", true, false)),
            (1, seen("new", true, false)),
            (2, seen("new", true, false)),
        ]);
        assert_eq!(steps(small, &three), [Step::Remove(2), Step::Remove(1)]);
        assert_eq!(steps(Wanted { policy: Policy::OrderedReady, ..small }, &three), [Step::Remove(2)]);
        assert!(!settled(small, &three));
    }
}
