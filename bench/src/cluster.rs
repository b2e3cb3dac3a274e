//! A small cluster of real processes, and the endpoint it works against.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use integration_tests::pki::Authority;
use proto::v1::{
    Event, ExecuteRequest, SinkStatus, StatusReply, StatusRequest, WatchEventsRequest,
    admin_client::AdminClient,
};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    sync::OnceCell,
};
use tonic::transport::Channel;

use crate::{
    RunArgs,
    endpoint::{self, Endpoint},
    probe, scrape,
};

/// No start takes so long.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// The stream that is full.
const FULL: &str = "bench-full";

/// What all cases share.
pub(crate) struct Bench {
    /// As typed.
    pub(crate) args: RunArgs,
    /// The endpoint.
    pub(crate) endpoint: Endpoint,
    /// The `shardwright` that is measured.
    pub(crate) binary: PathBuf,
    full: OnceCell<()>,
}

impl Bench {
    /// Finds the binary and starts the endpoint.
    pub(crate) async fn prepare(args: RunArgs) -> Result<Self> {
        let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("shardwright"));
        let binary = args.binary.clone().map_or_else(beside, Ok)?;
        if !binary.is_file() {
            bail!("no `{}`; build the workspace first, or say --binary", binary.display());
        }
        Ok(Self { args, endpoint: Endpoint::start().await?, binary, full: OnceCell::new() })
    }

    /// Whether a case is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.contains(&self.args.only)
    }

    /// The options of a Kinesis connector for one of the endpoint's streams.
    pub(crate) fn kinesis(&self, stream: &str) -> String {
        Self::kinesis_at(&self.endpoint.url, stream)
    }

    /// The same, for one that is reached through something.
    pub(crate) fn kinesis_at(url: &str, stream: &str) -> String {
        format!(
            "connector = 'kinesis', stream = '{stream}', aws.region = 'us-east-1', endpoint = '{url}', \
             aws.credentials.access_key_id = 'test', aws.credentials.secret_access_key = 'test'"
        )
    }

    /// The statements of a sink that copies what a live load puts.
    pub(crate) fn copy(&self, source: &str, destination: &str) -> [String; 2] {
        let (from, to) = (self.kinesis(source), self.kinesis(destination));
        [
            format!(
                "CREATE SOURCE live (key VARCHAR, n BIGINT, t BIGINT) INCLUDE partition AS split WITH ({from}) \
                 FORMAT PLAIN ENCODE JSON"
            ),
            format!("CREATE SINK out FROM live WITH ({to}, primary_key = 'key') FORMAT PLAIN ENCODE JSON"),
        ]
    }

    /// The stream that is full: filled when it is first asked for.
    pub(crate) async fn full(&self) -> Result<&'static str> {
        let fill = || endpoint::fill_new(self.endpoint.client(), FULL, self.args.records);
        self.full.get_or_try_init(fill).await?;
        Ok(FULL)
    }

    /// A new cluster with a coordinator that keeps everything in memory, and no worker.
    pub(crate) async fn cluster(&self) -> Result<Cluster> {
        self.cluster_on("memory:").await
    }

    /// A new cluster with a coordinator on this store, and no worker.
    pub(crate) async fn cluster_on(&self, store: &str) -> Result<Cluster> {
        Cluster::start(&self.binary, store, false).await
    }

    /// A new cluster as [`Bench::cluster`], whose processes speak mutual TLS with each other.
    pub(crate) async fn secured_cluster(&self) -> Result<Cluster> {
        Cluster::start(&self.binary, "memory:", true).await
    }
}

/// A running process of the cluster; killed with this value.
pub(crate) struct Member {
    process: Child,
    metrics: SocketAddr,
}

impl Member {
    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id().unwrap_or(0)
    }

    /// kill -9.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.process.kill().await.context("killing it")
    }

    /// SIGTERM, without waiting.
    pub(crate) fn terminate(&self) -> Result<()> {
        let pid = self.pid().to_string();
        let status = std::process::Command::new("kill").args(["-TERM", &pid]).status()?;
        anyhow::ensure!(status.success(), "kill -TERM {pid} failed");
        Ok(())
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> Result<()> {
        tokio::time::timeout(START_DEADLINE, self.process.wait()).await.context("it does not stop")??;
        Ok(())
    }

    /// Where its telemetry listens.
    pub(crate) fn telemetry(&self) -> SocketAddr {
        self.metrics
    }

    /// The sum of all series of a metric; `None` while it is not there.
    pub(crate) async fn metric(&self, name: &str) -> Result<Option<f64>> {
        Ok(scrape::sum(&scrape::get(self.metrics, "/metrics").await?, name, ""))
    }

    /// Memory, threads and CPU of it over a while, in which it should rest.
    pub(crate) async fn rest(&self, span: Duration) -> Result<Rest> {
        let (before, start) = (probe::cpu_seconds(self.pid())?, Instant::now());
        tokio::time::sleep(span).await;
        let cpu = probe::cpu_seconds(self.pid())? - before;
        Ok(Rest {
            cpu_percent: 100.0 * cpu / start.elapsed().as_secs_f64(),
            resident: probe::memory(self.pid())?.resident,
            threads: probe::threads(self.pid())?,
        })
    }
}

/// What a process uses at rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    /// Of one core.
    pub(crate) cpu_percent: f64,
    /// MiB.
    pub(crate) resident: f64,
    /// All of the process.
    pub(crate) threads: f64,
}

/// One coordinator and some workers, in processes of their own.
pub(crate) struct Cluster {
    /// The coordinator.
    pub(crate) coordinator: Member,
    /// The workers by name.
    pub(crate) workers: BTreeMap<String, Member>,
    /// Where the coordinator listens.
    pub(crate) url: String,
    admin: AdminClient<Channel>,
    binary: PathBuf,
    directory: TempDir,
    authority: Option<Authority>,
}

impl Cluster {
    async fn start(binary: &Path, store: &str, secured: bool) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let authority = secured.then(|| Authority::new(&directory.path().join("pki"))).transpose()?;
        let (listen, metrics) = (free_address()?, free_address()?);
        let mut command = Command::new(binary);
        command.args(["coordinator", "--store", store, "--listen", &listen.to_string()]);
        command.args(["--telemetry-listen", &metrics.to_string()]);
        command.args(identity(authority.as_ref(), "coordinator")?);
        let process = spawn(command, &directory.path().join("coordinator.log"))?;
        let scheme = if secured { "https" } else { "http" };
        let url = format!("{scheme}://{listen}");
        let admin = connect(&url, authority.as_ref()).await?;
        let coordinator = Member { process, metrics };
        let binary = binary.to_owned();
        Ok(Self { coordinator, workers: BTreeMap::new(), admin, url, binary, directory, authority })
    }

    /// Starts a worker and waits until it is live.
    pub(crate) async fn worker(&mut self, name: &str) -> Result<()> {
        self.spawn_worker(name)?;
        let live = |status: &StatusReply| status.workers.iter().any(|w| w.name == name && w.state == "live");
        self.wait("the worker", START_DEADLINE, live).await
    }

    /// Starts a worker.
    pub(crate) fn spawn_worker(&mut self, name: &str) -> Result<()> {
        self.spawn_worker_with(name, &[])
    }

    /// Starts a worker with these settings besides.
    pub(crate) fn spawn_worker_with(&mut self, name: &str, settings: &[String]) -> Result<()> {
        let metrics = free_address()?;
        let mut command = Command::new(&self.binary);
        command.args(["worker", "--name", name, "--coordinators", &self.url]);
        command.args(["--telemetry-listen", &metrics.to_string()]);
        command.arg("--data-dir").arg(self.directory.path().join(name));
        command.args(identity(self.authority.as_ref(), name)?);
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        // Where metrics are pushed, each second instead of each minute.
        command.env("OTEL_METRIC_EXPORT_INTERVAL", "1000");
        let process = spawn(command, &self.directory.path().join(format!("{name}.log")))?;
        self.workers.insert(name.to_owned(), Member { process, metrics });
        Ok(())
    }

    /// Runs a statement.
    pub(crate) async fn sql(&mut self, statement: &str) -> Result<()> {
        let request = ExecuteRequest { statement: statement.to_owned(), request_id: String::new() };
        let mut replies =
            self.admin.execute(request).await.with_context(|| statement.to_owned())?.into_inner();
        while replies.message().await.with_context(|| statement.to_owned())?.is_some() {}
        Ok(())
    }

    /// The state of the cluster.
    pub(crate) async fn status(&mut self) -> Result<StatusReply> {
        Ok(self.admin.status(StatusRequest {}).await?.into_inner())
    }

    /// Hands all tasks of a worker over and waits until it has none.
    pub(crate) async fn drain(&mut self, worker: &str) -> Result<()> {
        let request = proto::v1::DrainWorkerRequest { worker: worker.to_owned(), undo: false };
        let mut progress = self.admin.drain_worker(request).await?.into_inner();
        while progress.message().await?.is_some() {}
        Ok(())
    }

    /// The events after a number.
    pub(crate) async fn events(&mut self, after_event: u64) -> Result<Vec<Event>> {
        let request = WatchEventsRequest { after_event, follow: false };
        let mut stream = self.admin.watch_events(request).await?.into_inner();
        let mut events = Vec::new();
        while let Some(event) = stream.message().await? {
            events.push(event);
        }
        Ok(events)
    }

    /// Polls the status until it is as wanted.
    pub(crate) async fn wait(
        &mut self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&StatusReply) -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            let status = self.status().await?;
            if wanted(&status) {
                return Ok(());
            }
            if start.elapsed() > deadline {
                bail!("waited {} s for {what}\n{status:#?}\n{}", deadline.as_secs(), self.logs());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the only sink has delivered so many records; a sink that stands still for a minute is an error.
    pub(crate) async fn delivered(&mut self, records: u64) -> Result<()> {
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let sink = self.status().await?.sinks.into_iter().next().unwrap_or_default();
            let SinkStatus { records: now, error, state, .. } = sink;
            if now >= records {
                return Ok(());
            }
            if now > last {
                (last, moved) = (now, Instant::now());
            } else if moved.elapsed() > Duration::from_secs(60) {
                bail!(
                    "the sink stands still at {now} of {records} records: {state} {error}\n{}",
                    self.logs()
                );
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The ends of all logs.
    pub(crate) fn logs(&self) -> String {
        let names = std::iter::once("coordinator").chain(self.workers.keys().map(String::as_str));
        let tail = |name: &str| {
            let text = std::fs::read_to_string(self.directory.path().join(format!("{name}.log")))
                .unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(20)..].join("\n"))
        };
        names.map(tail).collect()
    }
}

/// Starts a process with its output at the end of a file.
pub(crate) fn spawn(mut command: Command, log: &Path) -> Result<Child> {
    let log = std::fs::File::options().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    command.spawn().context("starting shardwright")
}

/// The settings of a process with a certificate for its name, if there is somebody to issue one.
fn identity(authority: Option<&Authority>, name: &str) -> Result<Vec<String>> {
    let issued = authority.map(|authority| authority.issue(name, name)).transpose()?;
    Ok(issued.map_or_else(Vec::new, |issued| issued.settings()))
}

/// Waits until the coordinator leads.
async fn connect(url: &str, authority: Option<&Authority>) -> Result<AdminClient<Channel>> {
    let start = Instant::now();
    let mut endpoint = Channel::from_shared(url.to_owned())?;
    if let Some(authority) = authority {
        endpoint = endpoint.tls_config(authority.client())?;
    }
    loop {
        let asked = async {
            let admin = AdminClient::new(endpoint.connect().await?);
            let mut admin = admin.max_decoding_message_size(proto::MESSAGE_BYTES_MAX);
            admin.status(StatusRequest {}).await?;
            anyhow::Ok(admin)
        };
        match asked.await {
            Ok(admin) => return Ok(admin),
            Err(_) if start.elapsed() < START_DEADLINE => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => return Err(error.context("reaching the coordinator")),
        }
    }
}

/// An address that was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
