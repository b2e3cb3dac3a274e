//! The worker: holds a session with the leading coordinator, runs the tasks it is given, and keeps the ownership protocol
//! (P1–P12) from its side.
//!
//! `session` is the one loop that talks to the leader; `runs` compares its list with what runs here; each run (`task`) reads,
//! decodes and delivers by itself, under one `budget` of bytes and one `fence`. Decisions about order, acks and batches are
//! `logic`'s. Called by the command line; connectors come with the registry, so tests bring fakes.
//!
//! Not promised: a process suspended between the look at the deadline and the system call (see the protocol).

mod budget;
mod config;
mod cpu;
mod dead_letter;
mod error;
mod exchange;
mod fence;
mod identity;
mod link;
mod metrics;
mod objects;
mod progress;
mod reading;
mod runs;
mod session;
mod task;

use connector::Registry;
use proto::Wire;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use error::{Error, Result};

/// A worker under way.
#[derive(Debug)]
pub struct Worker {
    name: String,
    process: String,
    task: JoinHandle<Result<()>>,
}

impl Worker {
    /// Takes the data directory and starts. Coordinators that cannot be reached yet are no error.
    ///
    /// # Errors
    /// A wrong setting, or a data directory that cannot be used or has another worker in it.
    pub fn start(config: Config, registry: Registry, cancel: CancellationToken) -> Result<Self> {
        Self::start_over(Wire::tcp(), config, registry, cancel)
    }

    /// The same, reaching coordinators over `wire`.
    ///
    /// # Errors
    /// As [`Worker::start`].
    pub fn start_over(
        wire: Wire,
        config: Config,
        registry: Registry,
        cancel: CancellationToken,
    ) -> Result<Self> {
        config.check()?;
        if config.coordinators.is_empty() {
            return Err(Error::Config("`coordinators` is empty: name at least one".to_owned()));
        }
        for url in &config.coordinators {
            link::check(url).map_err(Error::Config)?;
        }
        let identity = identity::Identity::take(&config)?;
        let (name, process) = (identity.worker.clone(), identity.process.clone());
        tracing::info!(worker = name, process, "the worker starts");
        let session = session::Session::new(config, identity, (registry, wire), cancel);
        Ok(Self { name, process, task: tokio::spawn(session.run()) })
    }

    /// Its stable name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// New at each start (P1).
    #[must_use]
    pub fn process(&self) -> &str {
        &self.process
    }

    /// Drops everything at once, as a crash would.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Waits until it has stopped: in order after a cancel, or because it was refused.
    ///
    /// # Errors
    /// Why it could not go on.
    pub async fn join(self) -> Result<()> {
        self.task.await.map_err(|e| Error::Broken(e.to_string()))?
    }
}

/// Runs a worker until `cancel`, then hands its tasks over in order.
///
/// # Errors
/// As [`Worker::start`] and [`Worker::join`].
pub async fn run(config: Config, registry: Registry, cancel: CancellationToken) -> Result<()> {
    Worker::start(config, registry, cancel)?.join().await
}
