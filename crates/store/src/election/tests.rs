use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::*;
use crate::{EmbeddedStore, Error, ErrorKind, Health, Key, Snapshot};

/// A store whose answers can be lost: calls are made, but nobody hears of them.
struct Deaf {
    inner: EmbeddedStore,
    deaf: AtomicBool,
}

impl Deaf {
    fn new(inner: &EmbeddedStore) -> Arc<Self> {
        Arc::new(Self { inner: inner.clone(), deaf: AtomicBool::new(false) })
    }

    fn heard<T>(&self, answer: Result<T>) -> Result<T> {
        if self.deaf.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "answer lost").ambiguous());
        }
        answer
    }
}

#[async_trait]
impl MetadataStore for Deaf {
    async fn list(&self, prefix: &Key) -> Result<Snapshot> {
        self.heard(self.inner.list(prefix).await)
    }
    async fn watch(&self, prefix: &Key) -> Result<BoxStream<'static, ()>> {
        self.heard(self.inner.watch(prefix).await)
    }
    async fn commit(&self, guards: &[Guard], writes: Vec<Write>) -> Result<Commit> {
        self.heard(self.inner.commit(guards, writes).await)
    }
    async fn lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.heard(self.inner.lease(ttl).await)
    }
    async fn keep_alive(&self, lease: LeaseId) -> Result<bool> {
        if self.deaf.load(Ordering::SeqCst) {
            // Cut off altogether: the request does not arrive either.
            return Err(Error::new(ErrorKind::Unavailable, "request lost"));
        }
        // On its way, there and back: the store counts the lease from a later moment than the sending, and from an
        // earlier one than the answer.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let answer = self.inner.keep_alive(lease).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer
    }
    async fn maintain(&self, before: Option<Revision>) -> Result<Health> {
        self.inner.maintain(before).await
    }
}

fn keys() -> Keyspace {
    Keyspace::new("c")
}

async fn lead(store: Arc<dyn MetadataStore>, address: &str) -> Leadership {
    let cancel = CancellationToken::new();
    campaign(store, &keys(), address, ElectionTiming::default(), &cancel).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_the_next_follows_at_once_when_it_resigns() {
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let first = lead(store.clone(), "a:1").await;
    let second = tokio::spawn(lead(store.clone(), "b:1"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(first.may_answer(Instant::now()), "kept alive for a minute");
    assert!(!second.is_finished());
    let (guard, resigned) = (first.guard(), Instant::now());
    let before = first.revision();
    first.resign().await.unwrap();
    let second = second.await.unwrap();
    assert!(resigned.elapsed() < Duration::from_millis(100), "{:?}", resigned.elapsed());
    assert!(second.revision() > before);
    // The old leader's guard holds no more, the new one's does.
    let write = || vec![Write::Put(keys().worker("w"), "{}".into())];
    assert!(matches!(store.commit(&[guard], write()).await.unwrap(), Commit::Lost(_)));
    assert!(matches!(store.commit(&[second.guard()], write()).await.unwrap(), Commit::Done(_)));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_answering_before_another_can_lead() {
    let inner = EmbeddedStore::in_memory();
    let cut = Deaf::new(&inner);
    let first = lead(cut.clone(), "a:1").await;
    let second = tokio::spawn(lead(Arc::new(inner.clone()), "b:1"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    cut.deaf.store(true, Ordering::SeqCst);
    let at = Instant::now();
    first.lost().await;
    let stopped = at.elapsed();
    assert!(stopped <= Duration::from_secs(2), "{stopped:?}");
    assert!(!first.may_answer(Instant::now()));
    assert!(!second.is_finished(), "two leaders");
    let second = second.await.unwrap();
    assert!(at.elapsed() >= stopped && second.may_answer(Instant::now()));
    // P5: it hears again, and still does not resume.
    cut.deaf.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!first.may_answer(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn validity_counts_from_the_sending_of_the_keep_alive() {
    let inner = EmbeddedStore::in_memory();
    let cut = Deaf::new(&inner);
    let leader = lead(cut.clone(), "a:1").await;
    let until = leader.valid_until();
    assert!(until <= Instant::now() + Duration::from_secs(2));
    assert!(leader.may_answer(until - Duration::from_millis(1)));
    // Asked about the moment itself, it is over, and stays over although the keeper would have gone on.
    assert!(!leader.may_answer(until));
    assert!(!leader.may_answer(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn a_removed_key_ends_the_leadership() {
    let store = Arc::new(EmbeddedStore::in_memory());
    let leader = lead(store.clone(), "a:1").await;
    store.commit(&[], vec![Write::Delete(keys().leader())]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(1), leader.lost()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_candidacy_whose_answer_was_lost_is_not_taken_for_a_victory() {
    let inner = EmbeddedStore::in_memory();
    let cut = Deaf::new(&inner);
    let holder = lead(Arc::new(inner.clone()), "b:1").await;
    let candidate = tokio::spawn(lead(cut.clone(), "a:1"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    cut.deaf.store(true, Ordering::SeqCst);
    holder.resign().await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!candidate.is_finished());
    cut.deaf.store(false, Ordering::SeqCst);
    let leader = candidate.await.unwrap();
    let key = keys().leader();
    let present = inner.list(&key).await.unwrap();
    assert_eq!(present.get(&key).unwrap().create_revision, leader.revision());
}

#[tokio::test(start_paused = true)]
async fn dropping_a_leadership_ends_it_and_cancelling_a_campaign_returns() {
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let leader = lead(store.clone(), "a:1").await;
    let over = leader.over();
    let cancel = CancellationToken::new();
    cancel.cancel();
    assert!(campaign(store.clone(), &keys(), "b:1", ElectionTiming::default(), &cancel).await.is_none());
    drop(leader);
    assert!(over.is_cancelled());
    let at = Instant::now();
    lead(store, "b:1").await;
    let waited = at.elapsed();
    assert!(
        waited <= Duration::from_millis(2500),
        "the lease of a dropped leader was kept alive: {waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn followers_see_who_leads() {
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let mut seen = watch_leader(store.clone(), &keys());
    assert_eq!(*seen.borrow(), None);
    let first = lead(store.clone(), "a:1").await;
    let leader = seen.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!(leader, Leader { address: "a:1".to_owned(), revision: first.revision() });
    first.resign().await.unwrap();
    seen.wait_for(Option::is_none).await.unwrap();
    let second = lead(store, "b:1").await;
    let leader = seen.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!(leader, Leader { address: "b:1".to_owned(), revision: second.revision() });
}
