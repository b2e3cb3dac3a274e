//! A stream outside the cluster, cut into splits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use model::{Creation, Cursor, Position, RawRecord, SinkSpec, Split, SplitId, Start, Timestamp};

use crate::Result;

/// All splits of a stream at one moment.
#[derive(Clone, Debug)]
pub struct Listing {
    /// When the stream was created: part of every split's identity.
    pub creation: Creation,
    /// Every split that may still hold records, each with its parents.
    pub splits: Vec<Split>,
    /// What time it was at the service, if it says: what happens to splits is compared with what readers tell by the same clock.
    pub now: Option<Timestamp>,
    /// How long the stream keeps its records, if the service says.
    pub retention: Option<Duration>,
}

/// A stream. One value serves all tasks of a source in a process: it owns what they share, such as the pace of each split.
#[async_trait]
pub trait Source: Send + Sync {
    /// What the startup mode means at this moment. Called once, when the source is created, *before* its first listing:
    /// `latest` becomes the service's present, and is never evaluated again.
    async fn start(&self) -> Result<Start>;
    /// Lists every split that may still hold records, all pages of it. Remembers nothing between calls. Proves reachability.
    async fn discover(&self) -> Result<Listing>;
    /// True when the service itself says that this split does not exist any more (a listing may merely show it late).
    async fn is_gone(&self, split: &SplitId) -> Result<bool>;
    /// Opens `split` at `from`; `Position::End` is a bug of the caller.
    async fn open(&self, split: &SplitId, from: &Position) -> Result<Box<dyn SplitReader>>;
    /// Says how many workers read this split now: each keeps to its part of the quota.
    fn share(&self, split: &SplitId, readers: u32);
    /// For a source whose service must know each sink that reads it: how a sink is registered, and how it reads. Its tasks are
    /// then opened by [`Registrar::open`].
    fn registrar(&self) -> Option<&dyn Registrar> {
        None
    }
}

/// How far a registration is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registered {
    /// The service knows nothing of that name.
    Absent,
    /// It is being made or removed: ask again.
    Pending,
    /// It can be used.
    Ready,
}

/// What a source keeps at its service for each sink that reads it, such as a consumer of Kinesis enhanced fan-out. The leader
/// alone makes and removes it; workers use it by its name.
#[async_trait]
pub trait Registrar: Send + Sync {
    /// The name under which the service knows `sink`. Two sinks of one name would take it from each other.
    fn name(&self, sink: &SinkSpec) -> String;
    /// True when the source can be read without a registration, too: then what goes wrong with it stops nobody.
    fn optional(&self) -> bool;
    /// Looks for a registration.
    async fn find(&self, name: &str) -> Result<Registered>;
    /// Asks for one; that there is one already is no error. Transient errors say that it may have been made.
    async fn register(&self, name: &str) -> Result<()>;
    /// Removes one; that there is none any more is no error.
    async fn deregister(&self, name: &str) -> Result<()>;
    /// Opens `split` at `from` under this name.
    async fn open(&self, name: &str, split: &SplitId, from: &Position) -> Result<Box<dyn SplitReader>>;
}

/// What a reader brings.
#[derive(Debug)]
pub enum Polled {
    /// At least one record.
    Records {
        /// In the order of the split.
        records: Vec<RawRecord>,
        /// How far behind now the last of them was; `None` if the service did not say.
        lag: Option<Duration>,
    },
    /// Nothing new for now; ask again at once, the reader paces itself.
    Idle {
        /// How far behind now; zero is caught up.
        lag: Duration,
    },
    /// The split is closed and everything in it was handed out. Final.
    End,
}

/// A position that the stream did not hold any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// What is missing, in words, with the range of positions.
    pub message: String,
    /// What arrived since then is still there (the service's clock). Who had read everything later than this has lost
    /// nothing. `None` if nobody knows.
    pub horizon: Option<Timestamp>,
}

/// Reads one split, in order, until it ends.
#[async_trait]
pub trait SplitReader: Send {
    /// Waits until the pace allows another read, holding no memory for an answer: the worker reserves that between `ready`
    /// and `next`, so that idle splits hold neither budget nor a place among the concurrent reads. Cancel safe. A reader that
    /// leaves this out is paced by `next` alone.
    ///
    /// After a `next` that was dropped, until what is under way begins to arrive: a `next` that lasts is dropped for as long as
    /// this would wait, so that a service that does not answer holds neither.
    async fn ready(&mut self) {}
    /// Waits for what comes next, at the pace that the service allows. Retries what is transient by itself, with backoff,
    /// but returns such an error after a while so that it can be shown; the next call goes on where it was.
    /// Cancel safe: a dropped future loses no record.
    async fn next(&mut self) -> Result<Polled>;

    /// After [`Polled::Idle`] with no lag: a later position, if the service told one although no record came. Who stores it
    /// does not have to begin at an ever older record. Told once.
    fn passed(&mut self) -> Option<Cursor> {
        None
    }

    /// What time it is at the service: the moment at which a split was read to its end is compared with what the service holds.
    /// Our own time if nobody knows better.
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Since when the stream holds its records (the service's clock), once an answer has come. `None` if nobody knows.
    fn horizon(&self) -> Option<Timestamp> {
        None
    }

    /// Records that may have been lost before they could be read, if any since the last call: the position was older than what
    /// the stream still holds. Asked after each `next`; unless the caller knows better, it tells a `data_loss`
    /// (docs/kinesis.md S8).
    fn gap(&mut self) -> Option<Gap> {
        None
    }
}
