//! The roles of a cluster: a coordinator, a worker, or both in one process.
//!
//! Each reads its settings, starts telemetry, runs until a signal, and stops in order: a worker hands its tasks over while a
//! coordinator is still there to take them.

mod settings;
mod shown;
mod standalone;
mod strangers;

use std::{io::Write, path::PathBuf, sync::Arc};

use clap::Args;
use connector::Registry;
use coordinator::Vault;
use daemon::{
    Health, Http, Pages, Service, Tasks, Telemetry,
    config::Loaded,
    tls::{self, Tls, Use},
};
use settings::CommonArgs;
pub(crate) use settings::{Given, Settings, SettingsArgs, read_for_tool};
pub(crate) use standalone::{StandaloneArgs, standalone};
use store::{MetadataStore, StoreConfig};
pub(crate) use strangers::check as check_strangers;
use tokio_util::sync::CancellationToken;
use worker::Worker;

use crate::failure::Failure;

/// Run a coordinator.
#[derive(Args, Debug)]
pub struct CoordinatorArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Where workers, tools and other coordinators reach it
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// URL at which others reach it, if it is not the address it listens on
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
    /// Name of the cluster: the first part of its keys in the store
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// etcd://HOST:PORT[,HOST:PORT…], embedded:PATH or memory:
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

/// Run a worker.
#[derive(Args, Debug)]
pub struct WorkerArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Its stable name; the host's name if absent
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Coordinators, separated by commas; any of them will do
    #[arg(long, value_name = "URL", alias = "coordinator")]
    coordinators: Option<String>,
    /// Where it keeps its lock and its identity
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Failure domain
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    /// Relative share of tasks
    #[arg(long, value_name = "NUMBER")]
    capacity: Option<u32>,
    /// Bytes of records that may be under way, all tasks together
    #[arg(long, value_name = "BYTES")]
    memory_budget: Option<u64>,
    /// Where it takes rows for its partitions from other workers
    #[arg(long, value_name = "HOST:PORT")]
    exchange_listen: Option<String>,
    /// Where other workers reach that, if it is not the address it listens on
    #[arg(long, value_name = "HOST:PORT")]
    exchange_advertise: Option<String>,
}

/// A process with its settings read and its telemetry running.
struct Process {
    settings: Settings,
    telemetry: Telemetry,
    health: Health,
    tasks: Tasks,
    tls: Option<Tls>,
    http: Option<Http>,
    /// Cancelled by the first signal.
    signalled: CancellationToken,
    /// Cancelled when all roles have stopped.
    ended: CancellationToken,
}

impl Process {
    /// `roles` are those that it waits for before it is ready.
    async fn start(role: &str, roles: &[&'static str], loaded: Loaded<Settings>) -> Result<Self, Failure> {
        let Loaded { value: settings, passed_over } = loaded;
        let version = env!("SHARDWRIGHT_VERSION");
        let (worker, coordinator) = (&settings.worker.name, &settings.coordinator.advertise);
        let instance = if roles.contains(&"worker") { worker } else { coordinator }.as_deref();
        let telemetry = Telemetry::start(&settings.telemetry, Service { role, version, instance })?;
        for line in passed_over.into_iter().chain(strangers::check(&settings, roles)?) {
            tracing::warn!("{line}");
        }
        let (health, tasks) = (Health::new(roles), Tasks::default());
        let (signalled, ended) = (CancellationToken::new(), CancellationToken::new());
        daemon::stop_on_signals(signalled.clone())?;
        let tls = Tls::start(&settings.tls, ended.clone())?;
        let pages = Pages {
            registry: telemetry.registry(),
            health: health.clone(),
            tasks: tasks.clone(),
            filter: telemetry.filter(),
            debug_remote: settings.telemetry.debug_remote,
        };
        let http = listen(settings.telemetry.address(), pages, &ended).await?;
        tracing::info!(role, version, "the process starts");
        Ok(Self { settings, telemetry, health, tasks, tls, http, signalled, ended })
    }

    /// Stops what is left, whatever came of the roles.
    async fn stop(self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        self.ended.cancel();
        if let Some(http) = self.http {
            http.join().await;
        }
        if outcome.is_ok() {
            tracing::info!("stopped");
        }
        let telemetry = self.telemetry;
        // It may wait for a collector that is away.
        tokio::task::spawn_blocking(move || telemetry.stop()).await.ok();
        outcome
    }
}

async fn listen(
    address: Option<&str>,
    pages: Pages,
    ended: &CancellationToken,
) -> Result<Option<Http>, Failure> {
    let Some(address) = address else { return Ok(None) };
    let http = Http::start(address, pages, ended.clone()).await?;
    tracing::info!(url = format!("http://{}/metrics", http.local_addr()), "telemetry is served");
    Ok(Some(http))
}

/// `shardwright coordinator`.
pub async fn coordinator(args: CoordinatorArgs) -> Result<(), Failure> {
    let mut given = Given::default();
    given
        .flag("coordinator.listen", "--listen", args.listen)
        .flag("coordinator.advertise", "--advertise", args.advertise)
        .flag("coordinator.cluster", "--cluster", args.cluster)
        .flag("store.url", "--store", args.store);
    let loaded = settings::read(&args.common, given)?;
    check(&loaded.value)?;
    let Some(store) = loaded.value.store.clone() else {
        let text = "ERROR: no store is named; say --store etcd://HOST:PORT, or --store embedded:PATH for a single coordinator";
        return Err(Failure::Usage(text.to_owned()));
    };
    let process = Process::start("coordinator", &["coordinator"], loaded).await?;
    let outcome = coordinate(&process, &store).await;
    process.stop(outcome).await
}

async fn coordinate(process: &Process, store: &StoreConfig) -> Result<(), Failure> {
    let server = start_coordinator(process, store, process.signalled.clone()).await?;
    shown::coordinator(&server, process);
    server.join().await.map_err(|error| refused(&error))
}

/// `shardwright worker`.
pub async fn worker(args: WorkerArgs) -> Result<(), Failure> {
    let mut given = Given::default();
    given
        .flag("worker.name", "--name", args.name)
        .flag("worker.coordinators", "--coordinators", args.coordinators)
        .flag("worker.data_dir", "--data-dir", args.data_dir.map(|path| path.display().to_string()))
        .flag("worker.zone", "--zone", args.zone)
        .flag("worker.capacity", "--capacity", args.capacity)
        .flag("worker.memory_budget", "--memory-budget", args.memory_budget)
        .flag("worker.exchange_listen", "--exchange-listen", args.exchange_listen)
        .flag("worker.exchange_advertise", "--exchange-advertise", args.exchange_advertise);
    let process = Process::start("worker", &["worker"], settings::read(&args.common, given)?).await?;
    let config = process.settings.worker.clone();
    let tls = process.tls.clone();
    let outcome = match Worker::start_secured(tls, config, registry(), process.signalled.clone()) {
        Ok(worker) => {
            shown::worker(&worker, &process);
            worker.join().await.map_err(|error| worker_failed(&error))
        }
        Err(error) => Err(worker_failed(&error)),
    };
    process.stop(outcome).await
}

/// `shardwright settings`: every key with its variable.
pub fn list_settings() -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for setting in daemon::config::settings::<Settings>() {
        writeln!(out, "{:<44} {}", setting.key(), setting.variable())?;
    }
    Ok(())
}

/// Every connector that is built in.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    connectors::register_all(&mut registry);
    registry
}

async fn start_coordinator(
    process: &Process,
    store: &StoreConfig,
    cancel: CancellationToken,
) -> Result<coordinator::Server, Failure> {
    let mut config = process.settings.coordinator.clone();
    config.auth = process.settings.auth.clone();
    config.vault = Vault::open(&process.settings.secrets, &config.cluster, store.is_local())
        .await
        .map_err(|error| Failure::Usage(format!("ERROR: {error}")))?;
    let pem = [(&store.cert, Use::Certificate), (&store.ca, Use::Authority)];
    let pem = pem.into_iter().filter_map(|(file, used)| Some((file.clone()?, used))).collect();
    tls::measure(pem, process.ended.clone());
    let store: Arc<dyn MetadataStore> = store::connect(store).await.map_err(|error| store_failed(&error))?;
    let tls = process.tls.clone();
    let server = coordinator::Server::start_secured(tls, config, registry(), store, cancel);
    server.await.map_err(|error| refused(&error))
}

pub(crate) fn store_failed(error: &store::Error) -> Failure {
    let text = format!("ERROR: {error}");
    match error.kind {
        store::ErrorKind::Config => Failure::Usage(text),
        store::ErrorKind::Unavailable => Failure::Unreachable(text),
        _ => Failure::Refused(text),
    }
}

/// Settings that cannot work together are a matter of usage.
fn check(settings: &Settings) -> Result<(), Failure> {
    settings
        .auth
        .check()
        .and_then(|()| settings.coordinator.check())
        .map_err(|error| Failure::Usage(format!("ERROR: {error}")))
}

fn refused(error: &coordinator::Error) -> Failure {
    Failure::Refused(format!("ERROR: {error}"))
}

fn worker_failed(error: &worker::Error) -> Failure {
    let text = format!("ERROR: {error}");
    match error {
        worker::Error::Config(_) => Failure::Usage(text),
        _ => Failure::Refused(text),
    }
}
