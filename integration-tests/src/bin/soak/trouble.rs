//! What goes wrong, by chance: one thing every few seconds, each for a few seconds, several at a time. worker-0 and
//! coordinator-1 are never killed (but cut off, and the latter deposed), so that there is something whose growth can be seen.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::Result;
use aws_sdk_kinesis::Client;
use faults::{
    Entries, Fault, Faults, Limits, Rule,
    tcp::{Flow, Link},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use shardwright_integration_tests::{cluster::Cluster, endpoint, layer::Layer};
use tokio::time::Instant;

use crate::SOURCE;

/// Open shards, at least and at most.
const SHARDS: std::ops::RangeInclusive<usize> = 3..=6;
/// A coordinator is started again so often at most: its way to etcd is broken for seconds.
const RESTARTS_MAX: usize = 20;
/// Workers that may be killed and suspended.
const VICTIMS: [&str; 2] = ["worker-1", "worker-2"];

/// How something is mended.
enum Mend {
    Start(String),
    Resume(String),
    Coordinator(usize),
    Etcd(usize),
    Front(usize),
}

/// The source of all trouble, and the cluster that has it.
pub struct Trouble {
    pub cluster: Cluster,
    /// The source is pushed to, not polled.
    pub fanout: bool,
    rng: StdRng,
    layer: Layer,
    /// Before each coordinator.
    fronts: Vec<Link>,
    client: Client,
    due: Vec<(Instant, Mend)>,
    /// Starts of coordinators in a row that came to nothing.
    restarts: usize,
    round: u32,
    counts: BTreeMap<&'static str, u32>,
}

impl Trouble {
    pub fn new(seed: u64, cluster: Cluster, layer: Layer, fronts: Vec<Link>, client: Client) -> Self {
        let (rng, due, counts) = (StdRng::seed_from_u64(seed), Vec::new(), BTreeMap::new());
        Self { cluster, fanout: false, rng, layer, fronts, client, due, restarts: 0, round: 0, counts }
    }

    /// Makes trouble until then.
    pub async fn until(&mut self, end: Instant) -> Result<()> {
        self.round = 0;
        self.layer.source.set_limits(Some(Limits::default()));
        let mut next = Instant::now();
        while Instant::now() < end {
            self.mend(Instant::now()).await?;
            if Instant::now() >= next {
                self.happen().await?;
                next = Instant::now() + Duration::from_millis(self.rng.random_range(500..4000));
            }
            tokio::time::sleep_until(next.min(end).min(Instant::now() + Duration::from_millis(100))).await;
        }
        Ok(())
    }

    /// Mends everything.
    pub async fn heal(&mut self) -> Result<()> {
        self.layer.source.heal();
        self.layer.sink.heal();
        // A coordinator may have to be started once more when its way to etcd is mended.
        while !self.due.is_empty() {
            self.mend(Instant::now() + Duration::from_secs(3600)).await?;
        }
        Ok(())
    }

    /// How much of it there was in this round.
    pub fn told(&self) -> String {
        format!("{} faults;", self.round)
    }

    /// How much of each kind there was.
    pub fn summary(&self) -> String {
        let mut text = String::from("faults:");
        for (what, count) in &self.counts {
            write!(text, " {what} {count},").expect("text takes all that is written");
        }
        for (name, faults) in [("source", &self.layer.source), ("sink", &self.layer.sink)] {
            let counts = faults.counts();
            let calls: u64 = counts.values().map(|count| count.calls).sum();
            let faulted: u64 = counts.values().map(|count| count.faulted).sum();
            write!(text, " {faulted} of {calls} calls of the {name},")
                .expect("text takes all that is written");
        }
        text.trim_end_matches(',').to_owned()
    }

    async fn mend(&mut self, until: Instant) -> Result<()> {
        let (due, later) = std::mem::take(&mut self.due).into_iter().partition(|(at, _)| *at <= until);
        self.due = later;
        for (_, mend) in Vec::from_iter::<Vec<(Instant, Mend)>>(due) {
            match mend {
                Mend::Start(worker) => self.cluster.start_worker(&worker)?,
                Mend::Resume(worker) => self.cluster.worker(&worker).signal("CONT")?,
                Mend::Coordinator(number) => self.supervise(number).await?,
                Mend::Etcd(number) => self.layer.etcd[number].handle().heal(),
                Mend::Front(number) => self.fronts[number].handle().heal(),
            }
        }
        Ok(())
    }

    /// Starts a coordinator as a supervisor does: one that ends because its way to etcd is broken (exit code 3) is started again.
    async fn supervise(&mut self, number: usize) -> Result<()> {
        match self.cluster.start_coordinator(number).await {
            Err(error) if format!("{error:#}").contains("exit status: 3") && self.restarts < RESTARTS_MAX => {
                self.restarts += 1;
                self.due.push((Instant::now() + Duration::from_secs(1), Mend::Coordinator(number)));
                Ok(())
            }
            started => {
                self.restarts = 0;
                started
            }
        }
    }

    async fn happen(&mut self) -> Result<()> {
        let what = match self.rng.random_range(0..100) {
            0..25 => self.reads(),
            25..50 => self.writes(),
            50..60 => self.reshard().await?,
            60..72 => self.worker().await?,
            72..82 => self.leader().await?,
            82..91 => self.etcd(),
            _ => self.front(),
        };
        if let Some(what) = what {
            *self.counts.entry(what).or_default() += 1;
            self.round += 1;
        }
        Ok(())
    }

    fn some_time(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(1000..8000))
    }

    fn any(&mut self, faults: &Faults, choice: Vec<Rule>) {
        let time = self.some_time();
        if let Some(rule) = choice.choose(&mut self.rng) {
            faults.add(rule.clone().lasting(time));
        }
    }

    fn reads(&mut self) -> Option<&'static str> {
        let read = |fault, probability| Rule::new(fault).on("GetRecords").probability(probability);
        let event =
            |fault, probability| Rule::new(fault).on("SubscribeToShardEvent").probability(probability);
        let begin = |fault, probability| Rule::new(fault).on("SubscribeToShard").probability(probability);
        let error = |code: &str| Fault::Error { code: code.to_owned(), status: 400 };
        let faults = self.layer.source.clone();
        if self.fanout && self.rng.random_bool(0.7) {
            let choice = vec![
                event(error("InternalFailureException"), 0.2),
                event(Fault::Empty, 0.3),
                event(Fault::Cut, 0.3),
                event(Fault::HalfOpen, 0.2).times(2),
                event(Fault::Delay { ms: 50, jitter_ms: 1500 }, 0.5),
                begin(error("ResourceInUseException"), 0.7),
                begin(error("LimitExceededException"), 0.7),
                begin(Fault::HalfOpen, 0.5).times(2),
                begin(Fault::Cut, 0.5),
            ];
            self.any(&faults, choice);
            return Some("subscriptions");
        }
        let choice = vec![
            read(Fault::throttled(), 0.7),
            read(Fault::Empty, 0.8),
            read(Fault::ExpireIterator, 0.5),
            read(Fault::unavailable(), 0.5),
            read(Fault::LoseAnswer, 0.3),
            read(Fault::Cut, 1.0),
            read(Fault::HalfOpen, 0.5).times(2),
            read(Fault::Delay { ms: 50, jitter_ms: 800 }, 0.5),
            Rule::new(Fault::unavailable()),
            Rule::new(Fault::HideNew { age_ms: 5000 }),
        ];
        self.any(&faults, choice);
        Some("reads")
    }

    fn writes(&mut self) -> Option<&'static str> {
        let put = |fault, probability| Rule::new(fault).on("PutRecords").probability(probability);
        let part =
            |code: &str, share| Fault::FailEntries { code: code.to_owned(), entries: Entries::Share(share) };
        let faults = self.layer.sink.clone();
        let choice = vec![
            put(part("ProvisionedThroughputExceededException", 0.3), 1.0),
            put(part("InternalFailure", 0.1), 1.0),
            put(part("KMSThrottlingException", 0.9), 0.5),
            put(Fault::throttled(), 0.6),
            put(Fault::unavailable(), 0.5),
            put(Fault::LoseAnswer, 0.3).times(2),
            put(Fault::SwallowAnswer, 0.3).times(1),
            put(Fault::HalfOpen, 0.3).times(1),
            put(Fault::Cut, 0.5),
            put(Fault::Delay { ms: 50, jitter_ms: 1500 }, 0.5),
        ];
        self.any(&faults, choice);
        Some("writes")
    }

    async fn reshard(&mut self) -> Result<Option<&'static str>> {
        let open = endpoint::open_shards(&self.client, SOURCE).await?;
        let split =
            open.len() <= *SHARDS.start() || (open.len() < *SHARDS.end() && self.rng.random_bool(0.5));
        let place = self.rng.random_range(0..open.len() - usize::from(!split));
        if split {
            endpoint::split(&self.client, SOURCE, &open[place]).await?;
            return Ok(Some("splits"));
        }
        endpoint::merge(&self.client, SOURCE, &open[place], &open[place + 1]).await?;
        Ok(Some("merges"))
    }

    async fn worker(&mut self) -> Result<Option<&'static str>> {
        let name = VICTIMS[self.rng.random_range(0..VICTIMS.len())];
        let suffers = |mend: &Mend| matches!(mend, Mend::Start(n) | Mend::Resume(n) if n == name);
        if self.due.iter().any(|(_, mend)| suffers(mend)) {
            return Ok(None);
        }
        let back = Instant::now() + self.some_time();
        if self.rng.random_bool(0.5) {
            self.cluster.worker(name).kill().await?;
            self.due.push((back, Mend::Start(name.to_owned())));
            return Ok(Some("workers killed"));
        }
        self.cluster.worker(name).signal("STOP")?;
        self.due.push((back, Mend::Resume(name.to_owned())));
        Ok(Some("workers suspended"))
    }

    /// Kills coordinator-0, whether it leads or not; if it does, its peer takes over.
    async fn leader(&mut self) -> Result<Option<&'static str>> {
        if self.due.iter().any(|(_, mend)| matches!(mend, Mend::Coordinator(_))) {
            return Ok(None);
        }
        let leads = self.cluster.coordinator_leads(0).await;
        self.cluster.coordinator(0).kill().await?;
        let back = Instant::now() + self.some_time();
        self.due.push((back, Mend::Coordinator(0)));
        Ok(Some(if leads { "leaders killed" } else { "followers killed" }))
    }

    fn etcd(&mut self) -> Option<&'static str> {
        let number = self.rng.random_range(0..self.layer.etcd.len());
        if self.due.iter().any(|(_, mend)| matches!(mend, Mend::Etcd(n) if *n == number)) {
            return None;
        }
        let back = Instant::now() + self.some_time();
        self.due.push((back, Mend::Etcd(number)));
        break_line(&mut self.rng, &self.layer.etcd[number]);
        Some("etcd lines broken")
    }

    fn front(&mut self) -> Option<&'static str> {
        let number = self.rng.random_range(0..self.fronts.len());
        if self.due.iter().any(|(_, mend)| matches!(mend, Mend::Front(n) if *n == number)) {
            return None;
        }
        let back = Instant::now() + self.some_time();
        self.due.push((back, Mend::Front(number)));
        break_line(&mut self.rng, &self.fronts[number]);
        Some("coordinator lines broken")
    }
}

fn break_line(rng: &mut StdRng, link: &Link) {
    let handle = link.handle();
    match rng.random_range(0..7) {
        0 => handle.partition(),
        1 => handle.half_open(),
        2 => handle.refuse(),
        3 => handle.cut(),
        4 => handle.delay(Duration::from_millis(rng.random_range(20..400))),
        5 => handle.set(Flow::Hold, Flow::Pass, false),
        _ => handle.set(Flow::Pass, Flow::Hold, false),
    }
}
