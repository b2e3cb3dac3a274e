//! One trial: servers, a cluster, a load, two sinks on one source, and the ledger.

use std::{
    collections::BTreeMap,
    io::Write as _,
    time::{Duration, Instant},
};

use aws_sdk_kinesis::Client;
use proto::v1::StatusReply;
use shardwright_integration_tests::{
    admin::{self, Admin},
    cluster::{Cluster, Metadata},
    endpoint::{self, Endpoint},
    ledger::{self, Verdict},
    load::{Load, Plan},
    readback,
    servers::Etcd,
};

/// The stream that is read.
pub const SOURCE: &str = "orders-in";
/// The stream that the `copy` sink writes.
pub const COPY: &str = "orders-out";
/// How long anything may take to heal.
pub const HEALS_WITHIN: Duration = Duration::from_secs(60);

/// Everything that a test needs, killed when it goes.
pub struct Trial {
    pub cluster: Cluster,
    pub endpoint: Endpoint,
    pub etcd: Etcd,
    pub names: Vec<String>,
    load: Option<Load>,
    sent: BTreeMap<String, u64>,
    dir: tempfile::TempDir,
}

/// Starts a trial, or says aloud why the test is skipped.
pub async fn trial(test: &str, coordinators: usize, workers: usize, shards: i32) -> Option<Trial> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let why = if std::env::var("SHARDWRIGHT_TEST_SERVERS").is_ok_and(|v| v == "off") {
        Some("SHARDWRIGHT_TEST_SERVERS=off".to_owned())
    } else {
        None
    };
    let dir = tempfile::tempdir().unwrap();
    let etcd = match why {
        Some(why) => Err(why),
        None => Etcd::start(&dir.path().join("etcd")).await.map_err(|error| format!("{error:#}")),
    };
    let etcd = match etcd {
        Ok(etcd) => etcd,
        Err(why) => {
            // Past the capture of the test runner: a skipped test must be seen.
            let mut aloud = std::io::stdout();
            writeln!(aloud, "\nskipped: {test}: {why}").unwrap();
            return None;
        }
    };
    let endpoint = Endpoint::start(endpoint::quick()).await.unwrap();
    endpoint::create_stream(&endpoint.client(), SOURCE, shards).await.unwrap();
    endpoint::create_stream(&endpoint.client(), COPY, 2).await.unwrap();
    let cluster = Cluster::start(dir.path(), Metadata::Etcd(etcd.url()), coordinators).await.unwrap();
    let names: Vec<String> = (0..workers).map(|n| format!("worker-{n}")).collect();
    let mut trial = Trial { cluster, endpoint, etcd, names, load: None, sent: BTreeMap::new(), dir };
    for name in trial.names.clone() {
        trial.cluster.start_worker(&name).unwrap();
    }
    Some(trial)
}

impl Trial {
    pub fn admin(&self) -> Admin {
        self.cluster.admin()
    }

    pub fn client(&self) -> Client {
        self.endpoint.client()
    }

    pub fn live(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// The options with which everything here reaches the Kinesis endpoint.
    pub fn kinesis_options(&self) -> String {
        format!(
            "aws.region = 'us-east-1', endpoint = '{}', aws.credentials.access_key_id = '{}', \
             aws.credentials.secret_access_key = 'test'",
            self.endpoint.url(),
            endpoint::ACCESS_KEY
        )
    }

    /// Two sinks on one source, every split read.
    pub async fn create(&self) {
        let keys = self.kinesis_options();
        let files = self.dir.path().join("files");
        self.sql(&format!(
            "CREATE SOURCE orders (key VARCHAR, n BIGINT) WITH (connector = 'kinesis', stream = '{SOURCE}', {keys}) \
             FORMAT PLAIN ENCODE JSON"
        ))
        .await;
        self.sql(&format!(
            "CREATE SINK copy FROM orders WITH (connector = 'kinesis', stream = '{COPY}', primary_key = 'key', {keys}) \
             FORMAT PLAIN ENCODE JSON"
        ))
        .await;
        self.sql(&format!(
            "CREATE SINK archive FROM orders WITH (connector = 'file', path = '{}') FORMAT PLAIN ENCODE JSON",
            files.display()
        ))
        .await;
        self.reading().await;
    }

    pub async fn sql(&self, statement: &str) {
        if let Err(error) = self.admin().execute(statement).await {
            panic!("{error:#}\n{}", self.cluster.tails());
        }
    }

    pub fn start_load(&mut self) {
        let plan = Plan { keys: 50, per_second: 400, ..Plan::default() };
        self.load = Some(Load::start(self.client(), SOURCE, plan));
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

    async fn audit(&self) -> Vec<(&'static str, Verdict)> {
        let client = self.client();
        let copy = readback::kinesis(&client, COPY).await.unwrap();
        let splits: Vec<String> = endpoint::shards(&client, SOURCE)
            .await
            .unwrap()
            .iter()
            .map(|shard| shard.shard_id().to_owned())
            .collect();
        let archive = readback::files(&self.dir.path().join("files/archive"), &splits).unwrap();
        vec![("copy", ledger::audit(&self.sent, copy)), ("archive", ledger::audit(&self.sent, archive))]
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
        for (name, verdict) in &verdicts {
            println!("ledger: {name}: {verdict}");
            assert!(
                verdict.balances(),
                "{name}: {verdict}\n{}\n{}",
                verdict.complaints.join("\n"),
                self.cluster.tails()
            );
        }
    }
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
