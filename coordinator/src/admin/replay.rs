//! A call that is repeated with its request id gets the first call's answer (ten minutes, same leadership). The first call
//! runs to its end even if its caller has gone, so that a repeat finds what came of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use proto::v1::ExecuteReply;
use tokio::sync::watch;
use tonic::{Code, Status};

/// How long an answer is remembered.
const KEPT: Duration = Duration::from_secs(600);

/// How many answers are remembered at most; the oldest goes first.
const ANSWERS_MAX: usize = 256;

/// Larger answers are not remembered: they are those of queries, which may be asked again.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// What came of a call: its replies, and the error that ended it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub replies: Vec<ExecuteReply>,
    pub error: Option<Status>,
}

/// The place where the answer of one call will be.
#[derive(Clone, Debug)]
pub(super) struct Slot(Arc<watch::Sender<Option<Outcome>>>);

impl Slot {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// The call is over.
    pub fn fill(&self, outcome: Outcome) {
        self.0.send_replace(Some(outcome));
    }

    /// Waits until it is.
    pub async fn wait_filled(&self) -> Outcome {
        let mut receiver = self.0.subscribe();
        match receiver.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_default(),
            Err(_) => Outcome::default(),
        }
    }
}

/// The duty to fill a slot. Who drops it without having done so leaves an answer nevertheless: nobody waits for ever.
pub(super) struct Filling(pub Slot);

impl Drop for Filling {
    fn drop(&mut self) {
        let broke = || {
            let text = "the first call with this request id broke off, what came of it is not known";
            let error = Some(proto::refusal(Code::Unknown, "UNKNOWN_OUTCOME", text, &[]));
            Some(Outcome { replies: Vec::new(), error })
        };
        self.0.0.send_if_modified(|outcome| {
            let unfilled = outcome.is_none();
            if unfilled {
                *outcome = broke();
            }
            unfilled
        });
    }
}

/// What is known of a request id.
pub(super) enum Seen {
    /// Nothing: run it and fill the slot.
    New(Slot),
    /// It runs or ran: wait for the slot.
    Before(Slot),
    /// It was used for other statements.
    Mismatch,
}

struct Entry {
    at: Instant,
    leader: u64,
    /// Statements are full of secrets: what is kept tells only whether it is the same.
    statement: [u8; 32],
    slot: Slot,
}

/// The remembered answers of one coordinator.
pub(super) struct Replay {
    /// New in each process: a digest that was found somewhere cannot be compared with guesses.
    salt: [u8; 32],
    entries: Mutex<HashMap<String, Entry>>,
}

impl Default for Replay {
    fn default() -> Self {
        Self { salt: rand::random(), entries: Mutex::default() }
    }
}

impl Replay {
    fn digest(&self, statement: &str) -> [u8; 32] {
        let digest = digest(&SHA256, &[&self.salt, statement.as_bytes()].concat());
        digest.as_ref().try_into().expect("this digest has 32 bytes")
    }

    /// Looks a request id up, under this leadership.
    pub fn see(&self, id: &str, statement: &str, leader: u64) -> Seen {
        let statement = self.digest(statement);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.at.elapsed() < KEPT && entry.leader == leader);
        if let Some(entry) = entries.get(id) {
            return match entry.statement == statement {
                true => Seen::Before(entry.slot.clone()),
                false => Seen::Mismatch,
            };
        }
        if entries.len() >= ANSWERS_MAX {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.at).map(|(id, _)| id.clone());
            entries.remove(&oldest.unwrap_or_default());
        }
        let slot = Slot::new();
        let entry = Entry { at: Instant::now(), leader, statement, slot: slot.clone() };
        entries.insert(id.to_owned(), entry);
        Seen::New(slot)
    }

    /// Forgets an answer that is too large to keep.
    pub fn settle(&self, id: &str, outcome: &Outcome) {
        let size: usize = outcome.replies.iter().map(prost_size).sum();
        if size > ANSWER_BYTES_MAX {
            self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        }
    }
}

/// About how many bytes a reply holds.
fn prost_size(reply: &ExecuteReply) -> usize {
    use proto::v1::execute_reply::Answer;
    match &reply.answer {
        Some(Answer::Notice(text) | Answer::Tag(text)) => text.len(),
        Some(Answer::Rows(set)) => set
            .rows
            .iter()
            .flat_map(|row| &row.values)
            .map(|value| 16 + value.text.as_ref().map_or(0, String::len))
            .sum(),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_broke_off_keeps_nobody_waiting_who_repeats_it() {
        let slot = Slot::new();
        drop(Filling(slot.clone()));
        assert_eq!(slot.wait_filled().await.error.map(|error| error.code()), Some(Code::Unknown));
        let slot = Slot::new();
        let filling = Filling(slot.clone());
        filling.0.fill(Outcome::default());
        drop(filling);
        assert!(slot.wait_filled().await.error.is_none(), "what was answered stays");
    }
}
