//! The embedded store: one revisioned map in memory, written through to one local file before a commit returns. For one
//! process (`standalone`, `coordinator` without etcd) and for tests.
//!
//! A commit runs to its end even if its caller goes away, so memory and file never disagree. Leases follow tokio's clock
//! (a paused one too) and live only as long as the process.

mod file;
mod map;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use tokio::{
    sync::{Mutex, MutexGuard, mpsc},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;

use self::{
    file::StoreFile,
    map::{Change, Map},
};
use crate::{
    Commit, Error, ErrorKind, Guard, Health, Key, LeaseId, MetadataStore, Result, Revision, Snapshot, Write,
    api::check_commit,
};

/// How long to wait before a failed removal of ended leases is tried again.
const REAP_RETRY: Duration = Duration::from_secs(1);

/// The store of one process. Cheap to clone.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

struct Inner {
    /// Where the file is; none for a store in memory.
    path: Option<PathBuf>,
    /// Held over a whole commit, its write to the file included: what can be listed is durable.
    state: Mutex<State>,
}

struct State {
    map: Map,
    /// Empty in memory, and after a write failed: then the next call opens the file again.
    file: Option<Arc<StoreFile>>,
    watchers: Vec<Watcher>,
}

/// Somebody to wake. One waiting wake-up stands for all.
struct Watcher {
    prefix: Key,
    wake: mpsc::Sender<()>,
}

impl EmbeddedStore {
    /// A store that forgets everything with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::new(None, None, Map::new(0, std::collections::BTreeMap::new()))
    }

    /// Opens the store in this file, or makes it.
    ///
    /// # Errors
    /// `Config` if the file is in use by another process or cannot be opened, `Corrupt` if it is not ours, `Full`.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let (file, map) = open_file(path.clone()).await?;
        Ok(Self::new(Some(path), Some(Arc::new(file)), map))
    }

    fn new(path: Option<PathBuf>, file: Option<Arc<StoreFile>>, map: Map) -> Self {
        let state = Mutex::new(State { map, file, watchers: Vec::new() });
        Self { inner: Arc::new(Inner { path, state }) }
    }
}

/// Runs to its end even if the caller is dropped.
async fn detached<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(stopped(&error)))
}

async fn open_file(path: PathBuf) -> Result<(StoreFile, Map)> {
    blocking(move || StoreFile::open(&path)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(stopped(&error)))
}

fn stopped(error: &tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Unavailable, format!("embedded store stopped: {error}")).ambiguous()
}

impl Inner {
    async fn commit(&self, guards: &[Guard], writes: &[Write]) -> Result<Commit> {
        let mut state = self.settled().await?;
        match state.map.plan(guards, writes) {
            Ok(Ok(change)) => {
                let revision = change.revision;
                self.write_through(&mut state, change).await?;
                Ok(Commit::Done(revision))
            }
            Ok(Err(lost)) => Ok(lost),
            Err(lease) => {
                let text = format!("lease {} has ended: nothing was written", lease.0);
                Err(Error::new(ErrorKind::Unavailable, text))
            }
        }
    }

    /// The state, with the file open and the keys of ended leases gone: every call starts here.
    async fn settled(&self) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock().await;
        if let (Some(path), None) = (&self.path, &state.file) {
            let (file, found) = open_file(path.clone()).await?;
            state.map.adopt(found);
            state.file = Some(Arc::new(file));
            state.wake(|_| true);
        }
        if let Some(change) = state.map.expire(Instant::now()) {
            self.write_through(&mut state, change).await?;
        }
        Ok(state)
    }

    /// File first, then memory, then those who watch.
    async fn write_through(&self, state: &mut State, change: Change) -> Result<()> {
        if change.keys.is_empty() {
            return Ok(());
        }
        let change = match state.file.clone() {
            None => change,
            Some(file) => {
                let (change, written) = blocking(move || {
                    let written = file.write(&change);
                    Ok((change, written))
                })
                .await?;
                if let Err(error) = written {
                    // redb refuses everything after an I/O error until the file is opened again; and the write may be
                    // in it after all, so memory is read again too.
                    state.file = None;
                    return Err(error);
                }
                change
            }
        };
        state.wake(|prefix| change.keys.keys().any(|key| key.as_str().starts_with(prefix.as_str())));
        state.map.put_in_place(change);
        Ok(())
    }

    /// Ends a lease when its time is over, even if nobody calls. Lives no longer than the store.
    async fn reap(inner: Weak<Self>, lease: LeaseId, mut ends: Instant) {
        loop {
            tokio::time::sleep_until(ends).await;
            let Some(inner) = inner.upgrade() else { return };
            match inner.settled().await {
                Ok(state) => match state.map.lease_ends(lease) {
                    Some(later) => ends = later,
                    None => return,
                },
                Err(error) => {
                    tracing::error!(%error, "keys of an ended lease could not be removed");
                    ends = Instant::now() + REAP_RETRY;
                }
            }
        }
    }
}

impl State {
    /// Wakes the watchers whose prefix `touched` says, and forgets those who left.
    fn wake(&mut self, touched: impl Fn(&Key) -> bool) {
        self.watchers.retain(|watcher| {
            if touched(&watcher.prefix) {
                // Full: a wake-up is waiting already. Closed: seen by the next line.
                watcher.wake.try_send(()).ok();
            }
            !watcher.wake.is_closed()
        });
    }
}

#[async_trait]
impl MetadataStore for EmbeddedStore {
    async fn list(&self, prefix: &Key) -> Result<Snapshot> {
        let (inner, prefix) = (self.inner.clone(), prefix.clone());
        detached(async move { Ok(inner.settled().await?.map.list(&prefix)) }).await
    }

    async fn watch(&self, prefix: &Key) -> Result<BoxStream<'static, ()>> {
        let (wake, woken) = mpsc::channel(1);
        self.inner.state.lock().await.watchers.push(Watcher { prefix: prefix.clone(), wake });
        Ok(ReceiverStream::new(woken).boxed())
    }

    async fn commit(&self, guards: &[Guard], writes: Vec<Write>) -> Result<Commit> {
        check_commit(guards, &writes)?;
        let (inner, guards) = (self.inner.clone(), guards.to_vec());
        detached(async move { inner.commit(&guards, &writes).await }).await
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId> {
        let now = Instant::now();
        let id = self.inner.state.lock().await.map.lease(ttl, now);
        tokio::spawn(Inner::reap(Arc::downgrade(&self.inner), id, now + ttl));
        Ok(id)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool> {
        let inner = self.inner.clone();
        detached(async move { Ok(inner.settled().await?.map.keep_alive(lease, Instant::now())) }).await
    }

    async fn maintain(&self, _before: Option<Revision>) -> Result<Health> {
        // No history is kept, so there is nothing to compact.
        let size_bytes = match &self.inner.path {
            Some(path) => tokio::fs::metadata(path).await.map_or(0, |file| file.len()),
            None => 0,
        };
        Ok(Health { size_bytes, version: "embedded".to_owned(), alarms: Vec::new() })
    }
}

#[cfg(test)]
mod tests;
