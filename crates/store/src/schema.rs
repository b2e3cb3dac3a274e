//! The layout of the store, looked at by every new leader before it reads or writes anything else.
//!
//! A store of an older layout is brought forward, step by step, by the table [`MIGRATIONS`]; there is no way back. A store of
//! a newer one is refused, unless that says that our releases may still work there (so that old and new coordinators can take
//! turns during a rolling upgrade). Every write is guarded by the leader key (I3).
//!
//! To change the layout: raise [`SCHEMA_VERSION`], add a step, and keep `tests/layout_1.json` readable: it is a store as
//! the first layout has it, and a test brings it forward.

use crate::{
    COMMIT_OPS_MAX, Commit, Error, ErrorKind, Guard, Keyspace, MetadataStore, Result, Schema, SchemaKey,
    Snapshot, Write, decode,
};

/// The layout that this release reads and writes.
pub const SCHEMA_VERSION: u32 = 1;

/// Stands in the place of the version while a backup is being restored: no release works on half a cluster.
pub(crate) const RESTORING: u32 = u32::MAX;

/// One step forward.
struct Migration {
    /// The layout that it makes, out of the one before.
    to: u32,
    /// The oldest layout whose releases may still work on the result.
    readable_from: u32,
    /// What it does, for the log.
    what: &'static str,
    /// Its writes, from everything that the cluster keeps. It may have been carried out in part before.
    writes: fn(&Keyspace, &Snapshot) -> Result<Vec<Write>>,
}

/// All steps, oldest first.
const MIGRATIONS: &[Migration] = &[];

/// Makes sure that the store has our layout: writes it into an empty one, brings an older one forward. `leader` guards every
/// write.
///
/// # Errors
/// `Config` for a newer layout and for a restore that has not finished; `Unavailable` if the leadership was lost meanwhile;
/// those of the store.
pub async fn ensure_schema(store: &dyn MetadataStore, keys: &Keyspace, leader: &Guard) -> Result<Schema> {
    bring_forward(store, keys, leader, (SCHEMA_VERSION, MIGRATIONS)).await
}

/// Refuses a layout that a release which knows `ours` must not touch.
pub(crate) fn refuse_newer(schema: &Schema, ours: u32, what: &str) -> Result<()> {
    let text = if schema.version == RESTORING {
        format!(
            "the restore of {what} has not finished: let it, or run `shardwright restore --replace` again"
        )
    } else if schema.oldest_reader() > ours {
        let theirs = schema.version;
        format!(
            "{what} was written by a newer release (layout {theirs}, this one knows up to {ours}): run that release or a \
             newer one"
        )
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Config, text))
}

async fn bring_forward(
    store: &dyn MetadataStore,
    keys: &Keyspace,
    leader: &Guard,
    (ours, migrations): (u32, &[Migration]),
) -> Result<Schema> {
    let key = keys.schema();
    let present = store.list(&key).await?;
    let Some(entry) = present.get(&key) else {
        let schema = Schema::first(ours);
        let write = keys.put::<SchemaKey>(&(), &schema);
        led(store, &[leader.clone(), Guard::Absent(key)], vec![write]).await?;
        return Ok(schema);
    };
    let mut schema: Schema = decode(&key, &entry.value)?;
    refuse_newer(&schema, ours, &format!("the store under `{}`", keys.all()))?;
    let (stood, mut revision) = (schema.version, entry.mod_revision);
    for step in migrations.iter().filter(|step| step.to > stood) {
        tracing::info!(from = schema.version, to = step.to, what = step.what, "the store is brought forward");
        let writes = (step.writes)(keys, &store.list(&keys.all()).await?)?;
        for batch in writes.chunks(COMMIT_OPS_MAX) {
            led(store, &[leader.clone(), Guard::Unchanged(key.clone(), revision)], batch.to_vec()).await?;
        }
        schema = Schema { version: step.to, readable_from: step.readable_from, ..schema };
        let guards = [leader.clone(), Guard::Unchanged(key.clone(), revision)];
        revision = led(store, &guards, vec![keys.put::<SchemaKey>(&(), &schema)]).await?;
    }
    Ok(schema)
}

/// A commit of the leader.
async fn led(store: &dyn MetadataStore, guards: &[Guard], writes: Vec<Write>) -> Result<u64> {
    match store.commit(guards, writes).await? {
        Commit::Done(revision) => Ok(revision),
        Commit::Lost(_) => {
            Err(Error::new(ErrorKind::Unavailable, "leadership was lost before the layout was written"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EmbeddedStore, View};

    async fn led_store() -> (EmbeddedStore, Keyspace, Guard) {
        let (store, keys) = (EmbeddedStore::in_memory(), Keyspace::new("c"));
        let Commit::Done(led) =
            store.commit(&[], vec![Write::Put(keys.leader(), r#"{"address":""}"#.into())]).await.unwrap()
        else {
            panic!("lost")
        };
        let guard = Guard::Created(keys.leader(), led);
        (store, keys, guard)
    }

    #[tokio::test]
    async fn an_empty_store_gets_our_layout_and_keeps_it() {
        let (store, keys, guard) = led_store().await;
        let schema = ensure_schema(&store, &keys, &guard).await.unwrap();
        assert_eq!(schema, Schema::first(SCHEMA_VERSION));
        assert_eq!(ensure_schema(&store, &keys, &guard).await.unwrap(), schema);
    }

    #[tokio::test]
    async fn who_does_not_lead_writes_no_layout() {
        let (store, keys) = (EmbeddedStore::in_memory(), Keyspace::new("c"));
        let error = ensure_schema(&store, &keys, &Guard::Created(keys.leader(), 1)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(store.list(&keys.all()).await.unwrap().entries.is_empty());
    }

    #[tokio::test]
    async fn a_newer_layout_is_refused_unless_it_lets_us_in() {
        let (store, keys, guard) = led_store().await;
        let newer = Schema::first(SCHEMA_VERSION + 1);
        store.commit(&[], vec![keys.put::<SchemaKey>(&(), &newer)]).await.unwrap();
        let error = ensure_schema(&store, &keys, &guard).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Config);
        let text = format!("newer release (layout {}", SCHEMA_VERSION + 1);
        assert!(error.to_string().contains(&text), "{error}");
        let additive = Schema { readable_from: SCHEMA_VERSION, ..newer };
        store.commit(&[], vec![keys.put::<SchemaKey>(&(), &additive)]).await.unwrap();
        assert_eq!(ensure_schema(&store, &keys, &guard).await.unwrap(), additive, "left as it is");
    }

    #[tokio::test]
    async fn half_a_restored_cluster_is_refused_with_the_way_out() {
        let (store, keys, guard) = led_store().await;
        store.commit(&[], vec![keys.put::<SchemaKey>(&(), &Schema::first(RESTORING))]).await.unwrap();
        let error = ensure_schema(&store, &keys, &guard).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Config);
        assert!(error.to_string().contains("restore --replace"), "{error}");
    }

    /// The first gives every worker a zone, more of them than one commit takes; the second only adds a key.
    const STEPS: &[Migration] = &[
        Migration { to: 2, readable_from: 0, what: "zones", writes: zones },
        Migration { to: 3, readable_from: 2, what: "a note", writes: note },
    ];

    fn zones(keys: &Keyspace, all: &Snapshot) -> Result<Vec<Write>> {
        let view = View::decode(keys, all)?;
        let workers = view.workers.into_iter().map(|(name, stored)| {
            let record = model::WorkerRecord { zone: "z".to_owned(), ..stored.value };
            keys.put::<crate::WorkerKey>(&name, &record)
        });
        Ok(workers.collect())
    }

    fn note(_: &Keyspace, _: &Snapshot) -> Result<Vec<Write>> {
        Ok(vec![Write::Put(crate::Key("/c/note".to_owned()), "3".into())])
    }

    /// A store as a release of the first layout leaves it, with so many workers.
    async fn first_layout(store: &EmbeddedStore, keys: &Keyspace, workers: usize) {
        let mut writes = vec![keys.put::<SchemaKey>(&(), &Schema::first(1))];
        for n in 0..workers {
            let value =
                r#"{"process":"p","instance":"i","capacity":1,"version":"0.1.0","zone":"","address":""}"#;
            writes.push(Write::Put(keys.worker(&format!("w{n}")), value.into()));
        }
        for batch in writes.chunks(COMMIT_OPS_MAX) {
            store.commit(&[], batch.to_vec()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_older_layout_is_brought_forward_step_by_step_and_once() {
        let (store, keys, guard) = led_store().await;
        first_layout(&store, &keys, 300).await;
        let schema = bring_forward(&store, &keys, &guard, (3, STEPS)).await.unwrap();
        assert_eq!((schema.version, schema.oldest_reader(), schema.generation), (3, 2, 1));
        let snapshot = store.list(&keys.all()).await.unwrap();
        let view = View::decode(&keys, &snapshot).unwrap();
        assert_eq!(view.workers.values().filter(|worker| worker.value.zone == "z").count(), 300);
        assert_eq!(view.strangers.len(), 1);
        bring_forward(&store, &keys, &guard, (3, STEPS)).await.unwrap();
        assert_eq!(store.list(&keys.all()).await.unwrap().revision, snapshot.revision, "nothing is written");
    }

    #[tokio::test]
    async fn who_is_deposed_on_the_way_leaves_a_layout_that_the_next_leader_completes() {
        let (store, keys, guard) = led_store().await;
        first_layout(&store, &keys, 3).await;
        let deposed = Guard::Created(keys.leader(), 999);
        let error = bring_forward(&store, &keys, &deposed, (3, STEPS)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        let view = View::decode(&keys, &store.list(&keys.all()).await.unwrap()).unwrap();
        assert_eq!(view.schema.unwrap().value.version, 1);
        assert_eq!(bring_forward(&store, &keys, &guard, (3, STEPS)).await.unwrap().version, 3);
    }

    #[test]
    fn every_layout_has_a_step_that_makes_it() {
        let made: Vec<u32> = MIGRATIONS.iter().map(|step| step.to).collect();
        let layouts: Vec<u32> = (1..SCHEMA_VERSION).map(|before| before + 1).collect();
        assert_eq!(made, layouts);
    }

    /// A cluster as the releases of layout 1 wrote it. Whoever makes this test fail needs a migration.
    #[tokio::test]
    async fn a_store_of_the_first_layout_is_readable() {
        let (store, keys, guard) = led_store().await;
        let text = include_str!("../tests/layout_1.json");
        let kept: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        let writes = kept.iter().map(|(key, value)| {
            Write::Put(crate::Key(format!("/c/{key}")), serde_json::to_vec(value).unwrap().into())
        });
        let writes: Vec<Write> = writes.collect();
        store.commit(&[], writes).await.unwrap();
        ensure_schema(&store, &keys, &guard).await.unwrap();
        let view = View::decode(&keys, &store.list(&keys.all()).await.unwrap()).unwrap();
        assert!(view.strangers.is_empty(), "{:?}", view.strangers);
        assert_eq!((view.names.len(), view.objects.len(), view.splits.len()), (2, 2, 2));
        assert_eq!((view.workers.len(), view.assignments.len(), view.checkpoints.len()), (1, 2, 2));
        assert_eq!(view.lanes.len(), 1);
    }
}
