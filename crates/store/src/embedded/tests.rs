use std::sync::Arc;

use super::*;
use crate::suite;

fn key(text: &str) -> Key {
    Key(text.to_owned())
}

fn put(text: &str, value: &'static str) -> Write {
    Write::Put(key(text), value.into())
}

async fn nothing() {}

#[tokio::test(start_paused = true)]
async fn in_memory_passes_the_suite() {
    suite::run(Arc::new(EmbeddedStore::in_memory()), nothing).await;
}

#[tokio::test]
async fn a_file_passes_the_suite() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path().join("deep/meta.redb")).await.unwrap();
    suite::run(Arc::new(store), nothing).await;
}

/// Opens the file once the former store has let go of it.
async fn reopen(path: &Path) -> EmbeddedStore {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match EmbeddedStore::open(path).await {
            Ok(store) => return store,
            Err(error) if Instant::now() > deadline => panic!("still locked: {error}"),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart_and_leased_keys_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    let store = EmbeddedStore::open(&path).await.unwrap();
    store.commit(&[], vec![put("/c/a", "1"), put("/c/b", "1")]).await.unwrap();
    store.commit(&[], vec![put("/c/a", "2"), Write::Delete(key("/c/b"))]).await.unwrap();
    let lease = store.lease(Duration::from_secs(60)).await.unwrap();
    let last = store.commit(&[], vec![Write::PutLeased(key("/c/l"), "x".into(), lease)]).await.unwrap();
    let Commit::Done(last) = last else { panic!("lost") };
    let before = store.list(&key("/c/a")).await.unwrap();
    drop(store);

    let store = reopen(&path).await;
    let after = store.list(&key("/c/")).await.unwrap();
    assert_eq!(after.entries, before.entries);
    let Commit::Done(next) = store.commit(&[], vec![put("/c/z", "1")]).await.unwrap() else { panic!("lost") };
    assert!(next > last, "{next} after {last}");
}

#[tokio::test]
async fn a_file_in_use_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    let _first = EmbeddedStore::open(&path).await.unwrap();
    let error = EmbeddedStore::open(&path).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Config);
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "hello ".repeat(2000)).unwrap();
    let error = EmbeddedStore::open(&path).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "hello ".repeat(2000));
    let error = EmbeddedStore::open(folder.path()).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Config, "{error}");
}

#[tokio::test]
async fn a_commit_whose_caller_left_is_whole_in_memory_and_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    let store = EmbeddedStore::open(&path).await.unwrap();
    for n in 0..20 {
        let writes = vec![put("/c/a", "x"), Write::Put(key(&format!("/c/{n}")), "x".into())];
        let commit = store.commit(&[], writes);
        let mut commit = std::pin::pin!(commit);
        // One poll starts it; then its caller is gone.
        assert!(futures::poll!(&mut commit).is_pending());
    }
    let memory = store.list(&key("/c/")).await.unwrap();
    drop(store);
    assert_eq!(reopen(&path).await.list(&key("/c/")).await.unwrap(), memory);
    assert_eq!(memory.entries.len(), 21);
}

#[tokio::test(start_paused = true)]
async fn a_lease_follows_the_paused_clock() {
    let store = EmbeddedStore::in_memory();
    let lease = store.lease(Duration::from_secs(2)).await.unwrap();
    store.commit(&[], vec![Write::PutLeased(key("/c/l"), "x".into(), lease)]).await.unwrap();
    tokio::time::advance(Duration::from_millis(1900)).await;
    assert!(store.keep_alive(lease).await.unwrap());
    tokio::time::advance(Duration::from_millis(1900)).await;
    assert_eq!(store.list(&key("/c/")).await.unwrap().entries.len(), 1);
    tokio::time::advance(Duration::from_millis(200)).await;
    assert!(store.list(&key("/c/")).await.unwrap().entries.is_empty());
    assert!(!store.keep_alive(lease).await.unwrap());
}

#[tokio::test]
async fn a_write_that_failed_but_is_in_the_file_is_found_by_the_next_call() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path().join("meta.redb")).await.unwrap();
    let lease = store.lease(Duration::from_secs(60)).await.unwrap();
    let writes = vec![put("/c/a", "1"), Write::PutLeased(key("/c/leader"), "x".into(), lease)];
    store.commit(&[], writes).await.unwrap();
    let mut watch = store.watch(&key("/c/")).await.unwrap();
    let revision = {
        // What a write leaves behind whose last fsync failed: it is in the file, memory does not know it, the file is shut.
        let mut state = store.inner.state.lock().await;
        let Ok(Ok(change)) = state.map.plan(&[], &[put("/c/a", "2")]) else { panic!("not planned") };
        state.file.take().unwrap().write(&change).unwrap();
        change.revision
    };
    let entries = store.list(&key("/c/")).await.unwrap().entries;
    assert_eq!(entries[0].value, "2");
    assert_eq!(entries[0].mod_revision, revision);
    assert_eq!(entries[1].key, key("/c/leader"), "leased keys of this process stay");
    tokio::time::timeout(Duration::from_secs(5), watch.next()).await.expect("watchers look again");
    let Commit::Done(next) = store.commit(&[], vec![put("/c/a", "3")]).await.unwrap() else { panic!("lost") };
    assert_eq!(next, revision + 1);
}

#[test]
fn a_full_disk_is_told_from_a_broken_one() {
    use std::io;
    let kind = |error: redb::Error| file::failed(Path::new("/x"), "written", error).kind;
    assert_eq!(kind(redb::Error::Io(io::ErrorKind::StorageFull.into())), ErrorKind::Full);
    assert_eq!(kind(redb::Error::Io(io::ErrorKind::Other.into())), ErrorKind::Unavailable);
    assert_eq!(kind(redb::Error::Corrupted("x".to_owned())), ErrorKind::Corrupt);
}
