//! Both roles in one process on the embedded store: the quickest way in.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::Args;
use store::StoreConfig;
use tokio_util::sync::CancellationToken;
use worker::Worker;

use super::{
    CommonArgs, Given, Process, check, refused, registry, settings, shown, start_coordinator, worker_failed,
};
use crate::failure::Failure;

/// The port that the tools ask when they are not told.
const PORT_DEFAULT: u16 = 7070;

/// Run a coordinator and a worker in one process.
#[derive(Args, Debug)]
pub struct StandaloneArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "shardwright-data", env = "SHARDWRIGHT_DATA_DIR")]
    data_dir: PathBuf,
    /// Where tools and further workers reach it
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Bytes of records that may be under way, all tasks together
    #[arg(long, value_name = "BYTES")]
    memory_budget: Option<u64>,
}

/// `shardwright standalone`.
pub async fn standalone(args: StandaloneArgs) -> Result<(), Failure> {
    let mut given = Given::default();
    given
        .flag("coordinator.listen", "--listen", args.listen)
        .flag("worker.memory_budget", "--memory-budget", args.memory_budget)
        .flag("worker.data_dir", "--data-dir", Some(args.data_dir.join("worker").display()));
    let mut loaded = settings::read(&args.common, given)?;
    check(&loaded.value)?;
    let settings = &mut loaded.value;
    // One process has one view of the protocol's times; the coordinator's section says it.
    settings.worker.write_attempt_timeout = settings.coordinator.timing.write_attempt_timeout;
    settings.worker.late_write_margin = settings.coordinator.timing.late_write_margin;
    std::fs::create_dir_all(&args.data_dir).map_err(|error| {
        Failure::Refused(format!("ERROR: cannot make `{}` (--data-dir): {error}", args.data_dir.display()))
    })?;
    let file = args.data_dir.join("metadata.redb");
    let store =
        settings.store.clone().unwrap_or_else(|| StoreConfig::new(format!("embedded:{}", file.display())));
    let process = Process::start("standalone", &["coordinator", "worker"], loaded).await?;
    let outcome = both(&process, &store, &args.data_dir).await;
    process.stop(outcome).await
}

async fn both(process: &Process, store: &StoreConfig, data_dir: &Path) -> Result<(), Failure> {
    let stop_coordinator = CancellationToken::new();
    let server = start_coordinator(process, store, stop_coordinator.clone()).await?;
    shown::coordinator(&server, process);
    let address = server.local_addr();
    let mut config = process.settings.worker.clone();
    config.coordinators = vec![match process.tls {
        Some(_) => server.handle().address().to_owned(),
        None => format!("http://{address}"),
    }];
    // Both roles show the same certificate: where it bears a name, that is the worker's.
    let certified = process.tls.as_ref().and_then(|tls| tls.names().into_iter().next());
    config.name = config.name.or(certified).or_else(|| Some("standalone".to_owned()));
    let tls = process.tls.clone();
    let mut coordinator = std::pin::pin!(server.join());
    let outcome = match Worker::start_secured(tls, config, registry(), process.signalled.clone()) {
        Ok(worker) => {
            shown::worker(&worker, process);
            greet(process, address, data_dir);
            let mut worker = std::pin::pin!(worker.join());
            tokio::select! {
                ended = &mut worker => ended.map_err(|error| worker_failed(&error)),
                // It stops first only if it cannot go on; the worker would wait for it for ever.
                ended = &mut coordinator => {
                    process.signalled.cancel();
                    worker.await.ok();
                    return ended.map_err(|error| refused(&error));
                }
            }
        }
        Err(error) => Err(worker_failed(&error)),
    };
    // The worker has handed its tasks over; nobody needs the coordinator any more.
    stop_coordinator.cancel();
    let stopped = coordinator.await.map_err(|error| refused(&error));
    outcome.and(stopped)
}

/// What to type next; without a reader of stdout it runs just as well.
fn greet(process: &Process, address: std::net::SocketAddr, data_dir: &Path) {
    let scheme = if process.tls.is_some() { "https" } else { "http" };
    let server = match process.tls {
        Some(_) => format!(" --server https://{address} --ca FILE"),
        None if address.port() == PORT_DEFAULT => String::new(),
        None => format!(" --server http://{address}"),
    };
    let metrics = process
        .http
        .as_ref()
        .map_or_else(String::new, |http| format!("  metrics  http://{}/metrics\n", http.local_addr()));
    let text = format!(
        "shardwright {version} is up, with its data in {data}\n  admin    {scheme}://{address}\n{metrics}\
         Next, in another terminal:\n\
         \x20 shardwright{server} sql             create sources and sinks\n\
         \x20 shardwright{server} status --watch  look at them\n\
         Ctrl-C stops it.\n",
        version = env!("SHARDWRIGHT_VERSION"),
        data = data_dir.display(),
    );
    std::io::stdout().write_all(text.as_bytes()).ok();
}
