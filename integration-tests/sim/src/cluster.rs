//! A cluster in its world: machines with the real coordinators and workers on them, and what they talk to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use connector::Registry;
use coordinator::Site;
use integration_tests::ledger::Found;
use store::{Keyspace, Snapshot};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{
    faults::Script,
    kinesis::{self, Number, Shape},
    ledger,
    net::Net,
    place::Place,
    socket::Sockets,
    store as meta,
    user::{Order, User},
    world::World,
};

/// Name of the cluster in its store.
pub const NAME: &str = "sim";
/// The stream that is read.
pub const SOURCE: &str = "orders";
/// The stream that one of the sinks writes.
pub const COPY: &str = "copies";
/// The other sink's destination.
pub const LEDGER: &str = "ledger";
/// Where that sink's dead letters go, in the scripts that have any.
pub const LETTERS: &str = "letters";

/// Items of each key: a finer key, by which the ledger's rows come together where they are distributed by key.
const ITEMS: u64 = 3;

/// Where a record is in a ledger by item.
#[must_use]
pub fn item(record: &Found) -> Found {
    Found { key: format!("{}-{}", record.key, record.n % ITEMS), n: record.n / ITEMS }
}

/// Everything there is.
pub struct Cluster {
    /// Time, machines, network.
    pub world: World,
    /// The metadata store, to be told to fail.
    pub store: meta::Server,
    /// The service.
    pub kinesis: Arc<Mutex<kinesis::Model>>,
    /// The destination.
    pub ledger: ledger::Server,
    /// Whoever types statements.
    pub user: User,
    /// The destinations of the sinks that the user was asked for.
    pub destinations: Vec<&'static str>,
    /// How many records of each key were put.
    pub sent: BTreeMap<String, u64>,
    /// What the script says.
    pub script: Script,
    model: Arc<Mutex<meta::Model>>,
    sockets: Sockets,
    stops: BTreeMap<Place, CancellationToken>,
    keys: Keyspace,
    dirs: TempDir,
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn authority(place: Place) -> String {
    format!("{place}:7070")
}

/// Where a worker takes rows for its partitions.
fn exchange(place: Place) -> String {
    format!("{place}:7071")
}

fn url(place: Place) -> String {
    format!("http://{}", authority(place))
}

/// The options by which Kinesis is reached.
fn access() -> String {
    format!(
        "aws.region = '{}', aws.credentials.access_key_id = 'a', aws.credentials.secret_access_key = 'b'",
        kinesis::REGION
    )
}

impl Cluster {
    /// Removes what the workers left on the disk: for a process that ends without dropping anything.
    pub fn clean(&self) {
        // What cannot be removed is in the system's directory for such things.
        let _ = std::fs::remove_dir_all(self.dirs.path());
    }

    /// Machines, a stream and a destination; no process but the user runs yet.
    #[must_use]
    pub fn new(script: Script) -> Self {
        let source = Shape { shards: script.shards, ..Shape::default() };
        Self::over(script, source)
    }

    /// The same with another source.
    #[must_use]
    pub fn over(script: Script, source: Shape) -> Self {
        let net = Net::new(script.seed);
        let coordinators = (0..script.coordinators).map(Place::Coordinator);
        let processes = coordinators.clone().chain((0..script.workers).map(Place::Worker));
        let mut world = World::new(net.clone(), processes.chain([Place::User]));
        let sockets = Sockets::new(net.clone());
        let model = Arc::new(Mutex::new(meta::Model::default()));
        let mut kinesis = kinesis::Model::new(script.seed);
        kinesis.check_clocks(true);
        kinesis.create(Duration::ZERO, SOURCE, source);
        kinesis.create(Duration::ZERO, COPY, Shape { shards: 2, ..Shape::default() });
        let urls = coordinators.map(url).collect();
        let (user, at_work) = User::new(net.clone(), sockets.wire(Place::User), urls);
        world.start(Place::User, || at_work);
        Self {
            store: meta::Server::new(net.clone(), Arc::clone(&model)),
            ledger: ledger::Server::new(net),
            world,
            kinesis: Arc::new(Mutex::new(kinesis)),
            user,
            destinations: Vec::new(),
            sent: BTreeMap::new(),
            script,
            model,
            sockets,
            stops: BTreeMap::new(),
            keys: Keyspace::new(NAME),
            dirs: TempDir::new().expect("a place for the locks of workers"),
        }
    }

    /// The network and the time.
    #[must_use]
    pub fn net(&self) -> &Net {
        self.world.net()
    }

    /// The service, to be looked at or told to fail.
    pub fn kinesis(&self) -> MutexGuard<'_, kinesis::Model> {
        lock(&self.kinesis)
    }

    /// Starts the process of a place, anew if there is one.
    pub fn start(&mut self, place: Place) {
        let stop = CancellationToken::new();
        self.stops.insert(place, stop.clone());
        match place {
            Place::Coordinator(_) => self.start_coordinator(place, stop),
            Place::Worker(_) => self.start_worker(place, stop),
            _ => {}
        }
    }

    /// Asks the process of a place to stop in order.
    pub fn stop(&self, place: Place) {
        if let Some(stop) = self.stops.get(&place) {
            self.net().note(place, "is asked to stop");
            stop.cancel();
        }
    }

    /// Breaks every connection between two places.
    pub fn reset(&self, a: Place, b: Place) {
        self.sockets.reset(a, b);
    }

    /// Every process of the script.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let coordinators = (0..self.script.coordinators).map(Place::Coordinator);
        coordinators.chain((0..self.script.workers).map(Place::Worker)).collect()
    }

    /// Everything in the store, and its revision.
    #[must_use]
    pub fn stored(&self) -> Snapshot {
        lock(&self.model).snapshot(&self.keys.all())
    }

    /// What was written into the store by somebody who may not, since the last look (I3).
    #[must_use]
    pub fn intruders(&self) -> Vec<String> {
        lock(&self.model).take_broken()
    }

    /// The store's revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        lock(&self.model).revision()
    }

    /// Puts one record of a key. Returns where it is.
    pub fn put(&mut self, key: &str) -> (u32, Number) {
        let (now, data) = (self.net().now(), self.record(key));
        lock(&self.kinesis).put(now, SOURCE, key, data)
    }

    /// Puts records of these keys as one KPL aggregate, under the partition key of the first. Returns where it is.
    pub fn put_aggregate(&mut self, keys: &[&str]) -> (u32, Number) {
        let now = self.net().now();
        let records: Vec<(&str, Bytes)> = keys.iter().map(|key| (*key, self.record(key))).collect();
        lock(&self.kinesis).put_aggregate(now, SOURCE, &records)
    }

    fn record(&mut self, key: &str) -> Bytes {
        let count = self.sent.entry(key.to_owned()).or_default();
        let n = *count;
        *count += 1;
        if self.script.partitions.is_none() {
            return format!(r#"{{"k": "{key}", "n": {n}}}"#).into();
        }
        let Found { key: item, n: step } = item(&Found { key: key.to_owned(), n });
        format!(r#"{{"k": "{key}", "n": {n}, "item": "{item}", "step": {step}}}"#).into()
    }

    /// Has the user make the source, with these options more, and both sinks.
    pub fn declare(&mut self, source: &str) {
        self.declare_source(source, "");
        self.declare_ledger(self.script.demands.ledger);
        self.declare_copies();
    }

    /// Has the user make the source, with these options more in `WITH` and after `ENCODE JSON`.
    pub fn declare_source(&self, options: &str, encode: &str) {
        let access = access();
        let items = if self.script.partitions.is_some() { ", item VARCHAR, step BIGINT" } else { "" };
        self.user.ask(Order::Sql(format!(
            "CREATE SOURCE IF NOT EXISTS orders (k VARCHAR, n BIGINT{items}) WITH (connector = 'kinesis', stream = '{SOURCE}', \
             {access}{options}) FORMAT PLAIN ENCODE JSON{encode}"
        )));
    }

    /// Has the user make the sink to the ledger, with these options more; by item if the script says into how many partitions.
    pub fn declare_ledger(&mut self, options: &str) {
        self.destinations.push(LEDGER);
        let (rows, distribution) = match self.script.partitions {
            None => ("FROM orders", String::new()),
            Some(n) => ("AS SELECT item AS k, step AS n FROM orders", format!(", distribution = 'key({n})'")),
        };
        self.user.ask(Order::Sql(format!(
            "CREATE SINK IF NOT EXISTS ledger {rows} WITH (connector = 'ledger', name = '{LEDGER}', primary_key = 'k'\
             {distribution}{options}) FORMAT PLAIN ENCODE JSON"
        )));
    }

    /// Has the user make the sink to the other stream.
    pub fn declare_copies(&mut self) {
        self.destinations.insert(0, COPY);
        let access = access();
        self.user.ask(Order::Sql(format!(
            "CREATE SINK IF NOT EXISTS copies FROM orders WITH (connector = 'kinesis', stream = '{COPY}', primary_key = \
             'k', {access}) FORMAT PLAIN ENCODE JSON"
        )));
    }

    fn registry(&self, place: Place) -> Registry {
        let http = kinesis::http::client(self.net().clone(), place, Arc::clone(&self.kinesis));
        let mut registry = Registry::new();
        connectors::source::kinesis::register_over(&mut registry, Some(http.clone()));
        connectors::sink::kinesis::register_over(&mut registry, Some(http));
        ledger::register(&mut registry, &self.ledger, place);
        registry
    }

    fn start_coordinator(&mut self, place: Place, stop: CancellationToken) {
        let registry = self.registry(place);
        let config = coordinator::Config {
            cluster: NAME.to_owned(),
            advertise: Some(url(place)),
            ..coordinator::Config::default()
        };
        let site = Site {
            address: config.listen,
            incoming: self.sockets.listen(place, &authority(place)),
            wire: self.sockets.wire(place),
        };
        let store = Arc::new(meta::Client::new(self.net().clone(), place, Arc::clone(&self.model)));
        let net = self.net().clone();
        self.world.start(place, move || async move {
            let server = coordinator::Server::start_on(site, config, registry, store, stop);
            if let Err(error) = server.join().await {
                net.note(place, format!("failed: {error}"));
            }
        });
    }

    fn start_worker(&mut self, place: Place, stop: CancellationToken) {
        let registry = self.registry(place);
        let coordinators = (0..self.script.coordinators).map(|n| url(Place::Coordinator(n))).collect();
        let config = worker::Config {
            name: Some(place.to_string()),
            data_dir: self.dirs.path().join(place.to_string()),
            coordinators,
            measure_cpu: false,
            ..worker::Config::default()
        };
        let site = worker::Site {
            address: exchange(place),
            incoming: self.sockets.listen(place, &exchange(place)),
            wire: self.sockets.wire(place),
        };
        let net = self.net().clone();
        self.world.start(place, move || async move {
            let ended = match worker::Worker::start_on(site, config, registry, stop) {
                Ok(worker) => worker.join().await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                net.note(place, format!("failed: {error}"));
            }
        });
    }
}
