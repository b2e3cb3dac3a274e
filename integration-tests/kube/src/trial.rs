//! The test: a release under load is upgraded as `helm upgrade` would do it, its leader is stopped and killed, a worker is killed;
//! the ledger says what was lost, the watch how long a shard stood still.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use integration_tests::{
    admin::{self, Admin},
    cluster::binary,
    endpoint::{self, Endpoint},
    ledger::{self, Verdict},
    load::{self, Load},
    readback, servers,
};
use tokio::time::Instant;

use crate::{
    cluster::Cluster,
    helm,
    manifest::Release,
    stall::{Shards, Stall, Watch},
};

const SOURCE: &str = "orders-in";
const COPY: &str = "orders-out";
const BY_ITEM: &str = "items-out";
const COORDINATORS: &str = "test-shardwright-coordinator";
const WORKERS: &str = "test-shardwright-worker";
const SETTLES_WITHIN: Duration = Duration::from_secs(120);
/// Around each thing that happens, so that its stall is its own.
const PAUSE: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Workers.
    pub workers: usize,
    /// Seconds that a pod must be ready to count.
    pub min_ready: u64,
    /// Seconds of the coordinators' preStop.
    pub pre_stop: u64,
    /// Each upgrade by itself, and crashes; otherwise one upgrade of everything and the leader's two ends.
    pub whole: bool,
}

/// Something that happened to the cluster.
#[derive(Clone, Debug)]
pub struct Happened {
    /// What.
    pub what: &'static str,
    /// Pods that were replaced.
    pub pods: usize,
    /// How long it took until all was well again.
    pub took: Duration,
    /// Until somebody else led, where the leader went.
    pub leaderless: Option<Duration>,
    /// The longest stall of a shard at each destination.
    pub stalls: Vec<(&'static str, Stall)>,
}

impl Happened {
    /// The longest of them.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.stalls.iter().map(|(_, stall)| stall.lasted).max().unwrap_or_default()
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<35} {:>2} pods in {:>4.1} s; stalls:", self.what, self.pods, self.took.as_secs_f64())?;
        for (sink, stall) in &self.stalls {
            write!(f, " {sink} {} ms ({})", stall.lasted.as_millis(), stall.shard)?;
        }
        match self.leaderless {
            Some(away) => write!(f, "; no leader for {} ms", away.as_millis()),
            None => Ok(()),
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// In order; the first is an undisturbed time, to compare with.
    pub happened: Vec<Happened>,
    /// By destination.
    pub verdicts: Vec<(&'static str, Verdict)>,
    /// Hooks that succeeded: statements and helm's tests.
    pub hooks: usize,
}

impl Report {
    /// Nothing is lost and nothing out of order.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.verdicts.iter().all(|(_, verdict)| verdict.balances())
    }

    fn longest(&self, what: &str) -> String {
        let those = self.happened.iter().filter(|happened| happened.what.contains(what));
        those
            .map(Happened::longest)
            .max()
            .map_or_else(|| "-".to_owned(), |stall| stall.as_millis().to_string())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for happened in &self.happened {
            writeln!(f, "  {happened}")?;
        }
        for (name, verdict) in &self.verdicts {
            verdict.complaints.iter().try_for_each(|complaint| writeln!(f, "  ! {complaint}"))?;
            writeln!(f, "ledger: {name}: {verdict}")?;
        }
        let pods: usize = self.happened.iter().map(|happened| happened.pods).sum();
        let (workers, stop, crash) =
            (self.longest("workers"), self.longest("leader stops"), self.longest("leader is killed"));
        write!(
            f,
            "upgrade: pods {pods}, longest stall workers {workers} ms, leader stop {stop} ms, leader crash {crash} ms"
        )
    }
}

/// Everything that runs.
struct Trial {
    extent: Extent,
    dir: PathBuf,
    etcd: servers::Etcd,
    endpoint: Endpoint,
    cluster: Cluster,
    /// What each upgrade changes in the pods of coordinators and workers.
    revisions: [u32; 2],
    hooks: usize,
    watches: Vec<(&'static str, Watch)>,
}

/// Runs the whole test below `dir`.
///
/// # Errors
/// When something does not come up, or does not become well again.
pub async fn run(dir: &Path, extent: Extent) -> Result<Report> {
    let etcd = servers::Etcd::start(&dir.join("etcd")).await?;
    let endpoint = Endpoint::start(endpoint::quick()).await?;
    let client = endpoint.client();
    for (stream, shards) in [(SOURCE, 4), (COPY, 2), (BY_ITEM, 2)] {
        endpoint::create_stream(&client, stream, shards).await?;
    }
    let cluster = Cluster::new(&binary()?, dir)?;
    let dir = dir.to_owned();
    let mut trial =
        Trial { extent, dir, etcd, endpoint, cluster, revisions: [0, 0], hooks: 0, watches: Vec::new() };
    trial.install().await?;
    let shards = Shards::new(&endpoint::open_shards(&client, SOURCE).await?);
    for (sink, stream) in [("copy", COPY), ("by item", BY_ITEM)] {
        trial.watches.push((sink, Watch::start(client.clone(), stream, shards.clone())));
    }
    let load = Load::start(client.clone(), SOURCE, load::Plan { keys: 100, per_second: 1000, padding: 40 });
    let happened = trial.happen().await?;
    let sent = load.stop().await?;
    let verdicts = trial.audit(&sent).await?;
    trial.hooks += trial.cluster.run_hooks("test", SETTLES_WITHIN).await?;
    Ok(Report { happened, verdicts, hooks: trial.hooks })
}

impl Trial {
    /// The values of the release.
    fn values(&self) -> String {
        let Extent { workers, min_ready, pre_stop, .. } = self.extent;
        let [coordinators_at, workers_at] = self.revisions;
        let etcd = self.etcd.url().replace("http://", "");
        format!(
            "cluster: upgrade\netcd: {{endpoints: [\"{etcd}\"]}}\nauth: {{anonymous: always}}\n\
             aws: {{region: us-east-1, existingSecret: aws-keys}}\n\
             coordinator:\n  minReadySeconds: {min_ready}\n  preStopSleepSeconds: {pre_stop}\n  \
             podAnnotations: {{upgrade: \"{coordinators_at}\"}}\n\
             worker:\n  replicas: {workers}\n  minReadySeconds: {min_ready}\n  podAnnotations: {{upgrade: \"{workers_at}\"}}\n\
             statements: {{existingSecret: statements}}\n"
        )
    }

    fn statements(&self) -> String {
        let url = self.endpoint.url();
        // A Kinesis sink takes static keys only.
        let keys = format!(
            "aws.credentials.access_key_id = '{}', aws.credentials.secret_access_key = 'test'",
            endpoint::ACCESS_KEY
        );
        format!(
            "CREATE SOURCE IF NOT EXISTS orders (key VARCHAR, n BIGINT, item VARCHAR, step BIGINT, filler VARCHAR)\n\
             WITH (connector = 'kinesis', stream = '{SOURCE}', aws.region = 'us-east-1', endpoint = '{url}')\n\
             FORMAT PLAIN ENCODE JSON;\n\
             CREATE SINK IF NOT EXISTS copy AS SELECT key, n FROM orders\n\
             WITH (connector = 'kinesis', stream = '{COPY}', primary_key = 'key', aws.region = 'us-east-1', endpoint = '{url}',\n{keys})\n\
             FORMAT PLAIN ENCODE JSON;\n\
             CREATE SINK IF NOT EXISTS by_item AS SELECT item AS key, step AS n FROM orders\n\
             WITH (connector = 'kinesis', stream = '{BY_ITEM}', primary_key = 'key', distribution = 'key(4)',\n\
             aws.region = 'us-east-1', endpoint = '{url}', {keys})\n\
             FORMAT PLAIN ENCODE JSON;"
        )
    }

    /// What helm makes of the values, and the Secrets that an operator would have made before.
    async fn render(&self) -> Result<Release> {
        let secrets = format!(
            "\n---\nkind: Secret\nmetadata: {{name: aws-keys}}\nstringData: {{access-key-id: {}, secret-access-key: test}}\n\
             ---\nkind: Secret\nmetadata: {{name: statements}}\nstringData: {{statements.sql: {}}}\n",
            endpoint::ACCESS_KEY,
            serde_json::Value::String(self.statements())
        );
        Release::read(&(helm::template(&self.dir, &self.values()).await? + &secrets))
    }

    async fn install(&mut self) -> Result<()> {
        let release = self.render().await?;
        self.cluster.apply(release).await?;
        let pods = self.cluster.settle(SETTLES_WITHIN).await?;
        ensure!(pods == self.extent.workers + 2, "{pods} pods were made");
        self.hooks += self.cluster.run_hooks("post-install", SETTLES_WITHIN).await?;
        self.all_reading().await?;
        Ok(())
    }

    fn admin(&self) -> Result<Admin> {
        Ok(Admin::new(vec![self.cluster.url(COORDINATORS, 7070)?]))
    }

    async fn all_reading(&self) -> Result<()> {
        let names = self.cluster.pods_of(WORKERS);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.admin()?.wait("every shard is read", SETTLES_WITHIN, |s| admin::all_reading(s, &names)).await?;
        Ok(())
    }

    async fn happen(&mut self) -> Result<Vec<Happened>> {
        let arrived = Instant::now();
        while self.watches.iter().any(|(_, watch)| watch.shards() < 4) {
            ensure!(arrived.elapsed() < SETTLES_WITHIN, "the load does not arrive");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut all = vec![self.nothing().await?];
        if self.extent.whole {
            all.push(self.upgrade("upgrade of workers", [0, 1]).await?);
            all.push(self.upgrade("upgrade of coordinators", [1, 0]).await?);
            all.push(self.kill_worker().await?);
        }
        // It leads until its preStop is over.
        let leads_on = Duration::from_secs(self.extent.pre_stop);
        all.push(self.leader_goes("leader stops", Cluster::evict, leads_on).await?);
        all.push(self.leader_goes("leader is killed", Cluster::crash, Duration::ZERO).await?);
        all.push(self.upgrade("upgrade of workers and coordinators", [1, 1]).await?);
        Ok(all)
    }

    fn stalls(&self, from: Instant) -> Result<Vec<(&'static str, Stall)>> {
        let to = Instant::now();
        self.watches.iter().map(|(sink, watch)| Ok((*sink, watch.worst(from, to)?))).collect()
    }

    /// What a stall is when nothing happens.
    async fn nothing(&self) -> Result<Happened> {
        let from = Instant::now();
        tokio::time::sleep(PAUSE).await;
        let stalls = self.stalls(from)?;
        Ok(Happened { what: "nothing", pods: 0, took: from.elapsed(), leaderless: None, stalls })
    }

    /// `helm upgrade` with other pods of the coordinators, of the workers, or of both.
    async fn upgrade(&mut self, what: &'static str, change: [u32; 2]) -> Result<Happened> {
        for (revision, change) in self.revisions.iter_mut().zip(change) {
            *revision += change;
        }
        let release = self.render().await?;
        let from = Instant::now();
        self.cluster.apply(release).await?;
        let pods = self.cluster.settle(SETTLES_WITHIN * 2).await?;
        let due = [2, self.extent.workers]
            .iter()
            .zip(change)
            .filter(|(_, c)| *c > 0)
            .map(|(n, _)| n)
            .sum::<usize>();
        ensure!(pods == due, "{pods} pods were made, not {due}");
        self.all_reading().await?;
        let took = from.elapsed();
        self.hooks += self.cluster.run_hooks("post-upgrade", SETTLES_WITHIN).await?;
        tokio::time::sleep(PAUSE).await;
        Ok(Happened { what, pods, took, leaderless: None, stalls: self.stalls(from)? })
    }

    async fn leader_goes(
        &mut self,
        what: &'static str,
        go: fn(&Cluster, &str) -> Result<()>,
        leads_on: Duration,
    ) -> Result<Happened> {
        let before = self.admin()?.status().await?;
        let leader =
            self.cluster.pod_at(&before.leader).with_context(|| format!("nobody is at {}", before.leader))?;
        let from = Instant::now();
        go(&self.cluster, &leader)?;
        let admin = self.admin()?;
        let led = |status: &proto::v1::StatusReply| status.leader_revision > before.leader_revision;
        let away = async {
            while !admin.status().await.is_ok_and(|status| led(&status)) {
                tokio::time::sleep(LOOK).await;
            }
            from.elapsed().saturating_sub(leads_on)
        };
        tokio::pin!(away);
        let (mut leaderless, made) = (None, self.cluster.made());
        loop {
            tokio::select! {
                after = &mut away, if leaderless.is_none() => leaderless = Some(after),
                () = tokio::time::sleep(LOOK) => {}
            }
            // The control plane works on meanwhile: the place of an evicted pod is filled.
            if self.cluster.step()? && leaderless.is_some() && from.elapsed() > PAUSE {
                break;
            }
            if from.elapsed() > SETTLES_WITHIN {
                bail!(
                    "{what}: not well after {SETTLES_WITHIN:?}, new leader after {leaderless:?}: {}",
                    self.cluster.describe()
                );
            }
        }
        let pods = self.cluster.made() - made;
        self.all_reading().await?;
        let took = from.elapsed();
        tokio::time::sleep(PAUSE).await;
        Ok(Happened { what, pods, took, leaderless, stalls: self.stalls(from)? })
    }

    /// The container is started again in its pod, under the same name.
    async fn kill_worker(&mut self) -> Result<Happened> {
        let victim = self.cluster.pods_of(WORKERS).into_iter().next().context("a worker")?;
        let before = self.cluster.restarts(&victim)?;
        let from = Instant::now();
        self.cluster.crash(&victim)?;
        while self.cluster.restarts(&victim)? == before {
            ensure!(from.elapsed() < SETTLES_WITHIN, "{victim} is not started again");
            tokio::time::sleep(LOOK).await;
        }
        self.cluster.settle(SETTLES_WITHIN).await?;
        self.all_reading().await?;
        let took = from.elapsed();
        tokio::time::sleep(PAUSE).await;
        Ok(Happened { what: "worker is killed", pods: 0, took, leaderless: None, stalls: self.stalls(from)? })
    }

    /// Waits until nothing is missing any more, or too long: the verdict says what.
    async fn audit(
        &self,
        sent: &std::collections::BTreeMap<String, u64>,
    ) -> Result<Vec<(&'static str, Verdict)>> {
        let client = self.endpoint.client();
        let start = Instant::now();
        loop {
            let copy = readback::kinesis(&client, COPY).await?;
            let by_item = readback::kinesis(&client, BY_ITEM).await?;
            let verdicts = vec![
                ("copy", ledger::audit(sent, copy)),
                ("by item", ledger::audit(&load::items(sent), by_item)),
            ];
            if verdicts.iter().all(|(_, verdict)| verdict.lost == 0)
                || start.elapsed() > Duration::from_secs(60)
            {
                return Ok(verdicts);
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}
