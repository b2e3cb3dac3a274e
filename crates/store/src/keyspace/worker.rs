//! `/{cluster}/worker/{name}`: a worker that joined. A record without a lease: liveness is what the leader heard.

use model::WorkerRecord;

use super::{Keyspace, Kind, segment};
use crate::Key;

/// The kind of this key.
pub struct WorkerKey;

impl Kind for WorkerKey {
    type Id = String;
    type Value = WorkerRecord;
    const WORD: &'static str = "worker";
    fn write(name: &String, path: &mut String) {
        segment::push(path, name);
    }
    fn read(segments: &[&str]) -> Option<String> {
        let [name] = segments else { return None };
        segment::decode(name)
    }
}

impl Keyspace {
    /// The key of one worker.
    #[must_use]
    pub fn worker(&self, name: &str) -> Key {
        self.key::<WorkerKey>(&name.to_owned())
    }
}
