//! The product's way to the store, one per simulated process. It keeps the etcd client's rules: each call has a deadline by
//! the process's own clock; a read that failed on its way is made again within it, a commit only if no server saw it; a
//! commit that may have landed is `ambiguous` (P14).

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use store::{
    Commit, Error, ErrorKind, Guard, Health, Key, LeaseId, MetadataStore, Result, Revision, Snapshot, Write,
    check_commit,
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    fault::{Failure, Refusal},
    model::Model,
    server::Server,
    watch,
};
use crate::{net::Net, place::Place};

/// Deadline of each call: the product's default for etcd.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a listing is begun again because its revision was compacted away under it.
const LIST_ATTEMPTS: usize = 5;

/// A connection of one process. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    server: Server,
    place: Place,
}

/// A call that failed for good.
pub(super) struct Failed {
    pub error: Error,
    refusal: Option<Refusal>,
}

impl Client {
    /// The way from `place` to the store of this model.
    #[must_use]
    pub fn new(net: Net, place: Place, model: Arc<Mutex<Model>>) -> Self {
        Self { server: Server::new(net, model), place }
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// How long to wait after attempt `n` failed: 50 ms, doubling to 1 s, half of it by chance.
    pub(super) fn pause(&self, n: u32) -> Duration {
        let most = (50_u64 << n.min(5)).min(1_000);
        Duration::from_millis(most / 2 + self.server.net().below(most / 2))
    }

    /// A call that may be made any number of times.
    pub(super) async fn read<A, F: Future<Output = Result<A, Failure>>>(
        &self,
        what: &str,
        attempt: impl FnMut() -> F,
    ) -> Result<A, Failed> {
        self.call(what, |failure| !matches!(failure, Failure::Refused(_)), attempt).await
    }

    async fn call<A, F: Future<Output = Result<A, Failure>>>(
        &self,
        what: &str,
        again: impl Fn(Failure) -> bool,
        mut attempt: impl FnMut() -> F,
    ) -> Result<A, Failed> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        for n in 0.. {
            let failure = match timeout_at(deadline, attempt()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => break,
            };
            let pause = self.pause(n);
            if !again(failure) || Instant::now() + pause >= deadline {
                return Err(understand(what, failure));
            }
            sleep(pause).await;
        }
        let text = format!("the store did not answer `{what}` within {CALL_TIMEOUT:?}");
        let error = ambiguous(Error::new(ErrorKind::Unavailable, text));
        Err(Failed { error, refusal: None })
    }

    /// A listing, page by page at the revision of the first; `None` if that was compacted away meanwhile.
    async fn list_once(&self, prefix: &Key) -> Result<Option<Snapshot>> {
        let mut whole = Snapshot::default();
        let mut at = None;
        loop {
            let after = whole.entries.last().map(|entry| entry.key.clone());
            let page = self.read("list", || {
                let (prefix, after) = (prefix.clone(), after.clone());
                self.server.ask(self.place, move |_, model, _| {
                    model.page(&prefix, after.as_ref(), at).map_err(Failure::from)
                })
            });
            let page = match page.await {
                Ok(page) => page,
                Err(failed) if failed.refusal == Some(Refusal::Compacted) => return Ok(None),
                Err(failed) => return Err(failed.error),
            };
            whole.revision = page.snapshot.revision;
            at = Some(page.snapshot.revision);
            whole.entries.extend(page.snapshot.entries);
            if !page.more {
                return Ok(Some(whole));
            }
        }
    }
}

fn ambiguous(mut error: Error) -> Error {
    error.ambiguous = true;
    error
}

/// What a failure means to whoever called.
fn understand(what: &str, failure: Failure) -> Failed {
    let error = |kind, why: String| Error::new(kind, format!("the store failed `{what}`: {why}"));
    let unavailable = |why: String| error(ErrorKind::Unavailable, why);
    match failure {
        Failure::NotSent => Failed { error: unavailable("connection refused".to_owned()), refusal: None },
        Failure::Broken | Failure::Silent => {
            Failed { error: ambiguous(unavailable("connection broke".to_owned())), refusal: None }
        }
        Failure::Refused(refusal) => {
            let error = match refusal {
                Refusal::LeaseGone(id) => unavailable(format!("lease {id} not found")),
                Refusal::Compacted => unavailable("required revision has been compacted".to_owned()),
                Refusal::Future(at) => unavailable(format!("required revision {at} is a future revision")),
                Refusal::NoSpace => error(ErrorKind::Full, "database space exceeded".to_owned()),
            };
            Failed { error, refusal: Some(refusal) }
        }
    }
}

#[async_trait]
impl MetadataStore for Client {
    async fn list(&self, prefix: &Key) -> Result<Snapshot> {
        for _ in 0..LIST_ATTEMPTS {
            if let Some(snapshot) = self.list_once(prefix).await? {
                return Ok(snapshot);
            }
        }
        let text = format!("listing `{prefix}` was overtaken by compaction {LIST_ATTEMPTS} times");
        Err(Error::new(ErrorKind::Unavailable, text))
    }

    async fn watch(&self, prefix: &Key) -> Result<BoxStream<'static, ()>> {
        let line = watch::open(self, prefix).await?;
        Ok(watch::stream(self.clone(), prefix.clone(), line))
    }

    async fn commit(&self, guards: &[Guard], writes: Vec<Write>) -> Result<Commit> {
        check_commit(guards, &writes)?;
        let place = self.place;
        let attempt = || {
            let (guards, writes) = (guards.to_vec(), writes.clone());
            self.server.ask(place, move |server, model, _| server.commit(model, place, guards, writes))
        };
        self.call("commit", |failure| failure == Failure::NotSent, attempt)
            .await
            .map_err(|failed| failed.error)
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId> {
        let place = self.place;
        // A grant whose answer was lost leaves a lease without keys, which ends by itself: it may be asked for again.
        self.read("lease", || self.server.ask(place, move |server, model, _| server.grant(model, place, ttl)))
            .await
            .map_err(|failed| failed.error)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool> {
        let place = self.place;
        self.read("keep-alive", || {
            self.server.ask(place, move |server, model, _| Ok(server.keep_alive(model, place, lease)))
        })
        .await
        .map_err(|failed| failed.error)
    }

    async fn maintain(&self, before: Option<Revision>) -> Result<Health> {
        if let Some(before) = before {
            let compacted = self
                .read("compact", || {
                    let compact = move |model: &mut Model| model.compact(before).map_err(Failure::from);
                    self.server.ask(self.place, move |_, model, _| compact(model))
                })
                .await;
            match compacted {
                // Somebody compacted further already.
                Err(failed) if failed.refusal != Some(Refusal::Compacted) => return Err(failed.error),
                _ => {}
            }
        }
        self.read("status", || self.server.ask(self.place, |_, model, _| Ok(model.health())))
            .await
            .map_err(|failed| failed.error)
    }
}
