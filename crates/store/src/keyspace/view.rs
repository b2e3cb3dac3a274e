//! The whole cluster, decoded from one listing: what a new leader loads. It stays the truth because the leader is the only
//! writer: after each commit it applies its own writes ([`View::apply`]) instead of listing again.

use std::collections::BTreeMap;

use model::{
    Assignment, Checkpoint, Epoch, Grantee, ObjectId, ObjectKind, SplitId, SplitRecord, TaskId, WorkerRecord,
};

use super::{
    AssignmentKey, CheckpointKey, GranteeKey, Keyspace, Kind, Lane, LaneKey, LeaderKey, LeaderRecord,
    NameKey, ObjectKey, ObjectRecord, Schema, SchemaKey, SplitKey, WorkerKey, decode,
};
use crate::{Entry, Error, ErrorKind, Guard, Key, Result, Revision, Snapshot, Write};

/// A value and when it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// When the key came to be (again).
    pub create_revision: Revision,
    /// When the key was last written: the epoch's revision, for an assignment.
    pub mod_revision: Revision,
}

/// One map of the view.
type Table<K> = BTreeMap<<K as Kind>::Id, Versioned<<K as Kind>::Value>>;

/// Everything that a cluster keeps, by its identity.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct View {
    /// As of this revision.
    pub revision: Revision,
    /// The layout and the life of the store; empty before the first leader.
    pub schema: Option<Versioned<Schema>>,
    /// Who leads; empty when nobody does.
    pub leader: Option<Versioned<LeaderRecord>>,
    /// Names of objects.
    pub names: BTreeMap<(ObjectKind, String), Versioned<ObjectId>>,
    /// The catalog.
    pub objects: BTreeMap<ObjectId, Versioned<ObjectRecord>>,
    /// Splits by source.
    pub splits: BTreeMap<(ObjectId, SplitId), Versioned<SplitRecord>>,
    /// Workers by name.
    pub workers: BTreeMap<String, Versioned<WorkerRecord>>,
    /// Users and roles by name.
    pub grantees: BTreeMap<String, Versioned<Grantee>>,
    /// Who runs what.
    pub assignments: BTreeMap<TaskId, Versioned<Assignment>>,
    /// Where each task is.
    pub checkpoints: BTreeMap<TaskId, Versioned<Checkpoint>>,
    /// The lanes of checkpoint transactions, by worker and number.
    pub lanes: BTreeMap<(String, u32), Versioned<Lane>>,
    /// Keys under the cluster that are of no kind we know: somebody else's, and left alone.
    pub strangers: Vec<Key>,
}

impl View {
    /// Decodes a listing of [`Keyspace::all`].
    ///
    /// # Errors
    /// `Corrupt`, naming the key, if a key or value of a known kind is not readable.
    pub fn decode(keys: &Keyspace, snapshot: &Snapshot) -> Result<Self> {
        let mut view = Self { revision: snapshot.revision, ..Self::default() };
        for entry in &snapshot.entries {
            view.set(keys, entry)?;
        }
        Ok(view)
    }

    /// Applies the writes of a commit of ours that was `Done` at `revision`.
    ///
    /// # Errors
    /// As [`View::decode`].
    pub fn apply(&mut self, keys: &Keyspace, writes: &[Write], revision: Revision) -> Result<()> {
        for write in writes {
            match write {
                Write::Put(key, value) | Write::PutLeased(key, value, _) => {
                    let (value, mod_revision) = (value.clone(), revision);
                    let entry = Entry { key: key.clone(), value, create_revision: revision, mod_revision };
                    self.set(keys, &entry)?;
                }
                Write::Delete(key) => self.unset(keys, key)?,
            }
        }
        self.revision = self.revision.max(revision);
        Ok(())
    }

    /// Takes over what a lost commit told of the guarded keys: those it names as they are, the others as gone.
    ///
    /// # Errors
    /// As [`View::decode`].
    pub fn correct(&mut self, keys: &Keyspace, guards: &[Guard], present: &Snapshot) -> Result<()> {
        for guard in guards {
            self.unset(keys, guard.key())?;
            if let Some(entry) = present.get(guard.key()) {
                self.set(keys, entry)?;
            }
        }
        self.revision = self.revision.max(present.revision);
        Ok(())
    }

    /// The epoch whose assignment was written at `mod_revision`.
    #[must_use]
    pub fn epoch(&self, mod_revision: Revision) -> Epoch {
        Epoch { generation: self.generation(), revision: mod_revision }
    }

    /// The generation of the store; 0 before the first leader.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.schema.as_ref().map_or(0, |schema| schema.value.generation)
    }

    fn set(&mut self, keys: &Keyspace, entry: &Entry) -> Result<()> {
        match word(keys, &entry.key)? {
            SchemaKey::WORD => put_one::<SchemaKey>(&mut self.schema, keys, entry),
            LeaderKey::WORD => put_one::<LeaderKey>(&mut self.leader, keys, entry),
            NameKey::WORD => put::<NameKey>(&mut self.names, keys, entry),
            ObjectKey::WORD => put::<ObjectKey>(&mut self.objects, keys, entry),
            SplitKey::WORD => put::<SplitKey>(&mut self.splits, keys, entry),
            WorkerKey::WORD => put::<WorkerKey>(&mut self.workers, keys, entry),
            GranteeKey::WORD => put::<GranteeKey>(&mut self.grantees, keys, entry),
            AssignmentKey::WORD => put::<AssignmentKey>(&mut self.assignments, keys, entry),
            CheckpointKey::WORD => put::<CheckpointKey>(&mut self.checkpoints, keys, entry),
            LaneKey::WORD => put::<LaneKey>(&mut self.lanes, keys, entry),
            _ => {
                self.strangers.push(entry.key.clone());
                Ok(())
            }
        }
    }

    fn unset(&mut self, keys: &Keyspace, key: &Key) -> Result<()> {
        match word(keys, key)? {
            SchemaKey::WORD => remove_one::<SchemaKey>(&mut self.schema, keys, key),
            LeaderKey::WORD => remove_one::<LeaderKey>(&mut self.leader, keys, key),
            NameKey::WORD => remove::<NameKey>(&mut self.names, keys, key),
            ObjectKey::WORD => remove::<ObjectKey>(&mut self.objects, keys, key),
            SplitKey::WORD => remove::<SplitKey>(&mut self.splits, keys, key),
            WorkerKey::WORD => remove::<WorkerKey>(&mut self.workers, keys, key),
            GranteeKey::WORD => remove::<GranteeKey>(&mut self.grantees, keys, key),
            AssignmentKey::WORD => remove::<AssignmentKey>(&mut self.assignments, keys, key),
            CheckpointKey::WORD => remove::<CheckpointKey>(&mut self.checkpoints, keys, key),
            LaneKey::WORD => remove::<LaneKey>(&mut self.lanes, keys, key),
            _ => {
                self.strangers.retain(|stranger| stranger != key);
                Ok(())
            }
        }
    }
}

/// The segment that tells the kind.
fn word<'a>(keys: &Keyspace, key: &'a Key) -> Result<&'a str> {
    keys.segments(key)
        .and_then(|segments| segments.first().copied())
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("key `{key}` is not under `{}`", keys.all())))
}

fn id<K: Kind>(keys: &Keyspace, key: &Key) -> Result<K::Id> {
    keys.parse::<K>(key).ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, format!("key `{key}` is not a key of kind `{}`", K::WORD))
    })
}

/// The entry's value over what was there: a put of ours keeps the revision at which the key came to be.
fn versioned<K: Kind>(old: Option<&Versioned<K::Value>>, entry: &Entry) -> Result<Versioned<K::Value>> {
    let create_revision = old.map_or(entry.create_revision, |old| old.create_revision);
    let value = decode(&entry.key, &entry.value)?;
    Ok(Versioned { value, create_revision, mod_revision: entry.mod_revision })
}

fn put<K: Kind>(table: &mut Table<K>, keys: &Keyspace, entry: &Entry) -> Result<()> {
    let id = id::<K>(keys, &entry.key)?;
    let value = versioned::<K>(table.get(&id), entry)?;
    table.insert(id, value);
    Ok(())
}

fn put_one<K: Kind>(place: &mut Option<Versioned<K::Value>>, keys: &Keyspace, entry: &Entry) -> Result<()> {
    id::<K>(keys, &entry.key)?;
    *place = Some(versioned::<K>(place.as_ref(), entry)?);
    Ok(())
}

fn remove<K: Kind>(table: &mut Table<K>, keys: &Keyspace, key: &Key) -> Result<()> {
    table.remove(&id::<K>(keys, key)?);
    Ok(())
}

fn remove_one<K: Kind>(place: &mut Option<Versioned<K::Value>>, keys: &Keyspace, key: &Key) -> Result<()> {
    id::<K>(keys, key)?;
    *place = None;
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::{Creation, Position, Timestamp};

    use super::*;

    fn checkpoint(serial: u64) -> Checkpoint {
        Checkpoint {
            position: Position::End,
            epoch: Epoch { generation: 1, revision: 4 },
            serial,
            caught_up_at: None,
            records: 9,
            run_records: 4,
            at: Timestamp(3),
            gap: None,
        }
    }

    fn task() -> TaskId {
        TaskId::reads(ObjectId::from_parts(1, 2), SplitId::new(Creation(8), "s/0"))
    }

    fn entry(key: Key, value: &str, revision: Revision) -> Entry {
        Entry { key, value: value.to_owned().into(), create_revision: revision, mod_revision: revision }
    }

    #[test]
    fn own_commits_keep_the_view_true() {
        let keys = Keyspace::new("c");
        let mut view = View::decode(&keys, &Snapshot { revision: 3, entries: vec![] }).unwrap();
        let first = keys.put::<CheckpointKey>(&task(), &checkpoint(1));
        view.apply(&keys, &[first, keys.put::<LaneKey>(&("w".into(), 0), &Lane { serial: 1 })], 4).unwrap();
        view.apply(&keys, &[keys.put::<CheckpointKey>(&task(), &checkpoint(2))], 5).unwrap();
        let now = &view.checkpoints[&task()];
        assert_eq!((now.create_revision, now.mod_revision, now.value.serial), (4, 5, 2));
        view.apply(&keys, &[keys.delete::<LaneKey>(&("w".into(), 0))], 6).unwrap();
        assert!(view.lanes.is_empty());
        assert_eq!(view.revision, 6);
    }

    #[test]
    fn a_lost_commit_corrects_the_view() {
        let keys = Keyspace::new("c");
        let mut view = View::default();
        let writes = [
            keys.put::<LaneKey>(&("w".into(), 0), &Lane { serial: 1 }),
            keys.put::<LaneKey>(&("w".into(), 1), &Lane { serial: 1 }),
        ];
        view.apply(&keys, &writes, 2).unwrap();
        let guards = [Guard::Unchanged(keys.lane("w", 0), 2), Guard::Unchanged(keys.lane("w", 1), 2)];
        let present = Snapshot { revision: 9, entries: vec![entry(keys.lane("w", 1), r#"{"serial":7}"#, 8)] };
        view.correct(&keys, &guards, &present).unwrap();
        assert_eq!(view.lanes.len(), 1);
        let lane = &view.lanes[&("w".to_owned(), 1)];
        assert_eq!((lane.value.serial, lane.create_revision, lane.mod_revision), (7, 8, 8));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let keys = Keyspace::new("c");
        let bad = |key: Key, value: &str| {
            let snapshot = Snapshot { revision: 1, entries: vec![entry(key, value, 1)] };
            View::decode(&keys, &snapshot)
        };
        let error = bad(keys.worker("w"), "{").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt);
        assert!(error.to_string().contains("/c/worker/w"), "{error}");
        let error = bad(Key("/c/lane/w/x".into()), "{}").unwrap_err();
        assert!(error.to_string().contains("/c/lane/w/x"), "{error}");
        let view = bad(Key("/c/notes/mine".into()), "hello").unwrap();
        assert_eq!(view.strangers, [Key("/c/notes/mine".into())]);
    }
}
