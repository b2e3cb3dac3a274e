//! How long it takes until a cluster has healed: a worker is killed or cut off, the leader is killed, etcd is started again,
//! each many times, under a live load. The destination tells how long a split was silent.
//!
//! Workers are hit in a cluster with one coordinator: where there are several, the one that does not lead tells the worker
//! where the leader is, and that is around the line that is broken. All clusters here keep their metadata in a real etcd.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use faults::tcp::Link;
use integration_tests::{
    admin::{self, Admin},
    cluster::{Cluster, Metadata, binary},
    layer,
    servers::Etcd,
};
use tempfile::TempDir;

use crate::{
    cluster::Bench,
    endpoint,
    live::{HEALED_DEADLINE, Live, Mark, Silence},
    report::{Aim, Report},
};

const SHARDS: i32 = 4;

const KILLED: &str = "heal: kill -9 of a worker";
const PARTITIONED: &str = "heal: partition of a worker";
const DEPOSED: &str = "heal: kill -9 of the leader";
const RESTARTED: &str = "heal: kill -9 of etcd";

/// What hits every split.
const HIT_ALL: [&str; 2] = [DEPOSED, RESTARTED];

/// Measures every fault that is asked for.
pub(crate) async fn measure(bench: &Bench, report: &mut Report) {
    for (coordinators, cases) in [(1, [KILLED, PARTITIONED]), (2, HIT_ALL)] {
        let wanted: Vec<&str> = cases.into_iter().filter(|case| bench.wants(case)).collect();
        if wanted.is_empty() {
            continue;
        }
        match Scene::prepare(bench, coordinators).await {
            Ok(mut scene) => {
                for case in wanted {
                    scene.case(bench.args.faults, report, case).await;
                }
            }
            Err(error) => {
                let why = format!("{error:#}");
                wanted.iter().for_each(|case| report.outcome(case, Err(anyhow!("{why}"))));
            }
        }
    }
}

/// What came of the faults of one kind.
#[derive(Default)]
struct Healed {
    /// The longest silence of each split that was hit.
    silence: Vec<Silence>,
    /// From each fault until the last of it was over.
    over: Vec<f64>,
}

impl Healed {
    /// A fault that hits one worker counts once for each of its splits; one that hits all of them counts once.
    fn samples(&self, case: &str) -> usize {
        if HIT_ALL.contains(&case) { self.over.len() } else { self.silence.len() }
    }
}

/// A cluster under a live load.
struct Scene {
    cluster: Cluster,
    admin: Admin,
    etcd: Etcd,
    live: Live,
    /// From each worker to the only coordinator.
    links: BTreeMap<String, Link>,
    coordinators: usize,
    /// The coordinator that was killed.
    down: Option<usize>,
    /// How many workers there were.
    born: u32,
    _dir: TempDir,
}

impl Scene {
    /// Two workers, a copying sink, a load, every split read.
    async fn prepare(bench: &Bench, coordinators: usize) -> Result<Self> {
        let ours = binary()?;
        ensure!(ours == bench.binary, "it would run `{}`; set SHARDWRIGHT_TEST_BIN too", ours.display());
        let (dir, client) = (tempfile::tempdir()?, bench.endpoint.client());
        let source = format!("bench-heal-{coordinators}");
        let destination = format!("{source}-out");
        endpoint::create_stream(&client, &source, SHARDS).await?;
        endpoint::create_stream(&client, &destination, SHARDS).await?;
        let etcd = Etcd::start(&dir.path().join("etcd")).await?;
        let cluster = Cluster::start(dir.path(), Metadata::Etcd(etcd.url()), coordinators).await?;
        let admin = cluster.admin();
        let live = Live::start(&client, &source, &destination).await?;
        let links = BTreeMap::new();
        let mut scene =
            Self { cluster, admin, etcd, live, links, coordinators, down: None, born: 0, _dir: dir };
        scene.worker().await?;
        scene.worker().await?;
        for statement in bench.copy(&source, &destination) {
            scene.admin.execute(&statement).await?;
        }
        scene.reading().await?;
        Ok(scene)
    }

    /// Repeats a fault, and reports. What was measured before one that does not heal counts.
    async fn case(&mut self, faults: u32, report: &mut Report, case: &str) {
        let mut healed = Healed::default();
        let outcome = self.repeat(faults, case, &mut healed).await;
        let lengths = healed.silence.iter().map(|silence| silence.length).collect();
        report.spread(&format!("{case} → silence of each split"), lengths, Aim::None);
        if case == PARTITIONED {
            // Which is not the same here: the fault begins while the worker goes on.
            let ends = healed.silence.iter().map(|silence| silence.ended).collect();
            report.spread(&format!("{case} → each split delivers again"), ends, Aim::None);
        }
        let last = if HIT_ALL.contains(&case) { "checkpoints move again" } else { "caught up" };
        report.spread(&format!("{case} → {last}"), healed.over, Aim::None);
        if outcome.is_err() {
            eprintln!("{}", self.cluster.tails());
        }
        report.outcome(case, outcome);
    }

    async fn repeat(&mut self, faults: u32, case: &str, healed: &mut Healed) -> Result<()> {
        let enough = usize::try_from(faults)?;
        while healed.samples(case) < enough {
            self.reading().await?;
            match case {
                KILLED => self.kill_worker(healed).await?,
                PARTITIONED => self.partition(healed).await?,
                DEPOSED => self.kill_leader(healed).await?,
                _ => self.restart_etcd(healed).await?,
            }
            self.repair().await?;
        }
        Ok(())
    }

    /// kill -9 of the busiest worker; the other takes over.
    async fn kill_worker(&mut self, healed: &mut Healed) -> Result<()> {
        let (victim, splits) = self.busiest().await?;
        self.cluster.worker(&victim).kill().await?;
        let (mark, _) = self.live.mark();
        self.cluster.forget_worker(&victim);
        self.links.remove(&victim);
        self.reading().await?;
        self.caught_up(&splits, mark, healed).await
    }

    /// The busiest worker and the coordinator do not hear each other until the other worker has taken over. It goes on
    /// delivering until it fences itself.
    async fn partition(&mut self, healed: &mut Healed) -> Result<()> {
        let (victim, splits) = self.busiest().await?;
        let (mark, _) = self.live.mark();
        self.links[&victim].handle().partition();
        let names = self.cluster.worker_names();
        let others: Vec<&str> = names.iter().map(String::as_str).filter(|name| *name != victim).collect();
        self.all_reading("the others take over", &others).await?;
        self.caught_up(&splits, mark, healed).await
    }

    /// kill -9 of the leader; the other coordinator leads, and a checkpoint is made under it.
    async fn kill_leader(&mut self, healed: &mut Healed) -> Result<()> {
        let leader = self.cluster.leader().await?;
        let before = self.admin.status().await?;
        let splits = before.splits.iter().map(|split| split.split.clone()).collect();
        self.cluster.coordinator(leader).kill().await?;
        self.down = Some(leader);
        let (mark, _) = self.live.mark();
        self.checkpoints(|status| status.leader_revision > before.leader_revision).await?;
        healed.over.push(mark.at.elapsed().as_secs_f64());
        healed.silence.extend(self.live.longest_silence(&splits, mark).await?);
        Ok(())
    }

    /// kill -9 of etcd and a start at once; a checkpoint is made after it.
    async fn restart_etcd(&mut self, healed: &mut Healed) -> Result<()> {
        let splits = self.admin.status().await?.splits.iter().map(|split| split.split.clone()).collect();
        let (mark, _) = self.live.mark();
        self.etcd.restart(Duration::ZERO).await?;
        self.checkpoints(|_| true).await?;
        healed.over.push(mark.at.elapsed().as_secs_f64());
        healed.silence.extend(self.live.longest_silence(&splits, mark).await?);
        Ok(())
    }

    /// The splits are somebody else's now: waits until they deliver what is put from now on.
    async fn caught_up(&self, splits: &BTreeSet<String>, mark: Mark, healed: &mut Healed) -> Result<()> {
        healed.silence.extend(self.live.longest_silence(splits, mark).await?);
        healed.over.push(mark.at.elapsed().as_secs_f64());
        Ok(())
    }

    /// After a fault: all coordinators, sound lines, two workers.
    async fn repair(&mut self) -> Result<()> {
        if let Some(number) = self.down.take() {
            self.cluster.start_coordinator(number).await?;
        }
        self.links.values().for_each(|link| link.handle().heal());
        while self.cluster.worker_names().len() < 2 {
            self.worker().await?;
        }
        Ok(())
    }

    /// Starts a worker, behind a line of its own, and waits until it is live.
    async fn worker(&mut self) -> Result<()> {
        let name = format!("w{}", self.born);
        self.born += 1;
        if self.coordinators == 1 {
            let link = layer::links(&self.cluster.urls()).await?.pop().context("there is a coordinator")?;
            self.cluster.route_worker(&name, &link.url());
            self.links.insert(name.clone(), link);
        }
        self.cluster.start_worker(&name)?;
        let live = |status: &proto::v1::StatusReply| {
            let live = status.workers.iter().any(|w| w.name == name && w.state == "live");
            if live { Ok(()) } else { Err(format!("{name} is not live")) }
        };
        self.admin.wait("a new worker", HEALED_DEADLINE, live).await?;
        Ok(())
    }

    /// Waits until every worker is live and they read every split.
    async fn reading(&self) -> Result<()> {
        let names = self.cluster.worker_names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.all_reading("every split is read", &names).await
    }

    async fn all_reading(&self, what: &str, workers: &[&str]) -> Result<()> {
        self.admin.wait(what, HEALED_DEADLINE, |status| admin::all_reading(status, workers)).await?;
        Ok(())
    }

    /// Waits until a leader as wanted has made a checkpoint after it was first heard, and every split is read.
    async fn checkpoints(&self, wanted: impl Fn(&proto::v1::StatusReply) -> bool) -> Result<()> {
        let names = self.cluster.worker_names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut first = None;
        let moved = |status: &proto::v1::StatusReply| {
            if !wanted(status) {
                return Err("the leader of before".to_owned());
            }
            let now: u64 = status.sinks.iter().map(|sink| sink.records).sum();
            if now <= *first.get_or_insert(now) {
                return Err(format!("checkpoints stand at {now} records"));
            }
            admin::all_reading(status, &names)
        };
        self.admin.wait("a checkpoint", HEALED_DEADLINE, moved).await?;
        Ok(())
    }

    /// The worker with the most splits, and these.
    async fn busiest(&self) -> Result<(String, BTreeSet<String>)> {
        let mut owned: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for split in self.admin.status().await?.splits {
            owned.entry(split.worker).or_default().insert(split.split);
        }
        owned.into_iter().max_by_key(|(_, splits)| splits.len()).context("no worker has a split")
    }
}
