//! `/{cluster}/assignment/{sink}/{creation}/{split}`: who runs a task. Written once per run and never edited: its
//! modification revision is the epoch (I3, P6).

use model::{Assignment, TaskId};

use super::{
    Keyspace, Kind,
    split::{read_owned, write_owned},
};
use crate::Key;

/// The kind of this key.
pub struct AssignmentKey;

impl Kind for AssignmentKey {
    type Id = TaskId;
    type Value = Assignment;
    const WORD: &'static str = "assignment";
    fn write(task: &TaskId, path: &mut String) {
        write_owned(task.sink, &task.split, path);
    }
    fn read(segments: &[&str]) -> Option<TaskId> {
        read_owned(segments).map(|(sink, split)| TaskId { sink, split })
    }
}

impl Keyspace {
    /// The key of one task's assignment.
    #[must_use]
    pub fn assignment(&self, task: &TaskId) -> Key {
        self.key::<AssignmentKey>(task)
    }
}
