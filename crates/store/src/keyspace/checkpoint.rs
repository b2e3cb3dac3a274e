//! `/{cluster}/checkpoint/{sink}/{creation}/{split}`: the durable position of a task. Written by the leader's
//! checkpointer under the guards of P14; never goes back (I1, I4).

use model::{Checkpoint, TaskId};

use super::{
    Keyspace, Kind,
    assignment::{read_task, write_task},
};
use crate::Key;

/// The kind of this key.
pub struct CheckpointKey;

impl Kind for CheckpointKey {
    type Id = TaskId;
    type Value = Checkpoint;
    const WORD: &'static str = "checkpoint";
    fn write(task: &TaskId, path: &mut String) {
        write_task(task, path);
    }
    fn read(segments: &[&str]) -> Option<TaskId> {
        read_task(segments)
    }
}

impl Keyspace {
    /// The key of one task's checkpoint.
    #[must_use]
    pub fn checkpoint(&self, task: &TaskId) -> Key {
        self.key::<CheckpointKey>(task)
    }
}
