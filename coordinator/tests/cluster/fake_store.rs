//! A store in memory whose answers can be lost, with or without the commit having landed.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use store::{
    Commit, EmbeddedStore, Error, ErrorKind, Guard, Health, Key, LeaseId, MetadataStore, Result, Revision,
    Snapshot, Write,
};
use tokio::sync::Notify;

/// What happens to a commit whose answer is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It landed.
    Landed,
    /// It did not, and never will.
    Vanished,
    /// It has not landed yet: [`FakeStore::land_late`] lets it.
    Late,
    /// The same, and then nothing is answered until the test says so.
    LateThenAway,
    /// The one that was late lands just before it, so that it does not.
    Overtaken,
    /// It landed, and its answer comes when the test says so: [`FakeStore::let_go`].
    Held,
}

/// See the module.
pub struct FakeStore {
    inner: EmbeddedStore,
    /// The next commits that write a key with this in its name lose their answers.
    next: Mutex<VecDeque<(&'static str, Fate)>>,
    /// Commits that are still on their way.
    late: Mutex<Option<(Vec<Guard>, Vec<Write>)>>,
    /// Answers lost so far.
    pub lost: AtomicU32,
    /// Answers held back so far.
    pub held: AtomicU32,
    /// Lets one answer go that is held back.
    pub let_go: Notify,
    /// Nothing is answered.
    pub away: AtomicBool,
    /// Watches opened from now on never wake.
    pub deaf: AtomicBool,
}

impl FakeStore {
    pub fn new() -> Self {
        Self {
            inner: EmbeddedStore::in_memory(),
            next: Mutex::new(VecDeque::new()),
            late: Mutex::new(None),
            lost: AtomicU32::new(0),
            held: AtomicU32::new(0),
            let_go: Notify::new(),
            away: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
        }
    }

    /// Loses the answer of the next commit that writes a key whose name contains `word`.
    pub fn lose_answer(&self, word: &'static str, fate: Fate) {
        self.next.lock().unwrap().push_back((word, fate));
    }

    /// Lets the commit arrive that was on its way, and says what came of it.
    pub async fn land_late(&self) -> Commit {
        let (guards, writes) = self.late.lock().unwrap().take().unwrap();
        self.inner.commit(&guards, writes).await.unwrap()
    }

    fn answers(&self) -> Result<()> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::Unavailable, "away, says the test")),
            false => Ok(()),
        }
    }

    fn fate(&self, writes: &[Write]) -> Option<Fate> {
        let mut next = self.next.lock().unwrap();
        let (word, fate) = *next.front()?;
        let hit = writes.iter().any(|write| match write {
            Write::Put(key, _) | Write::PutLeased(key, _, _) | Write::Delete(key) => {
                key.as_str().contains(word)
            }
        });
        hit.then(|| {
            next.pop_front();
            fate
        })
    }
}

#[async_trait]
impl MetadataStore for FakeStore {
    async fn list(&self, prefix: &Key) -> Result<Snapshot> {
        self.answers()?;
        self.inner.list(prefix).await
    }
    async fn watch(&self, prefix: &Key) -> Result<BoxStream<'static, ()>> {
        self.answers()?;
        if self.deaf.load(Ordering::SeqCst) {
            return Ok(Box::pin(futures::stream::pending()));
        }
        self.inner.watch(prefix).await
    }
    async fn commit(&self, guards: &[Guard], writes: Vec<Write>) -> Result<Commit> {
        self.answers()?;
        let fate = self.fate(&writes);
        match fate {
            None => return self.inner.commit(guards, writes).await,
            Some(Fate::Held) => {
                let answer = self.inner.commit(guards, writes).await;
                self.held.fetch_add(1, Ordering::SeqCst);
                self.let_go.notified().await;
                return answer;
            }
            Some(Fate::Landed) => drop(self.inner.commit(guards, writes).await?),
            Some(Fate::Vanished) => {}
            Some(Fate::Late) => *self.late.lock().unwrap() = Some((guards.to_vec(), writes)),
            Some(Fate::LateThenAway) => {
                *self.late.lock().unwrap() = Some((guards.to_vec(), writes));
                self.away.store(true, Ordering::SeqCst);
            }
            Some(Fate::Overtaken) => {
                assert!(matches!(self.land_late().await, Commit::Done(_)), "the first lands");
                let second = self.inner.commit(guards, writes).await?;
                assert!(matches!(second, Commit::Lost(_)), "its lane has moved");
            }
        }
        self.lost.fetch_add(1, Ordering::SeqCst);
        let mut error = Error::new(ErrorKind::Unavailable, "answer lost by the test");
        error.ambiguous = true;
        Err(error)
    }
    async fn lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.answers()?;
        self.inner.lease(ttl).await
    }
    async fn keep_alive(&self, lease: LeaseId) -> Result<bool> {
        self.answers()?;
        self.inner.keep_alive(lease).await
    }
    async fn maintain(&self, before: Option<Revision>) -> Result<Health> {
        self.inner.maintain(before).await
    }
}
