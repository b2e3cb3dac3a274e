//! One trial: servers, a cluster, a load, two sinks on one source, and the ledger.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aws_sdk_kinesis::Client;
use faults::tcp::Link;
use proto::v1::StatusReply;
use shardwright_integration_tests::{
    admin::{self, Admin},
    cluster::{Cluster, Metadata},
    endpoint::{self, Endpoint},
    layer::{self, Layer},
    ledger::{self, Found, Verdict},
    load::{Load, Plan},
    readback,
    servers::Etcd,
};

/// The stream that is read.
pub const SOURCE: &str = "orders-in";
/// The stream that the `copy` sink writes.
pub const COPY: &str = "orders-out";
/// Keys of the load.
const KEYS: u64 = 50;
/// How long anything may take to heal.
pub const HEALS_WITHIN: Duration = Duration::from_secs(60);

/// Everything that a test needs, killed when it goes.
pub struct Trial {
    pub cluster: Cluster,
    pub endpoint: Endpoint,
    pub etcd: Etcd,
    pub names: Vec<String>,
    /// The stream that is read, and the endpoint that has it.
    pub stream: String,
    pub source_url: String,
    /// From each worker to the coordinator, in a trial with faults, if there is but one coordinator (several would send the
    /// worker around the link).
    pub links: BTreeMap<String, Link>,
    layer: Option<Layer>,
    load: Option<Load>,
    sent: BTreeMap<String, u64>,
    dir: tempfile::TempDir,
}

/// Starts a trial, or says aloud why the test is skipped.
pub async fn trial(test: &str, coordinators: usize, workers: usize, shards: i32) -> Option<Trial> {
    begin(test, coordinators, workers, shards, None).await
}

/// Starts a trial with the fault layer around the cluster; its chance comes from `seed`.
pub async fn faulty(test: &str, coordinators: usize, workers: usize, seed: u64) -> Option<Trial> {
    begin(test, coordinators, workers, 3, Some(seed)).await
}

/// Starts a trial with so many shards, with the fault layer if it is given a seed.
pub async fn begin(
    test: &str,
    coordinators: usize,
    workers: usize,
    shards: i32,
    seed: Option<u64>,
) -> Option<Trial> {
    open(test, (coordinators, workers, shards), seed, Dress::default()).await
}

/// What processes have on besides.
#[derive(Clone, Copy, Default)]
pub struct Dress {
    /// They speak TLS with each other, each with a certificate for its name.
    pub secured: bool,
    /// They serve their telemetry.
    pub telemetry: bool,
}

/// Starts a trial whose processes speak TLS with each other, each with a certificate for its name.
pub async fn secured(test: &str, coordinators: usize, workers: usize, shards: i32) -> Option<Trial> {
    open(test, (coordinators, workers, shards), None, Dress { secured: true, telemetry: false }).await
}

/// Starts a trial with so many coordinators, workers and shards.
pub async fn open(
    test: &str,
    (coordinators, workers, shards): (usize, usize, i32),
    seed: Option<u64>,
    dress: Dress,
) -> Option<Trial> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::of_test(test, &dir.path().join("etcd")).await?;
    let endpoint = Endpoint::start(endpoint::quick()).await.unwrap();
    endpoint::create_stream(&endpoint.client(), SOURCE, shards).await.unwrap();
    endpoint::create_stream(&endpoint.client(), COPY, 2).await.unwrap();
    let layer = match seed {
        Some(seed) => Some(Layer::around(&endpoint.url(), &etcd.url(), coordinators, seed).await.unwrap()),
        None => None,
    };
    let metadata = layer.as_ref().map_or(Metadata::Etcd(etcd.url()), |l| Metadata::EtcdEach(l.etcd_urls()));
    let mut cluster = Cluster::plan(dir.path(), metadata, coordinators).unwrap();
    if dress.secured {
        cluster.secure().unwrap();
    }
    if dress.telemetry {
        cluster.serve_telemetry();
    }
    for number in 0..coordinators {
        cluster.start_coordinator(number).await.unwrap();
    }
    let names: Vec<String> = (0..workers).map(|n| format!("worker-{n}")).collect();
    let mut links = BTreeMap::new();
    for name in &names {
        if layer.is_some() && coordinators == 1 {
            let link = layer::links(&cluster.urls()).await.unwrap().remove(0);
            cluster.route_worker(name, &link.url());
            links.insert(name.clone(), link);
        }
        cluster.start_worker(name).unwrap();
    }
    let (stream, source_url) = (SOURCE.to_owned(), endpoint.url());
    let (load, sent) = (None, BTreeMap::new());
    Some(Trial { cluster, endpoint, etcd, names, stream, source_url, links, layer, load, sent, dir })
}

impl Trial {
    pub fn admin(&self) -> Admin {
        self.cluster.admin()
    }

    /// A client of the endpoint that has the stream.
    pub fn client(&self) -> Client {
        endpoint::client(&self.source_url)
    }

    /// The fault layer of a trial that has one.
    pub fn layer(&self) -> &Layer {
        self.layer.as_ref().unwrap()
    }

    pub fn live(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// `CREATE SOURCE orders`, with these options besides those that name the stream.
    pub async fn create_source(&self, more: &str) {
        let through = self.layer.as_ref().map(Layer::source_url);
        let url = through.as_ref().unwrap_or(&self.source_url);
        let (stream, keys) = (&self.stream, kinesis_options(url));
        self.sql(&format!(
            "CREATE SOURCE orders (key VARCHAR, n BIGINT) WITH (connector = 'kinesis', stream = '{stream}', {keys}{more}) \
             FORMAT PLAIN ENCODE JSON"
        ))
        .await;
    }

    /// The sinks `copy` and `archive` on it.
    pub async fn create_sinks(&self) {
        let through = self.layer.as_ref().map(Layer::sink_url);
        let url = through.unwrap_or_else(|| self.endpoint.url());
        let keys = kinesis_options(&url);
        self.sql(&format!(
            "CREATE SINK copy FROM orders WITH (connector = 'kinesis', stream = '{COPY}', primary_key = 'key', {keys}) \
             FORMAT PLAIN ENCODE JSON"
        ))
        .await;
        self.create_archive().await;
    }

    /// The sink `archive` on it.
    pub async fn create_archive(&self) {
        self.sql(&self.archive_text()).await;
    }

    /// The statement of the sink `archive`.
    pub fn archive_text(&self) -> String {
        let files = self.dir.path().join("files");
        format!(
            "CREATE SINK archive FROM orders WITH (connector = 'file', path = '{}') FORMAT PLAIN ENCODE JSON",
            files.display()
        )
    }

    /// Two sinks on one source, every split read. All workers are there first, so that each gets its share.
    pub async fn create(&self) {
        self.create_with("").await;
    }

    /// The same with more options of the source.
    pub async fn create_with(&self, more: &str) {
        self.wait("every worker has joined", |status| {
            let missing =
                |name: &&String| !status.workers.iter().any(|w| w.name == **name && w.state == "live");
            self.names.iter().find(missing).map_or(Ok(()), |name| Err(format!("{name} is missing")))
        })
        .await;
        self.create_source(more).await;
        self.create_sinks().await;
        self.reading().await;
    }

    pub async fn sql(&self, statement: &str) {
        if let Err(error) = self.admin().execute(statement).await {
            panic!("{error:#}\n{}", self.cluster.tails());
        }
    }

    pub fn start_load(&mut self) {
        let plan = Plan { keys: KEYS, per_second: 400, ..Plan::default() };
        self.load = Some(Load::start(self.client(), &self.stream, plan));
    }

    /// Waits until every split is read by one of the workers that should live.
    pub async fn reading(&self) -> Duration {
        self.wait("every split is read", |status| admin::all_reading(status, &self.live())).await
    }

    pub async fn wait(
        &self,
        what: &str,
        settled: impl FnMut(&StatusReply) -> Result<(), String>,
    ) -> Duration {
        match self.admin().wait(what, HEALS_WITHIN, settled).await {
            Ok(took) => took,
            Err(error) => panic!("{error:#}\n{}", self.cluster.tails()),
        }
    }

    /// Lets the load go on until the source has taken `more` records.
    pub async fn records(&self, more: u64) {
        let load = self.load.as_ref().unwrap();
        let until = load.sent() + more;
        let deadline = Instant::now() + HEALS_WITHIN;
        while load.sent() < until {
            assert!(Instant::now() < deadline, "the load stands still");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn stop_load(&mut self) {
        self.sent = self.load.take().unwrap().stop().await.unwrap();
        assert!(self.sent.values().sum::<u64>() > 0);
    }

    /// How many records of each key the source has taken at least.
    pub fn turns(&self) -> u64 {
        self.load.as_ref().unwrap().sent() / KEYS
    }

    /// What the `archive` sink holds.
    pub async fn archive(&self) -> Vec<Found> {
        let shards = endpoint::shards(&self.client(), &self.stream).await.unwrap();
        let splits: Vec<String> = shards.iter().map(|shard| shard.shard_id().to_owned()).collect();
        readback::files(&self.dir.path().join("files/archive"), &splits).unwrap()
    }

    async fn audit(&self) -> Vec<(&'static str, Verdict)> {
        let copy = readback::kinesis(&self.endpoint.client(), COPY).await.unwrap();
        let archive = self.archive().await;
        vec![("copy", ledger::audit(&self.sent, copy)), ("archive", ledger::audit(&self.sent, archive))]
    }

    /// How many records of each key the source has taken, once the load has ended.
    pub fn sent(&self) -> &BTreeMap<String, u64> {
        &self.sent
    }

    /// Stops the load, waits until everything is delivered, and balances the books of both destinations.
    pub async fn ledger(mut self) {
        if self.load.is_some() {
            self.stop_load().await;
        }
        let deadline = Instant::now() + HEALS_WITHIN;
        let mut verdicts = self.audit().await;
        while verdicts.iter().any(|(_, verdict)| verdict.lost > 0) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(250)).await;
            verdicts = self.audit().await;
        }
        verdicts.iter().for_each(|(name, verdict)| self.judge(name, verdict));
    }

    /// Fails unless the books balance.
    pub fn judge(&self, name: &str, verdict: &Verdict) {
        println!("ledger: {name}: {verdict}");
        let complaints = verdict.complaints.join("\n");
        assert!(verdict.balances(), "{name}: {verdict}\n{complaints}\n{}", self.cluster.tails());
    }
}

/// The options with which a Kinesis endpoint is reached.
pub fn kinesis_options(url: &str) -> String {
    format!(
        "aws.region = 'us-east-1', endpoint = '{url}', aws.credentials.access_key_id = '{}', \
         aws.credentials.secret_access_key = 'test'",
        endpoint::ACCESS_KEY
    )
}

/// The epoch of each task: (sink, split) → `generation.revision`, of those that run somewhere.
pub fn epochs(status: &StatusReply) -> BTreeMap<(String, String), (u64, u64)> {
    status
        .splits
        .iter()
        .filter_map(|split| {
            let (generation, revision) = split.epoch.split_once('.')?;
            let epoch = (generation.parse().ok()?, revision.parse().ok()?);
            Some(((split.sink.clone(), split.split.clone()), epoch))
        })
        .collect()
}

/// The tasks of one worker.
pub fn tasks_of(status: &StatusReply, worker: &str) -> Vec<(String, String)> {
    let mine = status.splits.iter().filter(|split| split.worker == worker);
    mine.map(|split| (split.sink.clone(), split.split.clone())).collect()
}
