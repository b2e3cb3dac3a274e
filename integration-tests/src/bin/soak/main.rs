//! `make soak MINUTES=10`: a cluster over etcd, behind the fault layer, under load, with faults by chance from `SEED`, splits,
//! merges, and kills of workers and leaders.
//!
//! The time is cut into rounds of about a minute. Within a round everything may fail; at its end all faults are healed while
//! the load goes on, what had been sent by then must be in both destinations within a minute and a half, and the ledger over it
//! must balance. Memory and descriptors of the processes that live through it all are measured at each such point of rest.
//! Exit code 1 if anything was lost or out of order, did not come to rest, or if a process that lived through a long run grew.

mod growth;
mod trouble;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use aws_sdk_kinesis::Client;
use clap::Parser;
use shardwright_integration_tests::{
    admin,
    cluster::{Cluster, Metadata},
    endpoint::{self, Endpoint},
    layer::{self, Layer},
    ledger::{self, Verdict},
    load::{Load, Plan},
    readback, servers,
};
use tokio::time::Instant;

use self::{growth::Growth, trouble::Trouble};

const SOURCE: &str = "orders-in";
const COPY: &str = "orders-out";
const WORKERS: [&str; 3] = ["worker-0", "worker-1", "worker-2"];
const COORDINATORS: usize = 2;
/// Trouble between two points of rest, which take the rest of about a minute.
const ROUND: Duration = Duration::from_secs(45);
/// How long a point of rest may be waited for.
const SETTLES_WITHIN: Duration = Duration::from_secs(90);
/// From so long a run on, growth is held against it.
const GROWTH_TELLS: Duration = Duration::from_secs(480);
const LOAD: Plan = Plan { keys: 100, per_second: 400, padding: 40 };

/// Runs a cluster among faults and says what was lost and what grew.
#[derive(Parser)]
struct Args {
    /// How long
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// How the source is read: kinesis.consumer.mode
    #[arg(long, default_value = "polling", value_parser = ["polling", "efo", "auto"])]
    mode: String,
    /// Where chance comes from; the time if absent
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let args = Args::parse();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seed = args.seed.unwrap_or(now.as_secs());
    let dir = std::env::temp_dir().join(format!("shardwright-soak-{}", std::process::id()));
    println!("soak: {} minutes, seed {seed}", args.minutes);
    match soak(&dir, &args, seed).await {
        Ok(true) => {
            std::fs::remove_dir_all(&dir).ok();
            ExitCode::SUCCESS
        }
        Ok(false) => {
            println!("soak: seed {seed} failed; the data and the logs are kept in {}", dir.display());
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("soak: seed {seed}: {error:#}\nthe logs are in {}", dir.join("logs").display());
            ExitCode::FAILURE
        }
    }
}

async fn soak(dir: &Path, args: &Args, seed: u64) -> Result<bool> {
    let time = Duration::from_secs_f64(args.minutes.max(0.1) * 60.0);
    let etcd = servers::Etcd::start(&dir.join("etcd")).await?;
    let endpoint = Endpoint::start(endpoint::quick()).await?;
    endpoint::create_stream(&endpoint.client(), SOURCE, 4).await?;
    endpoint::create_stream(&endpoint.client(), COPY, 2).await?;
    let layer = Layer::around(&endpoint.url(), &etcd.url(), COORDINATORS, seed).await?;
    let mut cluster = Cluster::plan(dir, Metadata::EtcdEach(layer.etcd_urls()), COORDINATORS)?;
    let links = layer::links(&cluster.urls()).await?;
    cluster.advertise(links.iter().map(faults::tcp::Link::url).collect());
    for number in 0..COORDINATORS {
        cluster.start_coordinator(number).await?;
    }
    for worker in WORKERS {
        cluster.start_worker(worker)?;
    }
    let files = dir.join("files");
    create(&cluster, &layer, &files, &args.mode).await?;
    let client = endpoint.client();
    let mut trouble = Trouble::new(seed, cluster, layer, links, client.clone());
    trouble.fanout = args.mode != "polling";
    let load = Load::start(client.clone(), SOURCE, LOAD);
    let books = Books {
        client,
        dir: files.join("archive"),
        copy: readback::Stream::default(),
        archive: readback::Files::default(),
    };
    let mut run = Run { trouble, load, books, growth: Growth::default(), start: Instant::now() };
    let went = tokio::select! {
        went = run.rounds(time) => went,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    match went {
        Ok(true) => run.end(time).await,
        Ok(false) => Ok(false),
        Err(error) => {
            println!("{}", run.trouble.cluster.tails());
            Err(error)
        }
    }
}

async fn create(cluster: &Cluster, layer: &Layer, files: &Path, mode: &str) -> Result<()> {
    let admin = cluster.admin();
    admin
        .wait("the workers join", Duration::from_secs(60), |status| {
            let live = status.workers.iter().filter(|worker| worker.state == "live").count();
            if live == WORKERS.len() { Ok(()) } else { Err(format!("{live} workers are live")) }
        })
        .await?;
    let keys = |url: String| {
        format!(
            "aws.region = 'us-east-1', endpoint = '{url}', aws.credentials.access_key_id = '{}', \
             aws.credentials.secret_access_key = 'test'",
            endpoint::ACCESS_KEY
        )
    };
    // A consumer is named where one is needed, and only there.
    let consumer = if mode == "efo" { ", kinesis.consumer.name = 'soak-{sink}'" } else { "" };
    let (source, sink, files) = (keys(layer.source_url()), keys(layer.sink_url()), files.display());
    for statement in [
        format!(
            "CREATE SOURCE orders (key VARCHAR, n BIGINT) WITH (connector = 'kinesis', stream = '{SOURCE}', \
             kinesis.consumer.mode = '{mode}'{consumer}, {source}) \
             FORMAT PLAIN ENCODE JSON"
        ),
        format!(
            "CREATE SINK copy FROM orders WITH (connector = 'kinesis', stream = '{COPY}', primary_key = 'key', {sink}) \
             FORMAT PLAIN ENCODE JSON"
        ),
        format!(
            "CREATE SINK archive FROM orders WITH (connector = 'file', path = '{files}') FORMAT PLAIN ENCODE JSON"
        ),
    ] {
        admin.execute(&statement).await?;
    }
    reading(cluster).await.map(|_| ())
}

async fn reading(cluster: &Cluster) -> Result<Duration> {
    let read = |status: &proto::v1::StatusReply| admin::all_reading(status, &WORKERS);
    cluster.admin().wait("every split is read", SETTLES_WITHIN, read).await
}

struct Run {
    trouble: Trouble,
    load: Load,
    books: Books,
    growth: Growth,
    start: Instant,
}

/// What the destinations hold, as far as it was read.
struct Books {
    client: Client,
    dir: PathBuf,
    copy: readback::Stream,
    archive: readback::Files,
}

impl Run {
    /// False if the books of a round did not balance.
    async fn rounds(&mut self, time: Duration) -> Result<bool> {
        let end = self.start + time;
        // A short run has a short round; the first measure of a long one comes after its first round.
        let round = ROUND.min(time);
        if time < ROUND * 2 {
            self.growth.measure(&self.trouble.cluster);
        }
        while Instant::now() < end {
            self.trouble.until((Instant::now() + round).min(end)).await?;
            if !self.rest().await? {
                return Ok(false);
            }
            self.growth.measure(&self.trouble.cluster);
        }
        Ok(true)
    }

    /// Heals everything and checks what had been sent by now.
    async fn rest(&mut self) -> Result<bool> {
        self.trouble.heal().await?;
        // Every key once in each turn, and no turn before the last is done.
        let turns = self.load.sent() / LOAD.keys;
        let sent: BTreeMap<String, u64> = (0..LOAD.keys).map(|k| (format!("key-{k:03}"), turns)).collect();
        let healed = Instant::now();
        let verdicts = self.books.settled(&sent).await?;
        reading(&self.trouble.cluster).await?;
        let texts: Vec<String> =
            verdicts.iter().map(|(name, verdict)| format!("{name}: {verdict}")).collect();
        println!(
            "{:>5.0} s  at rest after {:.1} s; {}  {}",
            self.start.elapsed().as_secs_f64(),
            healed.elapsed().as_secs_f64(),
            self.trouble.told(),
            texts.join("; ")
        );
        Ok(judged(&verdicts))
    }

    /// The last books, over all that was sent, and what grew.
    async fn end(mut self, time: Duration) -> Result<bool> {
        let (idle, trouble) = (Load::idle(), &self.trouble);
        let sent = std::mem::replace(&mut self.load, idle).stop().await?;
        let verdicts = self.books.settled(&sent).await?;
        println!("\n{}", trouble.summary());
        println!("{}", self.growth.table());
        // A process that has run for a minute or two still warms up.
        let grown = if time < GROWTH_TELLS { Vec::new() } else { self.growth.grown() };
        for name in &grown {
            println!("  ! {name} grows and does not stop");
        }
        let balanced = judged(&verdicts) && grown.is_empty();
        for (name, verdict) in &verdicts {
            println!("ledger: {name}: {verdict}");
        }
        Ok(balanced)
    }
}

impl Books {
    /// The books over `sent` once they balance, or as they are when that takes too long.
    async fn settled(&mut self, sent: &BTreeMap<String, u64>) -> Result<Vec<(&'static str, Verdict)>> {
        let deadline = Instant::now() + SETTLES_WITHIN;
        loop {
            let verdicts = self.audit(sent).await?;
            if verdicts.iter().all(|(_, verdict)| verdict.balances()) || Instant::now() > deadline {
                return Ok(verdicts);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// The books over `sent`; what was sent later is left out.
    async fn audit(&mut self, sent: &BTreeMap<String, u64>) -> Result<Vec<(&'static str, Verdict)>> {
        self.copy.read_on(&self.client, COPY).await.context("reading the copy")?;
        let shards = endpoint::shards(&self.client, SOURCE).await?;
        let splits: Vec<String> = shards.iter().map(|shard| shard.shard_id().to_owned()).collect();
        let archive = self.archive.read_on(&self.dir, &splits)?;
        let by_then = |found: &ledger::Found| sent.get(&found.key).is_none_or(|count| found.n < *count);
        Ok(vec![
            ("copy", ledger::audit(sent, self.copy.found().filter(by_then))),
            ("archive", ledger::audit(sent, archive.into_iter().filter(by_then))),
        ])
    }
}

fn judged(verdicts: &[(&str, Verdict)]) -> bool {
    for complaint in verdicts.iter().flat_map(|(_, verdict)| &verdict.complaints) {
        println!("  ! {complaint}");
    }
    verdicts.iter().all(|(_, verdict)| verdict.balances())
}
