//! How long records wait when ownership passes: a worker is killed, drained or stopped in order under a live load, a shard is
//! split, and the destination tells how long each split was silent.
//!
//! A record carries the moment it was put, the destination is read as a consumer reads it (one GetRecords each 20 ms a
//! shard), so latencies include up to that much of waiting.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use aws_sdk_kinesis::{
    Client,
    primitives::Blob,
    types::{PutRecordsRequestEntry, ShardIteratorType},
};
use serde::Deserialize;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    cluster::{Bench, Cluster},
    endpoint,
    report::Report,
};

const SOURCE: &str = "bench-live";
const DESTINATION: &str = "bench-live-out";
const SHARDS: i32 = 4;
const KEYS: u64 = 40;

/// Each key is put so often.
const ROUND: Duration = Duration::from_millis(50);

/// No handover takes so long.
const HEALED_DEADLINE: Duration = Duration::from_secs(60);

/// How long latencies are collected while nothing happens.
const STEADY: Duration = Duration::from_secs(15);

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
    let source = format!(
        "CREATE SOURCE live (key VARCHAR, n BIGINT, t BIGINT) INCLUDE partition AS split WITH ({}) FORMAT PLAIN ENCODE JSON",
        bench.kinesis(SOURCE)
    );
    cluster.sql(&source).await?;
    let sink = format!(
        "CREATE SINK out FROM live WITH ({}, primary_key = 'key') FORMAT PLAIN ENCODE JSON",
        bench.kinesis(DESTINATION)
    );
    cluster.sql(&sink).await?;
    let live = Live::start(&client).await?;
    reading(&mut cluster).await?;
    let outcome = all(bench, report, &mut cluster, &live).await;
    live.stop();
    let Err(error) = outcome else { return Ok(()) };
    let status = cluster.status().await?;
    Err(error.context(format!("{:#?}\n{}", status.splits, cluster.logs())))
}

async fn all(bench: &Bench, report: &mut Report, cluster: &mut Cluster, live: &Live) -> Result<()> {
    let (mark, _) = live.mark();
    tokio::time::sleep(STEADY).await;
    let (_, seen) = live.mark();
    // Both clocks were read together at the mark.
    let latency = |arrival: &Arrival| {
        let seen_ms = arrival.seen.duration_since(mark.at).as_secs_f64() * 1000.0 + mark.ms as f64;
        (seen_ms - arrival.put_ms as f64).max(0.0) / 1000.0
    };
    let latencies = seen.values().flatten().filter(|arrival| arrival.put_ms > mark.ms).map(latency).collect();
    report.spread("put → delivered", latencies, "");

    handoff(report, cluster, live).await?;
    let (mut assigned, mut delivered) = (Vec::new(), Vec::new());
    for kill in 0..bench.args.kills {
        let name = format!("k{kill}");
        cluster.worker(&name).await?;
        reading(cluster).await?;
        let victim = busiest(cluster).await?;
        let span = crash(cluster, live, &victim).await?;
        assigned.push(span.0);
        delivered.extend(span.1);
    }
    report.spread("kill -9 of a worker → its splits assigned again", assigned, "< 8 s");
    report.spread("kill -9 of a worker → first record of each moved split delivered", delivered, "< 12 s");
    restart(report, cluster, live).await?;
    split(bench, report, cluster).await
}

/// A drain, then an orderly stop.
async fn handoff(report: &mut Report, cluster: &mut Cluster, live: &Live) -> Result<()> {
    let splits = owned(cluster, "w0").await?;
    let (mark, _) = live.mark();
    cluster.drain("w0").await?;
    report.spread("drain: silence of each moved split", live.longest_silence(&splits, mark).await?, "< 1 s");
    cluster.worker("w2").await?;
    reading(cluster).await?;
    let splits = owned(cluster, "w1").await?;
    let (mark, _) = live.mark();
    let mut leaving = cluster.workers.remove("w1").context("w1 runs")?;
    leaving.terminate()?;
    leaving.ended().await?;
    report.spread(
        "SIGTERM: silence of each moved split",
        live.longest_silence(&splits, mark).await?,
        "< 1 s",
    );
    Ok(())
}

/// kill -9 without a restart: when the leader had assigned all its splits again, and when each delivered again.
async fn crash(cluster: &mut Cluster, live: &Live, victim: &str) -> Result<(f64, Vec<f64>)> {
    let splits = owned(cluster, victim).await?;
    let before = cluster.events(0).await?.last().map_or(0, |event| event.number);
    cluster.workers.remove(victim).context("it runs")?.kill().await?;
    let (mark, _) = live.mark();
    let delivered = live.first_after(&splits, mark).await?;
    let events = cluster.events(before).await?;
    let last = events.iter().filter(|event| event.kind == "task_assigned").map(|event| event.at_ms).max();
    let assigned = last.context("nothing was assigned again")? - mark.ms;
    Ok((assigned as f64 / 1000.0, delivered))
}

/// kill -9 with a restart of the same instance at once.
async fn restart(report: &mut Report, cluster: &mut Cluster, live: &Live) -> Result<()> {
    let victim = busiest(cluster).await?;
    let splits = owned(cluster, &victim).await?;
    cluster.workers.remove(&victim).context("it runs")?.kill().await?;
    let (mark, _) = live.mark();
    cluster.spawn_worker(&victim)?;
    let delivered = live.first_after(&splits, mark).await?;
    report.spread("kill -9 and restart → first record of each split delivered", delivered, "< 8 s");
    Ok(())
}

/// A split of a shard; the coordinator itself measures how long after the parent's end the children began.
async fn split(bench: &Bench, report: &mut Report, cluster: &mut Cluster) -> Result<()> {
    let client = bench.endpoint.client();
    let shards = client.list_shards().stream_name(SOURCE).send().await?;
    let shard = shards.shards().first().context("no shard")?;
    let range = shard.hash_key_range().context("no hash range")?;
    let (first, last): (u128, u128) = (range.starting_hash_key().parse()?, range.ending_hash_key().parse()?);
    let middle = (first + (last - first) / 2 + 1).to_string();
    let ask = client.split_shard().stream_name(SOURCE).shard_to_split(shard.shard_id());
    ask.new_starting_hash_key(middle).send().await.context("splitting")?;
    let wait = async {
        loop {
            if let Some(count) = cluster.coordinator.metric("child_start_delay_seconds_count").await?
                && count >= 2.0
            {
                let sum = cluster.coordinator.metric("child_start_delay_seconds_sum").await?.unwrap_or(0.0);
                return anyhow::Ok(sum / count);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    match tokio::time::timeout(HEALED_DEADLINE, wait).await {
        Ok(mean) => report.figure("End of a parent → its children start, mean", mean?, "s", "< 0.5 s"),
        Err(_) => report.skip("child start: the coordinator counted none".to_owned()),
    }
    Ok(())
}

/// Waits until every open split delivers.
async fn reading(cluster: &mut Cluster) -> Result<()> {
    cluster
        .wait("all splits to be read", HEALED_DEADLINE, |status| {
            let open: Vec<_> = status.splits.iter().filter(|split| split.state != "drained").collect();
            !open.is_empty() && open.iter().all(|split| split.state == "reading")
        })
        .await
}

async fn owned(cluster: &mut Cluster, worker: &str) -> Result<BTreeSet<String>> {
    let splits = cluster.status().await?.splits.into_iter();
    Ok(splits.filter(|split| split.worker == worker).map(|split| split.split).collect())
}

/// The worker with the most tasks.
async fn busiest(cluster: &mut Cluster) -> Result<String> {
    let workers = cluster.status().await?.workers;
    let running = workers.into_iter().filter(|worker| cluster.workers.contains_key(&worker.name));
    running.max_by_key(|worker| worker.tasks).map(|worker| worker.name).context("no worker runs")
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// One record that was seen at the destination.
#[derive(Clone, Copy)]
struct Arrival {
    seen: Instant,
    put_ms: i64,
}

/// What has arrived since the last mark, by split of the source.
type Arrivals = BTreeMap<String, Vec<Arrival>>;

#[derive(Deserialize)]
struct Row {
    split: String,
    t: i64,
}

/// The load and the reader of the destination.
struct Live {
    arrivals: Arc<Mutex<Arrivals>>,
    changed: watch::Receiver<u64>,
    tasks: JoinSet<Result<()>>,
}

impl Live {
    async fn start(client: &Client) -> Result<Self> {
        let mut tasks = JoinSet::new();
        let arrivals = Arc::new(Mutex::new(Arrivals::new()));
        let (sender, changed) = watch::channel(0);
        let sender = Arc::new(sender);
        for shard in endpoint::open_shards(client, DESTINATION).await? {
            tasks.spawn(tail(client.clone(), shard, arrivals.clone(), sender.clone()));
        }
        tasks.spawn(load(client.clone()));
        Ok(Self { arrivals, changed, tasks })
    }

    fn stop(mut self) {
        self.tasks.abort_all();
    }

    /// Takes what has arrived since the last mark.
    fn mark(&self) -> (Mark, Arrivals) {
        let seen = std::mem::take(&mut *self.arrivals.lock().expect("nobody panics while holding this lock"));
        (Mark { at: Instant::now(), ms: now_ms() }, seen)
    }

    /// How long after the mark each of these splits delivered something that was put after it: a process that was killed at
    /// the mark cannot have done that.
    async fn first_after(&self, splits: &BTreeSet<String>, mark: Mark) -> Result<Vec<f64>> {
        let arrivals = self.until_each(splits, mark.ms).await?;
        let first = |split: &String| arrivals[split].iter().find(|arrival| arrival.put_ms > mark.ms);
        let spans =
            splits.iter().filter_map(first).map(|arrival| arrival.seen.duration_since(mark.at).as_secs_f64());
        Ok(spans.collect())
    }

    /// The longest time that each of these splits was silent since the mark, watched until it delivers what is put from now on.
    async fn longest_silence(&self, splits: &BTreeSet<String>, mark: Mark) -> Result<Vec<f64>> {
        let arrivals = self.until_each(splits, now_ms()).await?;
        let silence = |split: &String| {
            let seen = std::iter::once(mark.at).chain(arrivals[split].iter().map(|arrival| arrival.seen));
            let seen: Vec<Instant> = seen.collect();
            let gaps = seen.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64());
            gaps.fold(0.0, f64::max)
        };
        Ok(splits.iter().map(silence).collect())
    }

    /// Waits until each split has delivered something that was put after this moment.
    async fn until_each(&self, splits: &BTreeSet<String>, put_after_ms: i64) -> Result<Arrivals> {
        let mut changed = self.changed.clone();
        let wait = async {
            loop {
                {
                    let arrivals = self.arrivals.lock().expect("nobody panics while holding this lock");
                    let newest = |split| arrivals.get(split).and_then(|seen| seen.last());
                    if splits.iter().all(|split| newest(split).is_some_and(|a| a.put_ms > put_after_ms)) {
                        return Ok(arrivals.clone());
                    }
                }
                changed.changed().await.context("the reader of the destination ended")?;
            }
        };
        tokio::time::timeout(HEALED_DEADLINE, wait).await.context("a split stays silent")?
    }
}

/// A moment, by both clocks.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    ms: i64,
}

/// Puts every key once a round.
async fn load(client: Client) -> Result<()> {
    let mut rounds = tokio::time::interval(ROUND);
    for n in 0_u64.. {
        rounds.tick().await;
        let t = now_ms();
        let entries = (0..KEYS).map(|key| {
            let data = format!("{{\"key\":\"key-{key:03}\",\"n\":{n},\"t\":{t}}}");
            PutRecordsRequestEntry::builder()
                .partition_key(format!("key-{key:03}"))
                .data(Blob::new(data))
                .build()
        });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        // While a shard is being split the service refuses some; the next round comes soon.
        client.put_records().stream_name(SOURCE).set_records(Some(entries)).send().await.ok();
    }
    Ok(())
}

/// Reads one shard of the destination for ever.
async fn tail(
    client: Client,
    shard: String,
    arrivals: Arc<Mutex<Arrivals>>,
    changed: Arc<watch::Sender<u64>>,
) -> Result<()> {
    let ask = client.get_shard_iterator().stream_name(DESTINATION).shard_id(shard);
    let answer = ask.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?;
    let mut iterator = answer.shard_iterator().context("no iterator")?.to_owned();
    loop {
        let answer = client.get_records().shard_iterator(iterator).send().await?;
        let seen = Instant::now();
        if !answer.records().is_empty() {
            let mut arrivals = arrivals.lock().expect("nobody panics while holding this lock");
            for record in answer.records() {
                let row: Row = serde_json::from_slice(record.data().as_ref())?;
                arrivals.entry(row.split).or_default().push(Arrival { seen, put_ms: row.t });
            }
            changed.send_modify(|count| *count += 1);
        }
        iterator = answer.next_shard_iterator().context("the destination was resharded")?.to_owned();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
