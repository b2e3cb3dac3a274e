//! How long records wait when ownership passes: a worker is killed, drained or stopped in order under a live load, shards are
//! split. Nobody is believed: the endpoint tells when a shard was read again, the destination when it delivered again.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result};
use integration_tests::endpoint::{open_shards, split};

use crate::{
    cluster::{Bench, Cluster},
    endpoint,
    live::{Arrival, HEALED_DEADLINE, Live, Mark},
    reads::{self, Reads},
    report::{
        Aim::{self, Below},
        Report,
    },
};

/// The stream that is put into.
const SOURCE: &str = "bench-live";

/// The stream that the cluster writes.
const DESTINATION: &str = "bench-live-out";

const SHARDS: i32 = 4;

/// How long latencies are collected while nothing happens.
const STEADY: Duration = Duration::from_secs(15);

/// How often the endpoint is asked what was read.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Measures all handovers.
pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    if !bench.wants("handover") {
        return Ok(());
    }
    let client = bench.endpoint.client();
    endpoint::create_stream(&client, SOURCE, SHARDS).await?;
    endpoint::create_stream(&client, DESTINATION, SHARDS).await?;
    let mut cluster = bench.cluster().await?;
    cluster.worker("w0").await?;
    cluster.worker("w1").await?;
    for statement in bench.copy(SOURCE, DESTINATION) {
        cluster.sql(&statement).await?;
    }
    let live = Live::start(&client, SOURCE, DESTINATION).await?;
    let mut scene = Scene { bench, cluster, live };
    let outcome = scene.reading().await;
    scene.told(report, "handover: a live cluster", outcome);
    scene.latency(report).await;
    let outcome = scene.planned(report).await;
    scene.told(report, "handover: drain and SIGTERM", outcome);
    let outcome = scene.crashes(report).await;
    scene.told(report, "handover: kill -9", outcome);
    let outcome = scene.restart(report).await;
    scene.told(report, "handover: kill -9 and restart", outcome);
    let outcome = scene.splits(report).await;
    scene.told(report, "handover: split", outcome);
    scene.live.stop();
    Ok(())
}

/// What the spans after an accident are.
#[derive(Default)]
struct Spans {
    assigned: Vec<f64>,
    read: Vec<f64>,
    delivered: Vec<f64>,
}

/// A cluster under a live load.
struct Scene<'a> {
    bench: &'a Bench,
    cluster: Cluster,
    live: Live,
}

impl Scene<'_> {
    /// Reports what came of a step; after a failure with what the processes said last.
    fn told(&self, report: &mut Report, case: &str, outcome: Result<()>) {
        if outcome.is_err() {
            eprintln!("{}", self.cluster.logs());
        }
        report.outcome(case, outcome);
    }

    /// From the put to the arrival, while nothing happens.
    async fn latency(&mut self, report: &mut Report) {
        let (mark, _) = self.live.mark();
        tokio::time::sleep(STEADY).await;
        let (_, seen) = self.live.mark();
        // Both clocks were read together at the mark.
        let latency = |arrival: &Arrival| {
            let seen_ms = arrival.seen.duration_since(mark.at).as_secs_f64() * 1000.0 + mark.ms as f64;
            (seen_ms - arrival.put_ms as f64).max(0.0) / 1000.0
        };
        let after = seen.values().flatten().filter(|arrival| arrival.put_ms > mark.ms);
        report.spread("put → delivered", after.map(latency).collect(), Aim::None);
    }

    /// A drain, then an orderly stop.
    async fn planned(&mut self, report: &mut Report) -> Result<()> {
        let splits = self.owned("w0").await?;
        let (mark, _) = self.live.mark();
        self.cluster.drain("w0").await?;
        let silence = self.live.longest_silence(&splits, mark).await?;
        let silence = silence.iter().map(|silence| silence.length).collect();
        report.spread("drain: silence of each moved split", silence, Below(1.0));
        self.cluster.worker("w2").await?;
        self.reading().await?;
        let splits = self.owned("w1").await?;
        let (mark, _) = self.live.mark();
        let mut leaving = self.cluster.workers.remove("w1").context("w1 runs")?;
        leaving.terminate()?;
        leaving.ended().await?;
        let silence = self.live.longest_silence(&splits, mark).await?;
        let silence = silence.iter().map(|silence| silence.length).collect();
        report.spread("SIGTERM: silence of each moved split", silence, Below(1.0));
        Ok(())
    }

    /// kill -9 without a restart, again and again. What was measured before one that does not heal counts.
    async fn crashes(&mut self, report: &mut Report) -> Result<()> {
        let mut all = Spans::default();
        let outcome = self.kills(&mut all).await;
        let name = |what: &str| format!("kill -9 of a worker → {what}");
        report.spread(&name("its splits assigned again"), all.assigned, Aim::None);
        report.spread(&name("first record of each moved split read"), all.read, Below(8.0));
        report.spread(&name("first record of each moved split delivered"), all.delivered, Below(12.0));
        outcome
    }

    /// Each time a fresh worker comes first, so that one is left.
    async fn kills(&mut self, all: &mut Spans) -> Result<()> {
        for kill in 0..self.bench.args.kills {
            self.cluster.worker(&format!("k{kill}")).await?;
            self.reading().await?;
            let victim = self.busiest().await?;
            let spans = self.kill(&victim, false).await?;
            all.assigned.extend(spans.assigned);
            all.read.extend(spans.read);
            all.delivered.extend(spans.delivered);
        }
        Ok(())
    }

    /// kill -9 with a restart of the same instance at once, of each worker.
    async fn restart(&mut self, report: &mut Report) -> Result<()> {
        let mut all = Spans::default();
        let names: Vec<String> = self.cluster.workers.keys().cloned().collect();
        for victim in names {
            self.reading().await?;
            if self.owned(&victim).await?.is_empty() {
                continue;
            }
            let spans = self.kill(&victim, true).await?;
            all.read.extend(spans.read);
            all.delivered.extend(spans.delivered);
        }
        let name = |what: &str| format!("kill -9 and restart → {what}");
        report.spread(&name("first record of each split read"), all.read, Below(2.0));
        report.spread(&name("first record of each split delivered"), all.delivered, Below(8.0));
        Ok(())
    }

    /// kill -9: when the leader had assigned all its splits again, when each was read again, when each delivered again
    /// something that was put after the kill.
    async fn kill(&mut self, victim: &str, restart: bool) -> Result<Spans> {
        let splits = self.owned(victim).await?;
        let before = self.newest_event().await?;
        self.cluster.workers.remove(victim).context("it runs")?.kill().await?;
        let (mark, _) = self.live.mark();
        if restart {
            self.cluster.spawn_worker(victim)?;
        }
        let (reads, delivered) =
            tokio::try_join!(self.read_after(&splits, mark), self.live.first_after(&splits, mark))?;
        let events = self.cluster.events(before).await?;
        let last = events.iter().filter(|event| event.kind == "task_assigned").map(|event| event.at_ms).max();
        let assigned = last.context("nothing was assigned again")?;
        Ok(Spans {
            assigned: vec![seconds(assigned - mark.ms)],
            read: splits.iter().map(|split| seconds(reads[&key(split)] - mark.ms)).collect(),
            delivered,
        })
    }

    /// Splits every shard; from the durable end of each parent to the first record read of each child.
    async fn splits(&mut self, report: &mut Report) -> Result<()> {
        let client = self.bench.endpoint.client();
        let before = self.newest_event().await?;
        let (mark, _) = self.live.mark();
        for shard in open_shards(&client, SOURCE).await? {
            split(&client, SOURCE, &shard).await?;
        }
        let children = open_shards(&client, SOURCE).await?;
        let names = children.iter().map(|shard| shard.shard_id().to_owned()).collect();
        let reads = self.read_after(&names, mark).await?;
        let events = self.cluster.events(before).await?;
        let mut delays = Vec::new();
        for child in &children {
            let parent = child.parent_shard_id().context("a child without a parent")?;
            let of_parent = |event: &&proto::v1::Event| {
                event.kind == "split_ended" && event.labels.get("split").is_some_and(|split| split == parent)
            };
            let ended = events.iter().find(of_parent).with_context(|| format!("{parent} has no end"))?;
            delays.push(seconds(reads[&key(child.shard_id())] - ended.at_ms));
        }
        report.spread("End of a parent → first record of its child read", delays, Below(0.5));
        Ok(())
    }

    /// Waits until each of these shards was read by somebody who opened it after the mark.
    async fn read_after(&self, splits: &BTreeSet<String>, mark: Mark) -> Result<Reads> {
        let wait = async {
            loop {
                let reads = reads::seen(&self.bench.endpoint.url).await?;
                if splits.iter().all(|split| reads.get(&key(split)).is_some_and(|at| *at > mark.ms)) {
                    return Ok(reads);
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        tokio::time::timeout(HEALED_DEADLINE, wait).await.context("a split is not read again")?
    }

    /// Waits until every open split delivers.
    async fn reading(&mut self) -> Result<()> {
        self.cluster
            .wait("all splits to be read", HEALED_DEADLINE, |status| {
                let open: Vec<_> = status.splits.iter().filter(|split| split.state != "drained").collect();
                !open.is_empty() && open.iter().all(|split| split.state == "reading")
            })
            .await
    }

    async fn newest_event(&mut self) -> Result<u64> {
        Ok(self.cluster.events(0).await?.last().map_or(0, |event| event.number))
    }

    async fn owned(&mut self, worker: &str) -> Result<BTreeSet<String>> {
        let splits = self.cluster.status().await?.splits.into_iter();
        Ok(splits.filter(|split| split.worker == worker).map(|split| split.split).collect())
    }

    /// The worker with the most tasks.
    async fn busiest(&mut self) -> Result<String> {
        let workers = self.cluster.status().await?.workers;
        let running = workers.into_iter().filter(|worker| self.cluster.workers.contains_key(&worker.name));
        running.max_by_key(|worker| worker.tasks).map(|worker| worker.name).context("no worker runs")
    }
}

/// A shard of the source, as the endpoint's layer names it.
fn key(split: &str) -> String {
    format!("{SOURCE}/{split}")
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
