//! Workers that are added while the load runs: how many tasks move, how long each stands still, and that it ends even.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use proto::v1::StatusReply;
use shardwright_integration_tests::cluster::Cluster;

use crate::Crew;

/// A newcomer's share must be with it by then.
const EVEN_WITHIN: Duration = Duration::from_secs(60);
/// How long nothing may move for it to count as over.
const CALM: Duration = Duration::from_secs(3);
/// How often is looked: what is shorter is not seen.
const LOOK: Duration = Duration::from_millis(20);

/// What the balance took.
pub struct Grown {
    workers: usize,
    moves: u64,
    longest_stall: Duration,
    took: Duration,
}

impl fmt::Display for Grown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, moves, longest_stall, took } = self;
        write!(
            f,
            "balance: workers {workers}, moves {moves}, longest stall {} ms\nit was even after {:.1} s",
            longest_stall.as_millis(),
            took.as_secs_f64()
        )
    }
}

/// Who has a task, and since when nobody works on it.
#[derive(Default)]
struct Seen {
    worker: String,
    stands_since: Option<Instant>,
}

/// Starts the newcomers and watches until everything is even and calm; nothing, if there are none.
///
/// # Errors
/// When it is not even in time.
pub async fn grow(cluster: &mut Cluster, crew: &Crew) -> Result<Option<Grown>> {
    if crew.newcomers.is_empty() {
        return Ok(None);
    }
    // The last event drained a worker.
    let drained = cluster.admin().status().await?.workers;
    for worker in drained.iter().filter(|worker| worker.state != "live") {
        cluster.admin().undo_drain(&worker.name, EVEN_WITHIN).await?;
    }
    for name in &crew.newcomers {
        cluster.start_worker(name)?;
    }
    let workers = crew.names.len() + crew.newcomers.len();
    let (admin, start) = (cluster.admin(), Instant::now());
    let mut tasks: BTreeMap<(String, String), Seen> = BTreeMap::new();
    let (mut moves, mut longest_stall) = (0, Duration::ZERO);
    let (mut even_at, mut moved_at) = (None, start);
    loop {
        if let Ok(status) = admin.status().await {
            let moved = look(&status, &mut tasks, &mut longest_stall);
            moves += moved;
            if moved > 0 {
                moved_at = Instant::now();
            }
            let even = uneven(&status, workers).is_none();
            even_at = even.then(|| even_at.unwrap_or_else(Instant::now));
            let calm = even_at.is_some_and(|at: Instant| at.elapsed() >= CALM) && moved_at.elapsed() >= CALM;
            if calm {
                break;
            }
            let why = uneven(&status, workers).unwrap_or_default();
            ensure!(start.elapsed() < EVEN_WITHIN, "not even after {EVEN_WITHIN:?}: {why}");
        }
        tokio::time::sleep(LOOK).await;
    }
    let took = even_at.context("it is even")?.duration_since(start);
    Ok(Some(Grown { workers, moves, longest_stall, took }))
}

/// Counts the tasks that have changed hands since the last look.
fn look(status: &StatusReply, tasks: &mut BTreeMap<(String, String), Seen>, longest: &mut Duration) -> u64 {
    let mut moved = 0;
    for task in status.splits.iter().filter(|task| task.state != "drained") {
        let seen = tasks.entry((task.sink.clone(), task.split.clone())).or_default();
        if !task.worker.is_empty() && seen.worker != task.worker {
            moved += u64::from(!seen.worker.is_empty());
            seen.worker.clone_from(&task.worker);
        }
        if matches!(task.state.as_str(), "reading" | "writing") {
            seen.stands_since = None;
        } else {
            let since = *seen.stands_since.get_or_insert_with(Instant::now);
            *longest = since.elapsed().max(*longest);
        }
    }
    moved
}

/// Why the tasks are not evenly spread over so many live workers, all of them at work; `None` if they are.
fn uneven(status: &StatusReply, workers: usize) -> Option<String> {
    let live: Vec<&str> =
        status.workers.iter().filter(|w| w.state == "live").map(|w| w.name.as_str()).collect();
    if live.len() != workers {
        return Some(format!("{} workers are live", live.len()));
    }
    let mut shares: BTreeMap<&str, usize> = live.into_iter().map(|name| (name, 0)).collect();
    for task in status.splits.iter().filter(|task| task.state != "drained") {
        if !matches!(task.state.as_str(), "reading" | "writing") {
            return Some(format!("{} of {}: {} {}", task.split, task.sink, task.state, task.waits_for));
        }
        *shares.entry(task.worker.as_str()).or_default() += 1;
    }
    let (least, most) = (shares.values().min()?, shares.values().max()?);
    (most - least > 1).then(|| format!("the shares are {shares:?}"))
}
