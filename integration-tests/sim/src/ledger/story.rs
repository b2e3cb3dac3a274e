//! What the destination does, in words short enough to be read by the thousand.

use integration_tests::ledger::Found;

use super::{keep::Arrival, server::Origin};

/// So many keys of a request are named.
const NAMED_MAX: usize = 4;

/// The split's name, or its end.
pub(super) fn split(origin: &Origin) -> String {
    let name = origin.task.work.to_string();
    let from = name.char_indices().rev().nth(3).map_or(0, |(from, _)| from);
    format!("…{}", &name[from..])
}

/// The rows of a request: how many, and by key from where to where.
pub(super) fn rows(arrivals: &[Arrival]) -> String {
    let records = arrivals.iter().filter_map(|arrival| arrival.record.as_ref());
    let mut runs: Vec<(&str, u64, u64)> = Vec::new();
    for Found { key, n } in records {
        match runs.iter_mut().find(|(other, _, to)| other == key && to + 1 == *n) {
            Some((_, _, to)) => *to = *n,
            None => runs.push((key, *n, *n)),
        }
    }
    let mut text = format!("{} rows", arrivals.len());
    for (at, (key, from, to)) in runs.iter().take(NAMED_MAX).enumerate() {
        let before = if at == 0 { ": " } else { ", " };
        match from == to {
            true => text.push_str(&format!("{before}{key} {from}")),
            false => text.push_str(&format!("{before}{key} {from}–{to}")),
        }
    }
    if runs.len() > NAMED_MAX {
        text.push_str(", …");
    }
    text
}
