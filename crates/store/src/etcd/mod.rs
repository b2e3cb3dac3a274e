//! The etcd store: keys, guards and leases are etcd's own. For clusters of more than one process.
//!
//! Every call has a deadline. A call that never reached a server is made again within it (any endpoint may be down); so is
//! a read that failed on its way. A commit that may have reached a server is not: it is `Unavailable` and `ambiguous`, and
//! the caller looks at the keys before it goes on (P14). A lost commit brings the guarded keys in the same round trip.

mod call;
mod connection;
mod options;
mod watch;

use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    AlarmAction, AlarmType, Compare, CompareOp, GetOptions, GetResponse, KvClient, PutOptions, Txn, TxnOp,
    TxnOpResponse,
};
use futures::stream::BoxStream;

pub use options::EtcdConfig;

use self::{call::Caller, connection::Connection};
use crate::{
    Commit, Entry, Error, ErrorKind, Guard, Health, Key, LeaseId, MetadataStore, Result, Revision, Snapshot,
    Write, api::check_commit,
};

/// Keys in one page of a listing: with specs of a few KiB each, a page stays well under etcd's 4 MiB messages.
const PAGE_KEYS: i64 = 500;
/// A page may be larger than etcd-client's 4 MiB if the specs are.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Read once at connect, to see that the server answers and who we are to it. It need not exist, nor be ours to read.
const PROBE_KEY: &str = "/shardwright";
/// How often a listing is begun again because its revision was compacted away under it.
const LIST_ATTEMPTS: usize = 5;

/// A connection to an etcd cluster. Cheap to clone.
#[derive(Clone)]
pub struct EtcdStore {
    connection: Connection,
    caller: Caller,
}

impl EtcdStore {
    /// Connects, authenticates if a user is given, and asks one thing to see that somebody answers. When the files that the
    /// configuration names change, it connects anew with what they hold.
    ///
    /// # Errors
    /// `Unavailable` when nobody answers within the deadline, `Denied` for a wrong user or password, `Config` for settings
    /// that cannot work. The message names the endpoints, never the password.
    pub async fn connect(config: EtcdConfig) -> Result<Self> {
        let caller = Caller::new(&config.endpoints, config.call_timeout);
        let connection = Connection::open(config, caller.clone()).await?;
        Ok(Self { connection, caller })
    }

    fn kv(&self) -> KvClient {
        self.connection.client().kv_client().max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// One page of a listing, at a revision if one is given.
    async fn page(&self, from: &[u8], end: &[u8], revision: i64) -> Result<GetResponse, call::Failure> {
        self.caller
            .read("list", || {
                let options = GetOptions::new().with_range(end).with_limit(PAGE_KEYS).with_revision(revision);
                let (mut kv, from) = (self.kv(), from.to_vec());
                async move { kv.get(from, Some(options)).await }
            })
            .await
    }

    /// A listing, page by page at the revision of the first; `None` if that was compacted away meanwhile.
    async fn list_once(&self, prefix: &Key) -> Result<Option<Snapshot>> {
        let end = prefix_end(prefix.as_str().as_bytes());
        let mut from = prefix.as_str().as_bytes().to_vec();
        let mut snapshot = Snapshot::default();
        loop {
            let pinned = i64::try_from(snapshot.revision).unwrap_or(i64::MAX);
            let mut page = match self.page(&from, &end, pinned).await {
                Ok(page) => page,
                Err(failure) if failure.is_compacted() => return Ok(None),
                Err(failure) => return Err(failure.error),
            };
            if snapshot.revision == 0 {
                snapshot.revision = header_revision(page.header())?;
            }
            let more = page.more();
            for kv in page.take_kvs() {
                snapshot.entries.push(entry(kv)?);
            }
            match snapshot.entries.last() {
                // The next possible key after the last one.
                Some(last) if more => from = [last.key.as_str().as_bytes(), &[0]].concat(),
                _ => return Ok(Some(snapshot)),
            }
        }
    }
}

#[async_trait]
impl MetadataStore for EtcdStore {
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
        watch::open(self.connection.clone(), self.caller.clone(), prefix).await
    }

    async fn commit(&self, guards: &[Guard], writes: Vec<Write>) -> Result<Commit> {
        check_commit(guards, &writes)?;
        let txn = Txn::new()
            .when(guards.iter().map(compare).collect::<Vec<_>>())
            .and_then(writes.iter().map(operation).collect::<Vec<_>>())
            .or_else(guards.iter().map(|g| TxnOp::get(g.key().as_str(), None)).collect::<Vec<_>>());
        let response = self
            .caller
            .write("commit", || {
                let (mut kv, txn) = (self.kv(), txn.clone());
                async move { kv.txn(txn).await }
            })
            .await?;
        let revision = header_revision(response.header())?;
        if response.succeeded() {
            return Ok(Commit::Done(revision));
        }
        let mut entries = Vec::with_capacity(guards.len());
        for answer in response.op_responses() {
            if let TxnOpResponse::Get(mut got) = answer {
                for kv in got.take_kvs() {
                    entries.push(entry(kv)?);
                }
            }
        }
        entries.sort_by(|a: &Entry, b: &Entry| a.key.cmp(&b.key));
        Ok(Commit::Lost(Snapshot { revision, entries }))
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId> {
        // etcd counts whole seconds; a longer lease is safe, a shorter one is not.
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        // A grant whose answer was lost leaves a lease without keys, which ends by itself: it may be asked for again.
        let granted = self
            .caller
            .read("lease", || {
                let mut client = self.connection.client().lease_client();
                async move { client.grant(seconds, None).await }
            })
            .await
            .map_err(|failure| failure.error)?;
        Ok(LeaseId(granted.id()))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool> {
        let answer = self
            .caller
            .read("keep-alive", || {
                let mut client = self.connection.client().lease_client();
                async move { client.keep_alive(lease.0).await.map(drop) }
            })
            .await;
        match answer {
            Ok(()) => Ok(true),
            Err(failure) if failure.is_lease_gone() => Ok(false),
            Err(failure) => Err(failure.error),
        }
    }

    async fn maintain(&self, before: Option<Revision>) -> Result<Health> {
        let read = |failure: call::Failure| failure.error;
        if let Some(before) = before.and_then(|before| i64::try_from(before).ok()) {
            let compacted = self
                .caller
                .read("compact", || {
                    let mut kv = self.kv();
                    async move { kv.compact(before, None).await }
                })
                .await;
            match compacted {
                // Somebody compacted further already.
                Err(failure) if !failure.is_compacted() => return Err(failure.error),
                _ => {}
            }
        }
        let maintenance = || self.connection.client().maintenance_client();
        let status = self
            .caller
            .read("status", || {
                let mut client = maintenance();
                async move { client.status().await }
            })
            .await
            .map_err(read)?;
        let alarms = self
            .caller
            .read("alarms", || {
                let mut client = maintenance();
                async move { client.alarm(AlarmAction::Get, AlarmType::None, None).await }
            })
            .await
            .map_err(read)?;
        Ok(Health {
            size_bytes: u64::try_from(status.db_size()).unwrap_or(0),
            version: status.version().to_owned(),
            alarms: alarms.alarms().iter().map(|member| alarm_name(member.alarm()).to_owned()).collect(),
        })
    }
}

fn alarm_name(alarm: AlarmType) -> &'static str {
    match alarm {
        AlarmType::Nospace => "NOSPACE",
        AlarmType::Corrupt => "CORRUPT",
        AlarmType::None => "NONE",
    }
}

fn compare(guard: &Guard) -> Compare {
    let signed = |revision: &Revision| i64::try_from(*revision).unwrap_or(i64::MAX);
    match guard {
        Guard::Absent(key) => Compare::create_revision(key.as_str(), CompareOp::Equal, 0),
        Guard::Unchanged(key, at) => Compare::mod_revision(key.as_str(), CompareOp::Equal, signed(at)),
        Guard::Created(key, at) => Compare::create_revision(key.as_str(), CompareOp::Equal, signed(at)),
    }
}

fn operation(write: &Write) -> TxnOp {
    match write {
        Write::Put(key, value) => TxnOp::put(key.as_str(), value.as_ref(), None),
        Write::PutLeased(key, value, lease) => {
            TxnOp::put(key.as_str(), value.as_ref(), Some(PutOptions::new().with_lease(lease.0)))
        }
        Write::Delete(key) => TxnOp::delete(key.as_str(), None),
    }
}

fn entry(kv: etcd_client::KeyValue) -> Result<Entry> {
    let (create_revision, mod_revision) = (kv.create_revision(), kv.mod_revision());
    let (key, value) = kv.into_key_value();
    let key = String::from_utf8(key).map_err(|bad| {
        let shown = String::from_utf8_lossy(bad.as_bytes()).into_owned();
        Error::new(ErrorKind::Corrupt, format!("key `{shown}` is not text"))
    })?;
    Ok(Entry {
        key: Key(key),
        value: value.into(),
        create_revision: unsigned(create_revision)?,
        mod_revision: unsigned(mod_revision)?,
    })
}

fn header_revision(header: Option<&etcd_client::ResponseHeader>) -> Result<Revision> {
    unsigned(header.map_or(0, etcd_client::ResponseHeader::revision))
}

fn unsigned(revision: i64) -> Result<Revision> {
    match u64::try_from(revision) {
        Ok(revision) if revision > 0 => Ok(revision),
        _ => Err(Error::new(ErrorKind::Corrupt, format!("etcd answered with revision {revision}"))),
    }
}

/// The first key after all keys with this prefix.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xFF {
            end.push(last + 1);
            return end;
        }
    }
    // Every key: etcd's word for it.
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_just_after_it() {
        assert_eq!(prefix_end(b"/c/"), b"/c0");
        assert_eq!(prefix_end(&[b'a', 0xFF]), b"b");
        assert_eq!(prefix_end(&[0xFF]), [0]);
    }
}
