//! The ledger: compares what was sent with what a destination holds, key by key, in the order of the destination.
//!
//! Every record carries a key and a number that counts up from 0 within its key. The ledger counts as *out of order*:
//! a first delivery of n before that of n−1 of its key; a key whose last record is not the last one sent; and a repeat that
//! is not part of a run which ends at or beyond the previous maximum (a late write of an old owner looks like that). A run may
//! begin again before it got there, as when the second owner dies too, but it never leaves anything out.

use std::{collections::BTreeMap, fmt};

/// One record as it was found in a destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its key.
    pub key: String,
    /// Its number within the key.
    pub n: u64,
}

/// What came of the comparison.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Records that the source accepted.
    pub sent: u64,
    /// Different ones among them that the destination holds.
    pub delivered: u64,
    /// Sent and not there.
    pub lost: u64,
    /// There more than once (each repeat counts).
    pub duplicated: u64,
    /// See the module's page.
    pub out_of_order: u64,
    /// There, but never sent: something is badly wrong.
    pub unknown: u64,
    /// The first few things that are wrong, in words.
    pub complaints: Vec<String>,
}

impl Verdict {
    /// Nothing lost, nothing out of order, nothing made up.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.lost == 0 && self.out_of_order == 0 && self.unknown == 0
    }

    fn complain(&mut self, complaint: String) {
        if self.complaints.len() < 10 {
            self.complaints.push(complaint);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sent {}, delivered {}, lost {}, duplicated {}, out of order {}",
            self.sent, self.delivered, self.lost, self.duplicated, self.out_of_order
        )?;
        if self.unknown > 0 {
            write!(f, ", never sent {}", self.unknown)?;
        }
        Ok(())
    }
}

/// Compares `sent` (how many records of each key, numbered from 0) with what was found, in the destination's order.
#[must_use]
pub fn audit(sent: &BTreeMap<String, u64>, found: impl IntoIterator<Item = Found>) -> Verdict {
    let mut verdict = Verdict { sent: sent.values().sum(), ..Verdict::default() };
    let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for record in found {
        by_key.entry(record.key).or_default().push(record.n);
    }
    for (key, numbers) in &by_key {
        let count = sent.get(key).copied().unwrap_or(0);
        audit_key(key, count, numbers, &mut verdict);
    }
    for (key, count) in sent.iter().filter(|(key, count)| **count > 0 && !by_key.contains_key(*key)) {
        verdict.lost += count;
        verdict.complain(format!("key {key}: none of {count} records is there"));
    }
    verdict
}

fn audit_key(key: &str, sent: u64, numbers: &[u64], verdict: &mut Verdict) {
    let mut seen = vec![false; usize::try_from(sent).unwrap_or(usize::MAX)];
    // The next number that was never there; and where a run of repeats stands, while one is under way.
    let mut next = 0_u64;
    let mut run: Option<u64> = None;
    for &n in numbers {
        let Some(slot) = usize::try_from(n).ok().and_then(|n| seen.get_mut(n)) else {
            verdict.unknown += 1;
            verdict.complain(format!("key {key}: {n} is there but was never sent"));
            continue;
        };
        verdict.duplicated += u64::from(*slot);
        verdict.delivered += u64::from(!*slot);
        *slot = true;
        let broken = run.is_some_and(|last| n > last + 1);
        if broken {
            verdict.out_of_order += 1;
            verdict.complain(format!(
                "key {key}: repeats broke off at {} before {}",
                run.unwrap_or(0),
                next - 1
            ));
        }
        if n < next {
            run = (n + 1 < next).then_some(n);
            continue;
        }
        run = None;
        if n > next {
            verdict.out_of_order += 1;
            verdict.complain(format!("key {key}: {n} came before {next}"));
        }
        next = n + 1;
    }
    if let Some(last) = run {
        verdict.out_of_order += 1;
        verdict.complain(format!("key {key}: its last record is {last}, not {}", next - 1));
    }
    let missing: Vec<u64> = (0_u64..).zip(&seen).filter(|(_, seen)| !**seen).map(|(n, _)| n).collect();
    if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
        verdict.lost += missing.len() as u64;
        verdict.complain(format!("key {key}: {} records are missing, from {first} to {last}", missing.len()));
        if sent > 0 && !seen[seen.len() - 1] {
            verdict.out_of_order += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(sent: u64, numbers: &[u64]) -> (u64, u64, u64) {
        let found = numbers.iter().map(|&n| Found { key: "k".into(), n });
        let verdict = audit(&BTreeMap::from([("k".to_owned(), sent)]), found);
        (verdict.lost, verdict.duplicated, verdict.out_of_order)
    }

    #[test]
    fn a_clean_delivery_balances() {
        assert_eq!(verdict(4, &[0, 1, 2, 3]), (0, 0, 0));
    }

    #[test]
    fn a_missing_record_is_lost() {
        assert_eq!(verdict(4, &[0, 1, 3]), (1, 0, 1));
        assert_eq!(verdict(2, &[]), (2, 0, 0));
    }

    #[test]
    fn a_run_of_repeats_that_reaches_the_maximum_is_no_disorder() {
        assert_eq!(verdict(5, &[0, 1, 2, 3, 1, 2, 3, 4]), (0, 3, 0));
        assert_eq!(verdict(4, &[0, 1, 2, 3, 3]), (0, 1, 0));
        assert_eq!(verdict(4, &[0, 1, 2, 3, 2, 3]), (0, 2, 0));
    }

    #[test]
    fn a_run_of_repeats_may_begin_again() {
        assert_eq!(verdict(5, &[0, 1, 2, 3, 1, 2, 0, 1, 2, 3, 4]), (0, 6, 0));
        assert_eq!(verdict(5, &[0, 1, 2, 3, 1, 1, 2, 3, 4]), (0, 4, 0));
        assert_eq!(verdict(4, &[0, 1, 2, 3, 2, 1, 3]), (0, 3, 1), "2 is left out after 1");
    }

    #[test]
    fn a_late_write_between_repeats_is_disorder() {
        assert_eq!(verdict(5, &[0, 1, 2, 3, 2, 0, 3, 4]), (0, 3, 1));
        assert_eq!(verdict(5, &[0, 1, 2, 3, 4, 2, 3, 1]), (0, 3, 1));
    }

    #[test]
    fn a_late_write_of_an_old_owner_is_disorder() {
        assert_eq!(verdict(5, &[0, 1, 2, 3, 1, 4]), (0, 1, 1));
        assert_eq!(verdict(4, &[0, 1, 2, 3, 2]), (0, 1, 1));
    }

    #[test]
    fn a_first_delivery_too_early_is_disorder() {
        assert_eq!(verdict(3, &[0, 2, 1, 2]), (0, 1, 1));
        assert_eq!(verdict(3, &[0, 2, 1]), (0, 0, 2));
    }

    #[test]
    fn a_lost_tail_is_also_a_wrong_last_value() {
        assert_eq!(verdict(3, &[0, 1]), (1, 0, 1));
    }

    #[test]
    fn what_was_never_sent_is_told() {
        let found = [Found { key: "x".into(), n: 0 }];
        let verdict = audit(&BTreeMap::new(), found);
        assert_eq!(verdict.unknown, 1);
        assert!(!verdict.balances());
    }
}
