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
mod orders;
mod progress;
mod reading;
mod runs;
mod session;
mod task;
mod trace;
mod view;

use std::{io, sync::Arc};

use connector::Registry;
use daemon::tls::{Guard, Incoming, Tls};
use exchange::Door;
use futures::Stream;
use proto::{Duplex, Wire};
use session::Exchange;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

pub use config::Config;
pub use error::{Error, Result};
pub use view::{Standing, TaskView, View};

/// A worker under way.
#[derive(Debug)]
pub struct Worker {
    name: String,
    process: String,
    task: JoinHandle<Result<()>>,
    standing: watch::Receiver<Standing>,
    view: View,
}

/// Where a worker takes rows for its partitions, and how it reaches others.
pub struct Site<I> {
    /// What others reach it at: `host:port`.
    pub address: String,
    /// The connections that come in.
    pub incoming: I,
    /// How it reaches coordinators and other workers.
    pub wire: Wire,
}

impl Worker {
    /// Takes the data directory, listens for rows and starts. Coordinators that cannot be reached yet are no error.
    ///
    /// # Errors
    /// A wrong setting, an address that cannot be listened on, or a data directory that cannot be used or has another worker
    /// in it.
    pub fn start(config: Config, registry: Registry, cancel: CancellationToken) -> Result<Self> {
        Self::start_secured(None, config, registry, cancel)
    }

    /// The same with the identity of this process, if it has one: then every connection to and from it is mutual TLS.
    ///
    /// # Errors
    /// As [`Worker::start`].
    pub fn start_secured(
        tls: Option<Tls>,
        config: Config,
        registry: Registry,
        cancel: CancellationToken,
    ) -> Result<Self> {
        config.check()?;
        let failed = |e: io::Error| {
            Error::Config(format!(
                "cannot listen on `{}` (worker.exchange_listen): {e}",
                config.exchange_listen
            ))
        };
        let listener = std::net::TcpListener::bind(&config.exchange_listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?.to_string();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let address = config.exchange_advertise.clone().unwrap_or(bound);
        let incoming = Incoming::new(listener, Guard::demands(tls.as_ref()), "exchange");
        let wire = tls.map_or_else(Wire::tcp, |tls| {
            Wire::secured(move |uri, name| {
                let tls = tls.clone();
                async move { tls.dial(&uri, name.as_deref()).await }
            })
        });
        Self::start_on(Site { address, incoming, wire }, config, registry, cancel)
    }

    /// The same on connections that are made elsewhere.
    ///
    /// # Errors
    /// As [`Worker::start`].
    pub fn start_on<I, C>(
        site: Site<I>,
        config: Config,
        registry: Registry,
        cancel: CancellationToken,
    ) -> Result<Self>
    where
        I: Stream<Item = io::Result<C>> + Send + 'static,
        C: Duplex + Connected<ConnectInfo: Clone + Send + Sync> + 'static,
    {
        let Site { address, incoming, wire } = site;
        let (door, ended) = (Door::new(config.exchange_memory), CancellationToken::new());
        let served = exchange::serve(incoming, Arc::clone(&door), ended.clone());
        let exchange = Exchange { address, wire, door, served: Some(ended.drop_guard()) };
        let worker = Self::start_with(exchange, config, registry, cancel)?;
        tokio::spawn(served);
        Ok(worker)
    }

    /// A worker that reaches others over `wire` and is reached by none: it takes rows for its partitions only from itself.
    ///
    /// # Errors
    /// As [`Worker::start`].
    pub fn start_over(
        wire: Wire,
        config: Config,
        registry: Registry,
        cancel: CancellationToken,
    ) -> Result<Self> {
        let door = Door::new(config.exchange_memory);
        let exchange = Exchange { address: String::new(), wire, door, served: None };
        Self::start_with(exchange, config, registry, cancel)
    }

    fn start_with(
        exchange: Exchange,
        config: Config,
        registry: Registry,
        cancel: CancellationToken,
    ) -> Result<Self> {
        config.check()?;
        if config.coordinators.is_empty() {
            return Err(Error::Config("`coordinators` is empty: name at least one".to_owned()));
        }
        for url in &config.coordinators {
            exchange.wire.endpoint(url).map_err(Error::Config)?;
        }
        let identity = identity::Identity::take(&config)?;
        let (name, process) = (identity.worker.clone(), identity.process.clone());
        tracing::info!(worker = name, process, "the worker starts");
        let (view, (say, standing)) = (View::default(), watch::channel(Standing::Seeking));
        let session =
            session::Session::new(config, identity, (registry, exchange), (view.clone(), say), cancel);
        Ok(Self { name, process, task: tokio::spawn(session.run()), standing, view })
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

    /// How it stands with the coordinators; closed when it has ended.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Its tasks.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.clone()
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
