//! What happens to the cluster while the load runs, one thing after the other, each with the time it took to heal.

use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_kinesis::Client;
use shardwright_integration_tests::{admin, cluster::Cluster, endpoint};
use tokio::time::Instant;

const HEALS_WITHIN: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(1500);

/// One thing that happened.
pub struct Happened {
    /// Since the load started.
    pub at: Duration,
    /// What.
    pub what: String,
    /// Until every shard was read and written again.
    pub healed: Duration,
    /// What "healed" means here.
    pub meaning: &'static str,
}

/// Makes everything happen.
pub async fn all(
    cluster: &mut Cluster,
    workers: &[&str],
    (client, stream): (&Client, &str),
    start: Instant,
) -> Result<Vec<Happened>> {
    let mut happened = Vec::new();
    tokio::time::sleep(PAUSE).await;
    happened.push(split(cluster, client, stream, start).await?);
    tokio::time::sleep(PAUSE).await;
    let (victim, killed) = kill_worker(cluster, workers, start).await?;
    happened.push(killed);
    happened.push(worker_returns(cluster, workers, victim, start).await?);
    tokio::time::sleep(PAUSE).await;
    happened.push(merge(cluster, client, stream, start).await?);
    tokio::time::sleep(PAUSE).await;
    happened.push(kill_leader(cluster, workers, start).await?);
    tokio::time::sleep(PAUSE).await;
    happened.push(drain(cluster, workers, start).await?);
    Ok(happened)
}

async fn split(cluster: &Cluster, client: &Client, stream: &str, start: Instant) -> Result<Happened> {
    let open = endpoint::open_shards(client, stream).await?;
    let parent = open.first().context("an open shard")?;
    let at = start.elapsed();
    endpoint::split(client, stream, parent).await?;
    let children = children(client, stream, parent.shard_id()).await?;
    let healed = reading(cluster, &children).await?;
    Ok(Happened {
        at,
        what: format!("split of {}", parent.shard_id()),
        healed,
        meaning: "both children are read",
    })
}

async fn merge(cluster: &Cluster, client: &Client, stream: &str, start: Instant) -> Result<Happened> {
    let open = endpoint::open_shards(client, stream).await?;
    let [.., left, right] = open.as_slice() else { anyhow::bail!("two open shards are needed for a merge") };
    let at = start.elapsed();
    endpoint::merge(client, stream, left, right).await?;
    let children = children(client, stream, left.shard_id()).await?;
    let healed = reading(cluster, &children).await?;
    let what = format!("merge of {} and {}", left.shard_id(), right.shard_id());
    Ok(Happened { at, what, healed, meaning: "the child is read" })
}

async fn children(client: &Client, stream: &str, parent: &str) -> Result<Vec<String>> {
    let shards = endpoint::shards(client, stream).await?;
    let of_parent = shards
        .iter()
        .filter(|s| s.parent_shard_id() == Some(parent) || s.adjacent_parent_shard_id() == Some(parent));
    Ok(of_parent.map(|s| s.shard_id().to_owned()).collect())
}

async fn reading(cluster: &Cluster, splits: &[String]) -> Result<Duration> {
    let read = |status: &proto::v1::StatusReply| {
        for split in splits {
            let seen: Vec<_> = status.splits.iter().filter(|s| s.split == *split).collect();
            if seen.is_empty() {
                return Err(format!("{split} is not discovered yet"));
            }
            if let Some(other) =
                seen.iter().find(|s| !matches!(s.state.as_str(), "reading" | "writing" | "drained"))
            {
                return Err(format!("{split} of {}: {} {}", other.sink, other.state, other.waits_for));
            }
        }
        Ok(())
    };
    cluster.admin().wait("the children are read", HEALS_WITHIN, read).await
}

/// All but the worker at this place.
fn others<'a>(workers: &[&'a str], without: usize) -> Vec<&'a str> {
    workers.iter().enumerate().filter(|(n, _)| *n != without).map(|(_, name)| *name).collect()
}

/// The victim writes a partition, so that its readers elsewhere must start again, and reads as much as one who does.
async fn kill_worker(cluster: &mut Cluster, workers: &[&str], start: Instant) -> Result<(usize, Happened)> {
    let status = cluster.admin().status().await?;
    let load = |worker: &str| {
        let tasks = |state| status.splits.iter().filter(|s| s.worker == worker && s.state == state).count();
        (tasks("reading"), tasks("writing"))
    };
    let writers = (0..workers.len()).filter(|n| load(workers[*n]).1 > 0);
    let victim = writers.max_by_key(|n| load(workers[*n]).0).context("no worker writes a partition")?;
    let (reads, writes) = load(workers[victim]);
    let at = start.elapsed();
    cluster.worker(workers[victim]).kill().await?;
    let others = others(workers, victim);
    let admin = cluster.admin();
    let healed = admin.wait("the others took over", HEALS_WITHIN, |s| admin::all_reading(s, &others)).await?;
    let what = format!("kill -9 of {} ({reads} splits, {writes} partitions)", workers[victim]);
    Ok((victim, Happened { at, what, healed, meaning: "its shards are read and written by others" }))
}

async fn worker_returns(
    cluster: &mut Cluster,
    workers: &[&str],
    victim: usize,
    start: Instant,
) -> Result<Happened> {
    let at = start.elapsed();
    cluster.start_worker(workers[victim])?;
    let admin = cluster.admin();
    let healed = admin.wait("the worker is back", HEALS_WITHIN, |s| admin::all_reading(s, workers)).await?;
    Ok(Happened {
        at,
        what: format!("{} is started again", workers[victim]),
        healed,
        meaning: "it has joined",
    })
}

async fn kill_leader(cluster: &mut Cluster, workers: &[&str], start: Instant) -> Result<Happened> {
    let leader = cluster.leader().await?;
    let before = cluster.admin().status().await?;
    let at = start.elapsed();
    cluster.coordinator(leader).kill().await?;
    if cluster.urls().len() == 1 {
        cluster.start_coordinator(leader).await?;
    }
    let led_again = |status: &proto::v1::StatusReply| {
        if status.leader_revision <= before.leader_revision {
            return Err("the old leader still answers".to_owned());
        }
        admin::all_reading(status, workers)
    };
    let healed = cluster.admin().wait("a leader", HEALS_WITHIN, led_again).await?;
    if cluster.urls().len() > 1 {
        cluster.start_coordinator(leader).await?;
    }
    let what = format!("kill -9 of the leader, coordinator-{leader}");
    Ok(Happened { at, what, healed, meaning: "a leader knows that every shard is read" })
}

async fn drain(cluster: &mut Cluster, workers: &[&str], start: Instant) -> Result<Happened> {
    let at = start.elapsed();
    let begun = Instant::now();
    let admin = cluster.admin();
    admin.drain(workers[2], HEALS_WITHIN).await?;
    let others = others(workers, 2);
    admin.wait("the others took over", HEALS_WITHIN, |s| admin::all_reading(s, &others)).await?;
    let what = format!("drain of {}", workers[2]);
    Ok(Happened { at, what, healed: begun.elapsed(), meaning: "its shards are read and written by others" })
}
