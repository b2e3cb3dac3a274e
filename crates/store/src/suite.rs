//! The behaviour that every metadata store has, as one suite: [`run`] is called by the tests of each implementation (and
//! of whoever wraps one). Each behaviour works under a prefix of its own, so the store may be in use.
//!
//! A behaviour that does not hold panics, naming it.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;

use crate::{COMMIT_OPS_MAX, Commit, Entry, ErrorKind, Guard, Key, MetadataStore, Revision, Snapshot, Write};

/// How long something that must happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs every behaviour. `disturb` breaks the store's connections (or restarts the server) and returns when it is back;
/// a store that has none does nothing.
pub async fn run<D, F>(store: Arc<dyn MetadataStore>, disturb: D)
where
    D: FnOnce() -> F,
    F: Future<Output = ()>,
{
    let store = store.as_ref();
    guard_holds_or_nothing_is_written(store).await;
    a_lost_commit_tells_the_present(store).await;
    revisions_only_grow(store).await;
    list_is_one_prefix_at_one_revision(store).await;
    lease_end_deletes_keys(store).await;
    an_ended_lease_takes_no_keys(store).await;
    txn_limits(store).await;
    watch_wakes_for_its_prefix(store).await;
    watch_wakes_after_a_break(store, disturb).await;
}

fn key(room: &str, name: &str) -> Key {
    Key(format!("/suite/{room}/{name}"))
}

fn put(key: &Key, value: &str) -> Write {
    Write::Put(key.clone(), value.to_owned().into())
}

async fn done(store: &dyn MetadataStore, guards: &[Guard], writes: Vec<Write>) -> Revision {
    match store.commit(guards, writes).await.expect("commit answers") {
        Commit::Done(revision) => revision,
        Commit::Lost(present) => panic!("commit was lost: {present:?}"),
    }
}

async fn lost(store: &dyn MetadataStore, guards: &[Guard], writes: Vec<Write>) -> Snapshot {
    match store.commit(guards, writes).await.expect("commit answers") {
        Commit::Done(revision) => panic!("commit was done at {revision} although a guard does not hold"),
        Commit::Lost(present) => present,
    }
}

async fn list(store: &dyn MetadataStore, room: &str) -> Vec<Entry> {
    store.list(&key(room, "")).await.expect("list answers").entries
}

/// All writes, or none.
pub async fn guard_holds_or_nothing_is_written(store: &dyn MetadataStore) {
    let room = "guard";
    let (a, b) = (key(room, "a"), key(room, "b"));
    let first = done(store, &[Guard::Absent(a.clone())], vec![put(&a, "1")]).await;
    lost(store, &[Guard::Absent(a.clone())], vec![put(&a, "2"), put(&b, "2")]).await;
    let both = [Guard::Unchanged(a.clone(), first), Guard::Absent(b.clone())];
    let second = done(store, &both, vec![put(&a, "3"), put(&b, "3")]).await;
    lost(store, &[Guard::Unchanged(a.clone(), first)], vec![Write::Delete(b.clone())]).await;
    lost(store, &[Guard::Unchanged(key(room, "none"), first)], vec![Write::Delete(b.clone())]).await;
    // One failed guard among good ones is enough.
    let mixed = [Guard::Unchanged(a.clone(), second), Guard::Absent(b.clone())];
    lost(store, &mixed, vec![put(&a, "4")]).await;
    // A key that was rewritten is still the one created at `first`; one made anew is not.
    done(store, &[Guard::Created(a.clone(), first)], vec![put(&a, "5")]).await;
    done(store, &[], vec![Write::Delete(a.clone())]).await;
    lost(store, &[Guard::Created(a.clone(), first)], vec![Write::Delete(b.clone())]).await;
    done(store, &[], vec![put(&a, "6")]).await;
    lost(store, &[Guard::Created(a.clone(), first)], vec![Write::Delete(b.clone())]).await;
    let values: Vec<_> = list(store, room).await.into_iter().map(|entry| entry.value).collect();
    assert_eq!(values, ["6", "3"]);
}

/// The guarded keys as they stand, sorted; absent ones absent.
pub async fn a_lost_commit_tells_the_present(store: &dyn MetadataStore) {
    let room = "present";
    let (a, b, c) = (key(room, "a"), key(room, "b"), key(room, "c"));
    let first = done(store, &[], vec![put(&c, "1"), put(&a, "1")]).await;
    let second = done(store, &[], vec![put(&c, "2")]).await;
    let guards =
        [Guard::Unchanged(c.clone(), first), Guard::Absent(b.clone()), Guard::Unchanged(a.clone(), first)];
    let present = lost(store, &guards, vec![put(&b, "3")]).await;
    assert_eq!(present.revision, second);
    assert_eq!(present.entries, list(store, room).await);
    assert_eq!(present.entries.len(), 2);
    let c_now = present.get(&c).expect("c is there");
    assert_eq!((c_now.create_revision, c_now.mod_revision, &c_now.value[..]), (first, second, &b"2"[..]));
    assert!(present.get(&b).is_none());
}

/// Each commit that writes has a larger revision than all before; one that changes nothing has the same.
pub async fn revisions_only_grow(store: &dyn MetadataStore) {
    let room = "grow";
    let a = key(room, "a");
    let mut last = store.list(&key(room, "")).await.expect("list answers").revision;
    for n in 0..20 {
        let revision = done(store, &[], vec![put(&a, &n.to_string())]).await;
        assert!(revision > last, "{revision} after {last}");
        last = revision;
    }
    let entry = list(store, room).await.remove(0);
    assert_eq!(entry.mod_revision, last);
    assert!(entry.create_revision < last);
    assert_eq!(done(store, &[], vec![Write::Delete(key(room, "none"))]).await, last);
    assert_eq!(done(store, &[Guard::Unchanged(a.clone(), last)], vec![]).await, last);
    let gone = done(store, &[], vec![Write::Delete(a.clone())]).await;
    assert!(gone > last);
    let again = done(store, &[Guard::Absent(a.clone())], vec![put(&a, "again")]).await;
    let entry = list(store, room).await.remove(0);
    assert_eq!((entry.create_revision, entry.mod_revision), (again, again));
}

/// Everything under the prefix, sorted, nothing beside it, however much it is.
pub async fn list_is_one_prefix_at_one_revision(store: &dyn MetadataStore) {
    let room = "list";
    // More than one page of a store that pages.
    let count = 1_200;
    let names: Vec<Key> = (0..count).map(|n| key(room, &format!("{n:05}"))).collect();
    let mut revision = 0;
    for chunk in names.chunks(COMMIT_OPS_MAX) {
        revision = done(store, &[], chunk.iter().map(|name| put(name, "x")).collect()).await;
    }
    revision = done(store, &[], vec![put(&key("list-beside", "a"), "x")]).await.max(revision);
    let snapshot = store.list(&key(room, "")).await.expect("list answers");
    assert_eq!(snapshot.revision, revision);
    assert_eq!(snapshot.entries.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>(), names);
    assert!(snapshot.get(&names[17]).is_some());
}

/// Keys go with their lease; a lease that is kept alive keeps them; a rewritten key without lease stays.
pub async fn lease_end_deletes_keys(store: &dyn MetadataStore) {
    let room = "lease";
    let (a, b, c) = (key(room, "a"), key(room, "b"), key(room, "c"));
    let mut watch = store.watch(&key(room, "")).await.expect("watch answers");
    let lease = store.lease(Duration::from_secs(2)).await.expect("lease answers");
    let leased = |key: &Key| Write::PutLeased(key.clone(), "x".into(), lease);
    let made = done(store, &[], vec![leased(&a), leased(&b), put(&c, "x")]).await;
    assert!(store.keep_alive(lease).await.expect("keep-alive answers"));
    done(store, &[Guard::Created(b.clone(), made)], vec![put(&b, "mine now")]).await;
    assert_eq!(list(store, room).await.len(), 3);
    loop {
        let left = list(store, room).await;
        if left.len() == 2 {
            assert_eq!(left.iter().map(|entry| &entry.key).collect::<Vec<_>>(), [&b, &c]);
            break;
        }
        tokio::time::timeout(PATIENCE, watch.next()).await.expect("the end of a lease wakes watchers");
    }
    assert!(
        !store.keep_alive(lease).await.expect("keep-alive answers"),
        "an ended lease cannot be prolonged"
    );
}

/// A put under a lease that has ended is an error, and nothing of its commit is written.
pub async fn an_ended_lease_takes_no_keys(store: &dyn MetadataStore) {
    let room = "ended";
    let mut watch = store.watch(&key(room, "")).await.expect("watch answers");
    let lease = store.lease(Duration::from_secs(2)).await.expect("lease answers");
    let a = key(room, "a");
    done(store, &[], vec![Write::PutLeased(a.clone(), "x".into(), lease)]).await;
    while !list(store, room).await.is_empty() {
        tokio::time::timeout(PATIENCE, watch.next()).await.expect("the end of a lease wakes watchers");
    }
    let writes = vec![put(&key(room, "b"), "x"), Write::PutLeased(a, "x".into(), lease)];
    let error = store.commit(&[], writes).await.expect_err("the lease has ended");
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Unavailable, false), "{error}");
    assert!(list(store, room).await.is_empty());
}

/// The largest commit is taken, a larger one and one that names a key twice are refused before anything is written.
pub async fn txn_limits(store: &dyn MetadataStore) {
    let room = "limits";
    let names: Vec<Key> = (0..=COMMIT_OPS_MAX).map(|n| key(room, &format!("{n:04}"))).collect();
    let (largest, more) = (&names[..COMMIT_OPS_MAX], &names[..]);
    let absent = |keys: &[Key]| keys.iter().cloned().map(Guard::Absent).collect::<Vec<_>>();
    let puts = |keys: &[Key]| keys.iter().map(|key| put(key, "x")).collect::<Vec<_>>();
    let refused = |result: crate::Result<Commit>| {
        let error = result.expect_err("the commit breaks a rule");
        assert_eq!((error.kind, error.ambiguous), (ErrorKind::Config, false), "{error}");
    };
    refused(store.commit(&absent(more), vec![]).await);
    refused(store.commit(&[], puts(more)).await);
    refused(store.commit(&[], vec![put(&names[0], "1"), put(&names[0], "2")]).await);
    refused(store.commit(&[Guard::Absent(names[0].clone()), Guard::Absent(names[0].clone())], vec![]).await);
    assert!(list(store, room).await.is_empty());
    done(store, &absent(largest), puts(largest)).await;
    assert_eq!(list(store, room).await.len(), COMMIT_OPS_MAX);
    let present = lost(store, &absent(largest), puts(&largest[..1])).await;
    assert_eq!(present.entries.len(), COMMIT_OPS_MAX);
}

/// A change under the prefix wakes; one beside it does not.
pub async fn watch_wakes_for_its_prefix(store: &dyn MetadataStore) {
    let room = "wake";
    let mut watch = store.watch(&key(room, "in/")).await.expect("watch answers");
    done(store, &[], vec![put(&key(room, "out/a"), "x")]).await;
    assert!(futures::poll!(watch.next()).is_pending(), "woken by a key beside the prefix");
    done(store, &[], vec![put(&key(room, "in/a"), "x")]).await;
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("a put wakes").expect("a watch has no end");
    done(store, &[], vec![Write::Delete(key(room, "in/a"))]).await;
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("a delete wakes").expect("a watch has no end");
}

/// After a break nothing is missed: the watch wakes by itself if it was broken, and goes on waking.
pub async fn watch_wakes_after_a_break<D, F>(store: &dyn MetadataStore, disturb: D)
where
    D: FnOnce() -> F,
    F: Future<Output = ()>,
{
    let room = "break";
    let a = key(room, "a");
    let mut watch = store.watch(&key(room, "")).await.expect("watch answers");
    done(store, &[], vec![put(&a, "1")]).await;
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("a put wakes").expect("a watch has no end");
    disturb().await;
    done(store, &[], vec![put(&a, "2")]).await;
    tokio::time::timeout(PATIENCE, watch.next())
        .await
        .expect("woken after the break")
        .expect("a watch has no end");
    // Wake-ups of the break may still come; then each further put must wake again.
    while tokio::time::timeout(Duration::from_secs(1), watch.next()).await.is_ok() {}
    done(store, &[], vec![put(&a, "3")]).await;
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("a put wakes").expect("a watch has no end");
}
