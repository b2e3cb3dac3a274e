//! The way of a backup into a store.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio_util::sync::CancellationToken;

use super::{Backup, items, view};
use crate::{
    COMMIT_OPS_MAX, Commit, ElectionTiming, Entry, Error, ErrorKind, Keyspace, LeaderRecord, Leadership,
    MetadataStore, Result, SCHEMA_VERSION, Schema, SchemaKey, Snapshot, Write, campaign, decode,
    schema::{RESTORING, refuse_newer},
};

/// The leader key is held by whoever restores; slower than a leader's, since nobody waits for it.
const TIMING: ElectionTiming =
    ElectionTiming { lease: Duration::from_secs(10), keep_alive: Duration::from_secs(2) };
/// How long to wait for the leader key, which nobody should hold.
const CAMPAIGN: Duration = Duration::from_secs(10);
/// Bytes of values in one commit: etcd takes requests of 1.5 MiB.
const COMMIT_BYTES_MAX: usize = 512 << 10;

/// Where a backup goes, and what may be overwritten.
#[derive(Clone, Debug)]
pub struct RestoreInto {
    /// The cluster that shall have it.
    pub cluster: String,
    /// What stands there is removed.
    pub replace: bool,
    /// The backup may be of a cluster of another name.
    pub rename: bool,
}

/// What a restore did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Restored {
    /// Keys written, and found there afterwards as they are in the backup.
    pub entries: usize,
    /// Keys that were removed before.
    pub removed: usize,
    /// The generation that begins.
    pub generation: u64,
}

impl Backup {
    /// Writes the backup into a store, where nobody leads, as the beginning of a new generation.
    ///
    /// # Errors
    /// `Config` if a coordinator leads there, if the cluster is not empty and `replace` was not said, if the backup is of
    /// another cluster and `rename` was not said, or of a newer layout; `Corrupt` if something in it cannot be read;
    /// those of the store. Until it is through, coordinators refuse the cluster.
    pub async fn restore(&self, store: &Arc<dyn MetadataStore>, into: &RestoreInto) -> Result<Restored> {
        let keys = Keyspace::new(&into.cluster);
        self.check(&keys, into)?;
        refuse_leader(&store.list(&keys.leader()).await?, &keys)?;
        let leadership = lead(store, &keys).await?;
        let restored = self.restore_led(store.as_ref(), &keys, &leadership, into.replace).await;
        let resigned = leadership.resign().await;
        let restored = restored?;
        resigned?;
        Ok(restored)
    }

    /// Whether it may go there at all; nothing is touched before.
    fn check(&self, keys: &Keyspace, into: &RestoreInto) -> Result<()> {
        let contents = &self.contents;
        if contents.cluster != into.cluster && !into.rename {
            return refuse(format!(
                "the backup is of cluster `{}`, and the settings name `{}` (`coordinator.cluster`): say --rename-cluster if \
                 that is meant",
                contents.cluster, into.cluster
            ));
        }
        let sealed = self.items.iter().filter(|item| item.is_sealed()).count();
        if contents.cluster != into.cluster && sealed > 0 {
            return refuse(format!(
                "{sealed} objects of the backup hold secrets, which open in cluster `{}` only: restore under that name",
                contents.cluster
            ));
        }
        refuse_newer(&contents.schema, SCHEMA_VERSION, "the backup")?;
        let entry = |item: &super::Item| Entry {
            key: item.key(keys),
            value: item.value.clone(),
            create_revision: 1,
            mod_revision: 1,
        };
        let snapshot = Snapshot { revision: 1, entries: self.items.iter().map(entry).collect() };
        view(keys, &snapshot).map(drop)
    }

    async fn restore_led(
        &self,
        store: &dyn MetadataStore,
        keys: &Keyspace,
        leadership: &Leadership,
        replace: bool,
    ) -> Result<Restored> {
        let leader = keys.leader();
        let mut there = store.list(&keys.all()).await?;
        there.entries.retain(|entry| entry.key != leader);
        if !there.entries.is_empty() && !replace {
            return refuse(format!(
                "the store holds {} keys under `{}`: restore into an empty cluster, or say --replace to remove them first",
                there.entries.len(),
                keys.all()
            ));
        }
        let generation = self.generation(&there, keys)?;
        let schema = |version| Schema { version, readable_from: 0, generation, begins: true };
        let put = |schema: Schema| vec![keys.put::<SchemaKey>(&(), &schema)];
        commit(store, leadership, put(schema(RESTORING))).await?;
        let key = keys.schema();
        let gone = there.entries.iter().filter(|entry| entry.key != key);
        let gone: Vec<Write> = gone.map(|entry| Write::Delete(entry.key.clone())).collect();
        for batch in batches(&gone) {
            commit(store, leadership, batch.to_vec()).await?;
        }
        let puts = self.items.iter().map(|item| Write::Put(item.key(keys), item.value.clone()));
        let puts: Vec<Write> = puts.collect();
        for batch in batches(&puts) {
            commit(store, leadership, batch.to_vec()).await?;
        }
        let written = store.list(&keys.all()).await?;
        if items(keys, &written) != self.items {
            return Err(Error::new(ErrorKind::Corrupt, "the store does not hold what was written to it"));
        }
        let from = self.contents.schema;
        let last = Schema { readable_from: from.readable_from, ..schema(from.version) };
        commit(store, leadership, put(last)).await?;
        Ok(Restored { entries: self.items.len(), removed: gone.len(), generation })
    }

    /// Larger than that of the backup, than that of what stood here, and than that of any other restore of a backup as old: a
    /// store that is gone tells nobody how far it had come, but time does not go back.
    fn generation(&self, there: &Snapshot, keys: &Keyspace) -> Result<u64> {
        let key = keys.schema();
        let here = there.get(&key).map(|entry| decode::<Schema>(&key, &entry.value)).transpose()?;
        let known = here.map_or(0, |schema| schema.generation).max(self.contents.schema.generation);
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(seconds.max(known.saturating_add(1)))
    }
}

/// Takes the leader key, so that no coordinator can.
async fn lead(store: &Arc<dyn MetadataStore>, keys: &Keyspace) -> Result<Leadership> {
    let cancel = CancellationToken::new();
    // No address: who follows waits until a coordinator leads.
    let campaign = campaign(Arc::clone(store), keys, "", TIMING, &cancel);
    match tokio::time::timeout(CAMPAIGN, campaign).await {
        Ok(Some(leadership)) => Ok(leadership),
        _ => {
            refuse_leader(&store.list(&keys.leader()).await?, keys)?;
            Err(Error::new(ErrorKind::Unavailable, "the leader key could not be taken"))
        }
    }
}

fn refuse_leader(present: &Snapshot, keys: &Keyspace) -> Result<()> {
    let key = keys.leader();
    let Some(entry) = present.get(&key) else { return Ok(()) };
    let address = decode::<LeaderRecord>(&key, &entry.value).map(|leader| leader.address).unwrap_or_default();
    let who = if address.is_empty() {
        "another restore".to_owned()
    } else {
        format!("the coordinator at {address}")
    };
    refuse(format!("{who} leads the cluster under `{}`: stop every coordinator first", keys.all()))
}

async fn commit(store: &dyn MetadataStore, leadership: &Leadership, writes: Vec<Write>) -> Result<()> {
    match store.commit(&[leadership.guard()], writes).await? {
        Commit::Done(_) => Ok(()),
        Commit::Lost(_) => Err(Error::new(
            ErrorKind::Unavailable,
            "the leader key was lost on the way and the restore has not finished: run it again with --replace",
        )),
    }
}

/// As many writes at a time as a commit takes.
pub(super) fn batches(writes: &[Write]) -> Vec<&[Write]> {
    let (mut batches, mut rest) = (Vec::new(), writes);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(COMMIT_OPS_MAX).take_while(|write| {
            bytes += match write {
                Write::Put(_, value) | Write::PutLeased(_, value, _) => value.len(),
                Write::Delete(_) => 0,
            };
            bytes <= COMMIT_BYTES_MAX
        });
        let (batch, left) = rest.split_at(fits.count().max(1));
        batches.push(batch);
        rest = left;
    }
    batches
}

fn refuse<T>(text: String) -> Result<T> {
    Err(Error::new(ErrorKind::Config, text))
}
