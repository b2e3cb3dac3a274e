//! `make demo`: a live stream, three destinations, and everything that may go wrong, with a ledger at the end.
//!
//! Starts a Kinesis endpoint in this process and a cluster of real processes beside it; puts a keyed, numbered load on a
//! stream of four shards; splits, merges, kills and drains; waits until all is delivered; reads all destinations back. With GROW=5 workers
//! are added at the end, and the balance is told.
//! Exit code 1 if anything was lost or out of order.

mod balance;
mod events;
mod show;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use shardwright_integration_tests::{
    admin,
    cluster::{Cluster, Metadata},
    endpoint::{self, Endpoint},
    ledger::{self, Verdict},
    load::{self, Load, Plan},
    readback, servers,
};
use tokio::time::Instant;

const SOURCE: &str = "orders-in";
const COPY: &str = "orders-out";
const BY_ITEM: &str = "items-out";
const LOAD_LASTS: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let dir = std::env::temp_dir().join(format!("shardwright-demo-{}", std::process::id()));
    match demo(&dir).await {
        Ok(true) => {
            std::fs::remove_dir_all(&dir).ok();
            ExitCode::SUCCESS
        }
        Ok(false) => {
            println!("\nthe data and the logs are kept in {}", dir.display());
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("\ndemo: {error:#}\nthe logs are in {}", dir.join("logs").display());
            ExitCode::FAILURE
        }
    }
}

async fn demo(dir: &Path) -> Result<bool> {
    let keep = std::env::var("KEEP").is_ok_and(|v| v == "1");
    let etcd = match std::env::var("STORE").unwrap_or_default().as_str() {
        "" | "embedded" => None,
        "etcd" => Some(servers::Etcd::start(&dir.join("etcd")).await?),
        other => bail!("STORE={other} is not a store; use STORE=embedded or STORE=etcd"),
    };
    let endpoint = Endpoint::start(endpoint::quick()).await?;
    let client = endpoint.client();
    endpoint::create_stream(&client, SOURCE, 4).await?;
    endpoint::create_stream(&client, COPY, 2).await?;
    endpoint::create_stream(&client, BY_ITEM, 2).await?;
    let (metadata, coordinators) = match &etcd {
        Some(etcd) => (Metadata::Etcd(etcd.url()), 2),
        None => (Metadata::Embedded, 1),
    };
    let mut cluster = Cluster::start(dir, metadata, coordinators).await?;
    let crew = Crew::asked_for()?;
    for worker in &crew.names {
        cluster.start_worker(worker)?;
    }
    let files = dir.join("files");
    println!(
        "a Kinesis endpoint, {coordinators} coordinator(s) and {} workers are starting",
        crew.names.len()
    );
    let ran = tokio::select! {
        ran = run(&mut cluster, &crew, &endpoint, &files) => ran,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    let balanced = match ran {
        Ok(balanced) => balanced,
        Err(error) => {
            println!("\n{}", cluster.tails());
            return Err(error);
        }
    };
    if keep {
        show::keep(&cluster, &endpoint);
        tokio::signal::ctrl_c().await?;
    }
    Ok(balanced)
}

/// Who works.
struct Crew {
    /// From the start.
    names: Vec<String>,
    /// Those that are added at the end.
    newcomers: Vec<String>,
}

impl Crew {
    /// `WORKERS` (3, at least 3) and `GROW` (none).
    fn asked_for() -> Result<Self> {
        let number = |name: &str, default: usize| match std::env::var(name) {
            Ok(text) if !text.is_empty() => {
                text.parse::<usize>().with_context(|| format!("{name}={text} is not a number"))
            }
            _ => Ok(default),
        };
        let workers = number("WORKERS", 3)?;
        let grown = number("GROW", workers)?;
        if workers < 3 || grown < workers {
            bail!(
                "WORKERS={workers} GROW={grown}: the demo needs at least 3 workers, and GROW is how many there are in the end"
            );
        }
        let mut names: Vec<String> = (0..grown).map(|n| format!("worker-{n}")).collect();
        let newcomers = names.split_off(workers);
        Ok(Self { names, newcomers })
    }

    fn all(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }
}

async fn run(cluster: &mut Cluster, crew: &Crew, endpoint: &Endpoint, files: &Path) -> Result<bool> {
    let admin = cluster.admin();
    let joined = |status: &proto::v1::StatusReply| {
        let live = status.workers.iter().filter(|worker| worker.state == "live").count();
        if live == crew.names.len() { Ok(()) } else { Err(format!("{live} workers are live")) }
    };
    admin.wait("the workers join", Duration::from_secs(30), joined).await?;
    for statement in statements(&endpoint.url(), files) {
        println!("\n{statement}");
        admin.execute(&statement).await?;
    }
    let ready = admin
        .wait("every shard is read", Duration::from_secs(30), |s| admin::all_reading(s, &crew.all()))
        .await?;
    println!("\nevery shard is read after {}; the load starts\n", show::seconds(ready));
    let client = endpoint.client();
    let start = Instant::now();
    let load = Load::start(client.clone(), SOURCE, Plan::default());
    let (happened, grown) = {
        let progress = show::progress(&admin, &load, start);
        let happen = async {
            let happened = events::all(cluster, &crew.all(), (&client, SOURCE), start).await?;
            let grown = balance::grow(cluster, crew).await?;
            tokio::time::sleep_until(start + LOAD_LASTS).await;
            Ok::<_, anyhow::Error>((happened, grown))
        };
        tokio::select! {
            happened = happen => happened?,
            () = progress => unreachable!("the progress line never ends by itself"),
        }
    };
    let sent = load.stop().await?;
    let destinations = Destinations { client, files: files.to_owned() };
    let drained = destinations.drained(&sent).await?;
    println!("  everything is delivered {} after the load ended", show::seconds(drained));
    let store = admin.status().await?.store;
    let verdicts = destinations.audit(&sent).await?;
    println!("\nstore: {store}");
    show::events(&happened);
    for (_, verdict) in &verdicts {
        verdict.complaints.iter().for_each(|complaint| println!("  ! {complaint}"));
    }
    println!();
    if let Some(grown) = grown {
        println!("{grown}");
    }
    for (name, verdict) in &verdicts {
        println!("ledger: {name}: {verdict}");
    }
    Ok(verdicts.iter().all(|(_, verdict)| verdict.balances()))
}

fn statements(url: &str, files: &Path) -> [String; 4] {
    let keys = format!(
        "aws.region = 'us-east-1', endpoint = '{url}',\n      aws.credentials.access_key_id = '{}', \
         aws.credentials.secret_access_key = 'test'",
        endpoint::ACCESS_KEY
    );
    [
        format!(
            "CREATE SOURCE orders (key VARCHAR, n BIGINT, item VARCHAR, step BIGINT, filler VARCHAR)\nWITH (connector = 'kinesis', stream = \
             '{SOURCE}',\n      {keys})\nFORMAT PLAIN ENCODE JSON"
        ),
        format!(
            "CREATE SINK copy AS SELECT key, n FROM orders\nWITH (connector = 'kinesis', stream = '{COPY}', \
             primary_key = 'key',\n      {keys})\nFORMAT PLAIN ENCODE JSON"
        ),
        format!(
            "CREATE SINK archive FROM orders\nWITH (connector = 'file', path = '{}')\nFORMAT PLAIN ENCODE JSON",
            files.display()
        ),
        format!(
            "CREATE SINK by_item AS SELECT item AS key, step AS n FROM orders\nWITH (connector = 'kinesis', stream = \
             '{BY_ITEM}', primary_key = 'key', distribution = 'key(4)',\n      {keys})\nFORMAT PLAIN ENCODE JSON"
        ),
    ]
}

struct Destinations {
    client: aws_sdk_kinesis::Client,
    files: PathBuf,
}

impl Destinations {
    /// Waits until nothing is missing any more, or nothing has changed for long: the verdict will say what.
    async fn drained(&self, sent: &BTreeMap<String, u64>) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let verdicts = self.audit(sent).await?;
            if verdicts.iter().all(|(_, v)| v.lost == 0) || start.elapsed() > Duration::from_secs(60) {
                return Ok(start.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    async fn audit(&self, sent: &BTreeMap<String, u64>) -> Result<Vec<(&'static str, Verdict)>> {
        let copy = readback::kinesis(&self.client, COPY).await.context("reading the copy")?;
        let by_item = readback::kinesis(&self.client, BY_ITEM).await.context("reading the items")?;
        let splits: Vec<String> =
            endpoint::shards(&self.client, SOURCE).await?.iter().map(|s| s.shard_id().to_owned()).collect();
        let archive = readback::files(&self.files.join("archive"), &splits)?;
        Ok(vec![
            ("kinesis", ledger::audit(sent, copy)),
            ("files", ledger::audit(sent, archive)),
            ("by item", ledger::audit(&load::items(sent), by_item)),
        ])
    }
}
