use std::sync::Arc;

use model::{Checkpoint, Creation, Epoch, ObjectId, Position, SplitId, TaskId, Timestamp};

use super::*;
use crate::{CheckpointKey, Commit, EmbeddedStore, Guard, Lane, Write, ensure_schema, schema::RESTORING};

const NOW: &str = "2026-01-02T03:04:05Z";

fn task(n: usize) -> TaskId {
    TaskId::reads(ObjectId::from_parts(1, 2), SplitId::new(Creation(8), &format!("shard-{n}")))
}

fn checkpoint(n: usize) -> Checkpoint {
    Checkpoint {
        position: Position::After(model::Cursor::new(format!("{n}"))),
        epoch: Epoch { generation: 1, revision: 4 },
        serial: 7,
        caught_up_at: None,
        records: 9,
        run_records: 4,
        at: Timestamp(3),
        gap: None,
    }
}

/// A cluster with so many checkpoints, and what a leader makes anew.
async fn cluster(name: &str, checkpoints: usize) -> Arc<dyn MetadataStore> {
    let (store, keys) = (EmbeddedStore::in_memory(), Keyspace::new(name));
    let mut writes = vec![
        keys.put::<SchemaKey>(&(), &Schema::first(SCHEMA_VERSION)),
        keys.put::<LaneKey>(&("w".into(), 0), &Lane { serial: 1 }),
        Write::Put(
            keys.worker("w"),
            r#"{"process":"p","instance":"i","capacity":1,"version":"v","zone":"","address":""}"#.into(),
        ),
        Write::Put(Key(format!("/{name}/odd/text")), "not json".into()),
        Write::Put(Key(format!("/{name}/odd/null")), "null".into()),
        Write::Put(Key(format!("/{name}/odd/lines")), "{\n}".into()),
    ];
    writes.extend((0..checkpoints).map(|n| keys.put::<CheckpointKey>(&task(n), &checkpoint(n))));
    for batch in writes.chunks(100) {
        store.commit(&[], batch.to_vec()).await.unwrap();
    }
    Arc::new(store)
}

async fn taken(store: &Arc<dyn MetadataStore>, name: &str) -> Backup {
    Backup::take(store.as_ref(), name, "0.1.0", NOW).await.unwrap()
}

fn bytes(backup: &Backup) -> Vec<u8> {
    let mut file = Vec::new();
    backup.write(&mut file).unwrap();
    file
}

fn into(cluster: &str) -> RestoreInto {
    RestoreInto { cluster: cluster.to_owned(), replace: false, rename: false }
}

fn empty() -> Arc<dyn MetadataStore> {
    Arc::new(EmbeddedStore::in_memory())
}

async fn view(store: &Arc<dyn MetadataStore>, name: &str) -> View {
    let keys = Keyspace::new(name);
    View::decode(&keys, &store.list(&keys.all()).await.unwrap()).unwrap()
}

#[tokio::test]
async fn what_was_kept_comes_back_byte_for_byte_and_what_a_leader_makes_does_not() {
    let store = cluster("c", 300).await;
    let backup = taken(&store, "c").await;
    let file = bytes(&backup);
    let read = Backup::read(&file).unwrap();
    assert_eq!(read, backup);
    assert_eq!((read.contents().checkpoints, read.contents().entries), (300, 303));
    let fresh = empty();
    let restored = read.restore(&fresh, &into("c")).await.unwrap();
    assert_eq!((restored.entries, restored.removed), (303, 0));
    let (before, after) = (view(&store, "c").await, view(&fresh, "c").await);
    assert_eq!(after.strangers, before.strangers);
    let values =
        |view: &View| view.checkpoints.iter().map(|(k, v)| (k.clone(), v.value.clone())).collect::<Vec<_>>();
    assert_eq!(values(&after), values(&before));
    assert!(after.workers.is_empty() && after.lanes.is_empty() && after.leader.is_none());
    let schema = after.schema.unwrap().value;
    assert!(schema.begins && schema.generation > 1_700_000_000, "{schema:?}");
    assert_eq!((schema.generation, schema.version), (restored.generation, SCHEMA_VERSION));
    assert_eq!(
        bytes(&taken(&fresh, "c").await).split(|b| *b == b'\n').count(),
        file.split(|b| *b == b'\n').count()
    );
}

#[tokio::test]
async fn every_restore_begins_a_generation_that_is_newer_than_all_it_can_know_of() {
    let store = cluster("c", 1).await;
    let backup = taken(&store, "c").await;
    let told = RestoreInto { replace: true, ..into("c") };
    let first = backup.restore(&store, &told).await.unwrap();
    let second = backup.restore(&store, &told).await.unwrap();
    assert!(second.generation > first.generation, "{first:?} {second:?}");
    assert_eq!((first.removed, second.removed), (6, 4), "what a leader makes is removed too, once");
    let later = taken(&store, "c").await;
    let third = later.restore(&empty(), &into("c")).await.unwrap();
    assert!(third.generation > second.generation, "{second:?} {third:?}");
}

#[tokio::test]
async fn a_cluster_that_is_not_empty_is_left_alone_unless_told() {
    let (store, other) = (cluster("c", 1).await, cluster("c", 2).await);
    let backup = taken(&other, "c").await;
    let before = store.list(&Keyspace::new("c").all()).await.unwrap().entries;
    let error = backup.restore(&store, &into("c")).await.unwrap_err();
    assert!(error.kind == ErrorKind::Config && error.to_string().contains("--replace"), "{error}");
    assert_eq!(store.list(&Keyspace::new("c").all()).await.unwrap().entries, before);
    backup.restore(&store, &RestoreInto { replace: true, ..into("c") }).await.unwrap();
    assert_eq!(view(&store, "c").await.checkpoints.len(), 2);
}

#[tokio::test]
async fn a_cluster_that_is_led_is_left_alone() {
    let store = cluster("c", 1).await;
    let backup = taken(&store, "c").await;
    let keys = Keyspace::new("c");
    store
        .commit(&[], vec![Write::Put(keys.leader(), r#"{"address":"http://c-1:7070"}"#.into())])
        .await
        .unwrap();
    for replace in [false, true] {
        let error = backup.restore(&store, &RestoreInto { replace, ..into("c") }).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("http://c-1:7070") && text.contains("stop every coordinator"), "{text}");
    }
    assert_eq!(view(&store, "c").await.generation(), 1);
}

#[tokio::test]
async fn the_backup_of_another_cluster_is_refused_unless_told() {
    let backup = taken(&cluster("prod", 1).await, "prod").await;
    let fresh = empty();
    let error = backup.restore(&fresh, &into("test")).await.unwrap_err().to_string();
    assert!(
        error.contains("`prod`") && error.contains("`test`") && error.contains("--rename-cluster"),
        "{error}"
    );
    backup.restore(&fresh, &RestoreInto { rename: true, ..into("test") }).await.unwrap();
    assert_eq!(view(&fresh, "test").await.checkpoints.len(), 1);
}

/// What is sealed stands in the file as it stands in the store, and is bound to the name of its cluster.
#[tokio::test]
async fn sealed_objects_are_copied_unopened_and_cannot_be_renamed() {
    let store = cluster("prod", 1).await;
    let id = ObjectId::from_parts(3, 4);
    let sealed = r#"{"sealed":{"key":"k1","data":"AAAA"},"record":{"no":"reader knows it"}}"#;
    store.commit(&[], vec![Write::Put(Keyspace::new("prod").object(id), sealed.into())]).await.unwrap();
    let backup = taken(&store, "prod").await;
    assert!(String::from_utf8(bytes(&backup)).unwrap().contains(sealed));
    let told = RestoreInto { rename: true, ..into("test") };
    let error = backup.restore(&empty(), &told).await.unwrap_err().to_string();
    assert!(error.contains("1 objects") && error.contains("`prod` only"), "{error}");
    let fresh = empty();
    backup.restore(&fresh, &into("prod")).await.unwrap();
    let key = Keyspace::new("prod").object(id);
    assert_eq!(fresh.list(&key).await.unwrap().get(&key).unwrap().value, sealed);
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_not_backed_up() {
    let error = Backup::take(empty().as_ref(), "prdo", "0", NOW).await.unwrap_err();
    assert!(error.to_string().contains("no cluster under `/prdo/`"), "{error}");
}

/// The power went while it was on its way: nobody may work on half of it, and the second try mends it.
#[tokio::test]
async fn a_restore_that_broke_off_is_refused_by_leaders_and_can_be_done_again() {
    let backup = taken(&cluster("c", 3).await, "c").await;
    let (store, keys) = (empty(), Keyspace::new("c"));
    let half = Schema { generation: 1_900_000_000, begins: true, ..Schema::first(RESTORING) };
    let writes = vec![keys.put::<SchemaKey>(&(), &half), keys.put::<CheckpointKey>(&task(9), &checkpoint(9))];
    store.commit(&[], writes).await.unwrap();
    let Commit::Done(led) = store.commit(&[], vec![Write::Put(keys.leader(), "{}".into())]).await.unwrap()
    else {
        panic!("lost")
    };
    let refused =
        ensure_schema(store.as_ref(), &keys, &Guard::Created(keys.leader(), led)).await.unwrap_err();
    assert!(refused.to_string().contains("has not finished"), "{refused}");
    store.commit(&[], vec![Write::Delete(keys.leader())]).await.unwrap();
    let error = Backup::take(store.as_ref(), "c", "0", NOW).await.unwrap_err();
    assert!(error.to_string().contains("has not finished"), "{error}");
    let told = RestoreInto { replace: true, ..into("c") };
    let restored = backup.restore(&store, &told).await.unwrap();
    assert!(restored.generation > half.generation);
    assert_eq!(view(&store, "c").await.checkpoints.len(), 3);
}

#[tokio::test]
async fn a_file_that_is_not_whole_or_not_ours_is_refused_and_says_why() {
    let file = bytes(&taken(&cluster("c", 3).await, "c").await);
    let refused = |file: &[u8]| Backup::read(file).unwrap_err().to_string();
    assert!(refused(b"").contains("not a backup"));
    assert!(refused(b"{\"format\":\"other\",\"version\":1}\n").contains("not a backup"));
    assert!(refused(&[0xFF, 0xD8]).contains("not a backup"));
    let text = String::from_utf8(file.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(refused(lines[..lines.len() - 1].join("\n").as_bytes()).contains("cut off"));
    assert!(refused(&file[..file.len() - 5]).contains("cut off"));
    assert!(refused(lines[0].as_bytes()).contains("cut off"));
    assert!(refused(text.replacen("\"serial\":7", "\"serial\":8", 1).as_bytes()).contains("checksum"));
    let without = [&lines[..1], &lines[2..]].concat().join("\n");
    assert!(refused(without.as_bytes()).contains("checksum"));
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    let error = refused(newer.as_bytes());
    assert!(error.contains("form 2") && error.contains("release 0.1.0"), "{error}");
}

#[tokio::test]
async fn a_backup_of_a_newer_layout_or_with_an_unreadable_key_touches_nothing() {
    let mut backup = taken(&cluster("c", 1).await, "c").await;
    let fresh = empty();
    backup.contents.schema.version = SCHEMA_VERSION + 1;
    let error = backup.restore(&fresh, &into("c")).await.unwrap_err().to_string();
    assert!(error.contains("newer release"), "{error}");
    backup.contents.schema.version = SCHEMA_VERSION;
    backup.items[0].value = "{}".into();
    let error = backup.restore(&fresh, &into("c")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(fresh.list(&Keyspace::new("c").all()).await.unwrap().entries.is_empty());
}

#[test]
fn a_commit_takes_many_small_keys_or_few_large_ones() {
    let put = |n: usize, size: usize| Write::Put(Key(format!("/c/{n}")), vec![b'x'; size].into());
    let sizes =
        |writes: &[Write]| restore::batches(writes).iter().map(|batch| batch.len()).collect::<Vec<_>>();
    assert_eq!(sizes(&(0..300).map(|n| put(n, 10)).collect::<Vec<_>>()), [128, 128, 44]);
    assert_eq!(sizes(&[put(0, 400 << 10), put(1, 200 << 10), put(2, 900 << 10), put(3, 1)]), [1, 1, 1, 1]);
    assert_eq!(sizes(&[]), [0; 0]);
}
