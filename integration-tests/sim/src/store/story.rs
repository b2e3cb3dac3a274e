//! What the store does, in words short enough to be read by the hundred.

use store::{Commit, Guard, Key, Snapshot, Write};

/// So many keys of a commit are named.
const NAMED_MAX: usize = 6;
/// Longer parts of a key show their end only.
const PART_MAX: usize = 14;

/// What a commit did.
pub(super) fn commit(guards: &[Guard], writes: &str, outcome: &Commit) -> String {
    match outcome {
        Commit::Done(revision) => format!("{revision}: {writes}"),
        Commit::Lost(present) => {
            let why = guards.iter().find_map(|guard| broken(guard, present)).unwrap_or_default();
            format!("lost at {} ({why}): {writes}", present.revision)
        }
    }
}

/// The writes of a commit: `+` for a put, `-` for a deletion.
pub(super) fn writes(writes: &[Write]) -> String {
    some(writes.iter().map(|write| match write {
        Write::Put(key, _) | Write::PutLeased(key, _, _) => format!("+{}", short(key)),
        Write::Delete(key) => format!("-{}", short(key)),
    }))
}

/// Keys that went with a lease.
pub(super) fn gone(keys: &[Key]) -> String {
    some(keys.iter().map(|key| format!("-{}", short(key))))
}

fn some(words: impl ExactSizeIterator<Item = String>) -> String {
    let count = words.len();
    let mut text = words.take(NAMED_MAX).collect::<Vec<_>>().join(" ");
    if count > NAMED_MAX {
        text.push_str(&format!(" and {} more", count - NAMED_MAX));
    }
    if count == 0 { "nothing".to_owned() } else { text }
}

/// Without the cluster, and of long ids the end.
pub(super) fn short(key: &Key) -> String {
    let part = |part: &str| match part.char_indices().rev().nth(5) {
        Some((from, _)) if part.len() > PART_MAX => format!("…{}", &part[from..]),
        _ => part.to_owned(),
    };
    key.as_str().split('/').skip(2).map(part).collect::<Vec<_>>().join("/")
}

fn broken(guard: &Guard, present: &Snapshot) -> Option<String> {
    let entry = present.get(guard.key());
    let name = short(guard.key());
    match (guard, entry) {
        (Guard::Absent(_), Some(entry)) => Some(format!("{name} is there since {}", entry.create_revision)),
        (Guard::Unchanged(_, _) | Guard::Created(_, _), None) => Some(format!("{name} is gone")),
        (Guard::Unchanged(_, at), Some(entry)) if entry.mod_revision != *at => {
            Some(format!("{name} is of {}, not {at}", entry.mod_revision))
        }
        (Guard::Created(_, at), Some(entry)) if entry.create_revision != *at => {
            Some(format!("{name} was made at {}, not {at}", entry.create_revision))
        }
        _ => None,
    }
}
