//! The real source, polling and fanned out, through every trouble that the simulated Kinesis can make: each record once, in
//! the order of its key.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use connector::{Polled, Registered, Registry, Source, SplitReader};
use model::{
    Column, Creation, Encode, Format, FormatClause, ObjectId, OnError, Options, Position, SourceSpec, Split,
    SplitId, SqlType, Start, StartFrom, Timestamp,
};
use shardwright_sim::{
    kinesis::{REGION, Throttle},
    net::Link,
    place::Place,
};
use tokio::time::sleep;

use crate::{HERE, World};

const CONSUMER: &str = "sink";

fn source(world: &World, more: &[(&str, &str)]) -> Arc<dyn Source> {
    rustls_ready();
    let mut registry = Registry::new();
    connectors::source::kinesis::register_over(&mut registry, Some(world.http.clone()));
    let mut options: Options = [
        ("stream", "in"),
        ("aws.region", REGION),
        ("aws.credentials.access_key_id", "id"),
        ("aws.credentials.secret_access_key", "secret"),
    ]
    .into_iter()
    .collect();
    for (name, value) in more {
        options.insert(*name, *value);
    }
    let spec = SourceSpec {
        id: ObjectId::from_parts(1, 1),
        name: "in".into(),
        connector: "kinesis".into(),
        options,
        columns: vec![Column { name: "data".into(), kind: SqlType::Bytea }],
        include: Vec::new(),
        primary_key: Vec::new(),
        format: FormatClause {
            format: Format::Plain,
            encode: Encode::Bytes,
            options: Options::default(),
            key_encode: None,
        },
        on_error: OnError::Skip,
        start: Start::all(StartFrom::Horizon),
        creation: Creation(0),
        created_at: Timestamp(0),
        revision: 1,
    };
    registry.build_source(&spec).unwrap()
}

fn rustls_ready() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
}

/// What was read, key by key.
#[derive(Clone, Default)]
struct Got(Arc<Mutex<BTreeMap<String, Vec<u64>>>>);

impl Got {
    fn add(&self, key: &[u8], payload: &[u8]) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        self.0.lock().unwrap().entry(text(key)).or_default().push(text(payload).parse().unwrap());
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().values().map(Vec::len).sum()
    }
}

async fn open(source: &dyn Source, split: &SplitId) -> Box<dyn SplitReader> {
    let horizon = Position::Start(StartFrom::Horizon);
    loop {
        let opened = match source.registrar() {
            Some(registrar) => registrar.open(CONSUMER, split, &horizon).await,
            None => source.open(split, &horizon).await,
        };
        if let Ok(reader) = opened {
            return reader;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn read(source: Arc<dyn Source>, split: SplitId, got: Got, ended: Arc<Mutex<BTreeSet<SplitId>>>) {
    let mut reader = open(source.as_ref(), &split).await;
    loop {
        match reader.next().await {
            Ok(Polled::Records { records, .. }) => {
                records.iter().for_each(|record| got.add(&record.key, &record.payload));
            }
            Ok(Polled::Idle { .. }) => {}
            Ok(Polled::End) => break,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    }
    ended.lock().unwrap().insert(split);
}

/// Starts a reader for each split whose parents have ended, for ever.
async fn follow(source: Arc<dyn Source>, got: Got) {
    let ended = Arc::new(Mutex::new(BTreeSet::new()));
    let mut begun = BTreeSet::new();
    loop {
        let listed: Vec<Split> = source.discover().await.map(|listing| listing.splits).unwrap_or_default();
        for split in listed {
            let ready = split.parents.iter().all(|parent| ended.lock().unwrap().contains(parent));
            if ready && begun.insert(split.id.clone()) {
                tokio::spawn(read(source.clone(), split.id, got.clone(), ended.clone()));
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn make_trouble(world: &World, tick: u64) {
    let (now, link) = (world.net.now(), Link::default());
    let mut model = world.model();
    let open = model.open_shards("in");
    let some = open[usize::try_from(tick).unwrap() / 7 % open.len()];
    match tick % 200 {
        10 => model.throttle("in", some, now + Duration::from_secs(3), Throttle::Error),
        30 => model.expire_iterators(now),
        50 => drop(model.split(now, "in", some).unwrap()),
        70 => model.throttle("in", some, now + Duration::from_secs(3), Throttle::Silence),
        90 => model.fail_calls(now + Duration::from_secs(2), 0.5),
        110 if open.len() > 2 => drop(model.merge(now, "in", open[0], open[1]).unwrap()),
        130 => model.empty_pages("in", some, 3),
        140 => model.lag_listings(Duration::from_secs(5)),
        150 => model.half_open("in", some, now + Duration::from_secs(60)),
        160 => world.net.set_link(Place::Kinesis, HERE, Link { closed: true, ..link }, 0.0),
        175 => world.net.set_link(Place::Kinesis, HERE, link, 0.5),
        190 => model.scale(now, "in", 1 + u32::try_from(tick / 200).unwrap() % 4).unwrap(),
        _ => {}
    }
}

/// Writes and makes trouble for so many seconds. Returns how many records there are of each key.
async fn trouble(world: &World, seconds: u64) -> BTreeMap<String, u64> {
    let mut sent = BTreeMap::<String, u64>::new();
    for tick in 0..seconds * 10 {
        let now = world.net.now();
        for i in 0..3 {
            let key = format!("k{}", (tick * 7 + i * 5) % 13);
            let next = sent.entry(key.clone()).or_default();
            let mut value = || {
                *next += 1;
                Bytes::from((*next - 1).to_string())
            };
            if tick % 4 == 0 {
                let records = [(key.as_str(), value()), (key.as_str(), value()), (key.as_str(), value())];
                world.model().put_aggregate(now, "in", &records);
            } else {
                world.model().put(now, "in", &key, value());
            }
        }
        make_trouble(world, tick);
        sleep(Duration::from_millis(100)).await;
    }
    world.model().heal();
    sent
}

/// Writes a little to each key, in peace. A subscription lives five minutes.
async fn calm(world: &World, seconds: u64, sent: &mut BTreeMap<String, u64>) {
    for _ in 0..seconds {
        for (key, next) in &mut *sent {
            world.model().put(world.net.now(), "in", key, Bytes::from(next.to_string()));
            *next += 1;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn each_record_comes_once_and_in_order(world: &World, source: Arc<dyn Source>) {
    let got = Got::default();
    let following = tokio::spawn(follow(source, got.clone()));
    let mut sent = trouble(world, 100).await;
    calm(world, 330, &mut sent).await;
    let total: u64 = sent.values().sum();
    for _ in 0..120 {
        if got.count() as u64 >= total {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    // Whatever would come twice has the time to.
    sleep(Duration::from_secs(10)).await;
    following.abort();
    for (key, count) in sent {
        let read = got.0.lock().unwrap().remove(&key).unwrap_or_default();
        let wrong = read.iter().zip(0..count).find(|(read, expected)| **read != *expected);
        assert_eq!(wrong, None, "{key}: not in order, or twice");
        assert_eq!(read.len() as u64, count, "{key}: not everything");
    }
}

/// What the test rests on did happen.
fn told(world: &World, parts: &[&str]) {
    let lines = world.net.trace().lines();
    for part in parts {
        assert!(lines.iter().any(|line| line.what.contains(part)), "{part}: never happened");
    }
}

#[tokio::test(start_paused = true)]
async fn a_polling_source_reads_each_record_once_and_in_order() {
    let world = World::new();
    each_record_comes_once_and_in_order(&world, source(&world, &[])).await;
    told(
        &world,
        &["GetRecords refused: Prov", "GetRecords refused: Expired", "GetRecords refused: Int", ", the end"],
    );
}

#[tokio::test(start_paused = true)]
async fn a_fanned_out_source_reads_each_record_once_and_in_order() {
    let world = World::new();
    let more = [("kinesis.consumer.mode", "efo"), ("kinesis.consumer.name", CONSUMER)];
    let source = source(&world, &more);
    let registrar = source.registrar().unwrap();
    registrar.register(CONSUMER).await.unwrap();
    while registrar.find(CONSUMER).await.unwrap() != Registered::Ready {
        sleep(Duration::from_secs(1)).await;
    }
    each_record_comes_once_and_in_order(&world, source.clone()).await;
    told(&world, &["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", " hung up", " ended"]);
}
