//! `/{cluster}/assignment/{sink}/{creation}/{split}` and `/{cluster}/assignment/{sink}/partition/{n}`: who runs a task. Written once per run and never edited: its
//! modification revision is the epoch (I3, P6).

use model::{Assignment, TaskId, Work};

use super::{
    Keyspace, Kind,
    object::object_id,
    segment,
    split::{read_owned, write_owned},
};
use crate::Key;

/// In the place of a creation, which is a number.
const PARTITION: &str = "partition";

/// The kind of this key.
pub struct AssignmentKey;

impl Kind for AssignmentKey {
    type Id = TaskId;
    type Value = Assignment;
    const WORD: &'static str = "assignment";
    fn write(task: &TaskId, path: &mut String) {
        write_task(task, path);
    }
    fn read(segments: &[&str]) -> Option<TaskId> {
        read_task(segments)
    }
}

/// `/{sink}/{creation}/{split}` or `/{sink}/partition/{n}`: shared with the keys of checkpoints, of which only split tasks have one.
pub(super) fn write_task(task: &TaskId, path: &mut String) {
    match &task.work {
        Work::Split(split) => write_owned(task.sink, split, path),
        Work::Partition(n) => {
            segment::push(path, &task.sink.to_string());
            segment::push(path, PARTITION);
            segment::push(path, &n.to_string());
        }
    }
}

/// What [`write_task`] wrote.
pub(super) fn read_task(segments: &[&str]) -> Option<TaskId> {
    if let [sink, PARTITION, n] = segments {
        return Some(TaskId::writes(object_id(sink)?, segment::number(n)?));
    }
    read_owned(segments).map(|(sink, split)| TaskId::reads(sink, split))
}

impl Keyspace {
    /// The key of one task's assignment.
    #[must_use]
    pub fn assignment(&self, task: &TaskId) -> Key {
        self.key::<AssignmentKey>(task)
    }
}
