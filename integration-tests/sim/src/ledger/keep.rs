//! What one destination holds, in the order in which it came.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use integration_tests::ledger::Found;
use model::{Epoch, TaskId};
use serde_json::Value;

use crate::place::Place;

/// One row.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When it became durable, was refused, or was sent.
    pub at: Duration,
    /// Its key and number; none for what is no record of the load (a dead letter).
    pub record: Option<Found>,
    /// The row as JSON.
    pub value: Bytes,
    /// The task that it came from.
    pub task: TaskId,
    /// The run that wrote it.
    pub epoch: Epoch,
    /// Where that run was.
    pub worker: Place,
    /// False: the destination looked at it and refused it, for good.
    pub taken: bool,
}

/// A row as a run knows it.
type Written = (TaskId, Epoch, Bytes);

/// One destination.
#[derive(Debug, Default)]
pub struct Kept {
    arrivals: Vec<Arrival>,
    /// Different records among them.
    records: BTreeSet<(String, u64)>,
    /// Rows that were refused, so that each is noted once of each run.
    refused: BTreeSet<Written>,
    /// Rows whose run has heard that they are durable.
    confirmed: BTreeSet<Written>,
    /// Rows that a run sent again although it had heard so, as they were sent.
    needless: Vec<Arrival>,
    /// The newest run that has written, by task.
    newest: BTreeMap<TaskId, Epoch>,
    /// Rows of a run that came after those of a newer one.
    overtaken: Vec<Arrival>,
}

impl Kept {
    /// Everything that came, refused rows too.
    #[must_use]
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// How many different records of the load came: whether all are there is told by this at once, without an audit.
    #[must_use]
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// Rows that a run sent again although it had been told that they are durable.
    #[must_use]
    pub fn needless(&self) -> &[Arrival] {
        &self.needless
    }

    /// Rows that landed after a newer run of their task had written (I11).
    #[must_use]
    pub fn overtaken(&self) -> &[Arrival] {
        &self.overtaken
    }

    /// A run sends a row. What it had heard by then counts: the request may be late. To a partition a newer run of the split may
    /// bring the row again.
    pub(super) fn sent(&mut self, arrival: Arrival) {
        if arrival.task.split().is_some() && self.confirmed.contains(&written(&arrival)) {
            self.needless.push(arrival);
        }
    }

    pub(super) fn store(&mut self, arrival: Arrival) {
        let newest = self.newest.entry(arrival.task.clone()).or_insert(arrival.epoch);
        if arrival.epoch < *newest {
            self.overtaken.push(arrival.clone());
        }
        *newest = arrival.epoch.max(*newest);
        self.push(arrival);
    }

    pub(super) fn refuse(&mut self, arrival: Arrival) {
        if self.refused.insert(written(&arrival)) {
            self.push(arrival);
        }
    }

    fn push(&mut self, arrival: Arrival) {
        self.records.extend(arrival.record.iter().map(|record| (record.key.clone(), record.n)));
        self.arrivals.push(arrival);
    }

    pub(super) fn confirm(&mut self, stored: impl IntoIterator<Item = Written>) {
        self.confirmed.extend(stored);
    }
}

pub(super) fn written(arrival: &Arrival) -> Written {
    (arrival.task.clone(), arrival.epoch, arrival.value.clone())
}

/// Key and number of a row.
#[must_use]
pub fn record(value: &[u8]) -> Option<Found> {
    let row: Value = serde_json::from_slice(value).ok()?;
    Some(Found { key: row.get("k")?.as_str()?.to_owned(), n: row.get("n")?.as_u64()? })
}
