//! Hours of fan-out on a paused clock: a service that keeps the rules of subscriptions and breaks everything else, and a reader
//! that is interrupted, held up and started again. Whatever happens, every record comes once and in order.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use connector::{Polled, Registry, Source};
use http_body::{Body, Frame};
use model::{Creation, Cursor, Position, SplitId, StartFrom};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    fake::{Answer, Push, event, last_event, summary},
    options, rustls_ready, source_spec,
};

const CREATED: i64 = 1_700_000_000;
/// Numbers of records are multiples of this; continuation numbers lie between.
const STEP: u64 = 10;

/// One shard and who is subscribed to it.
struct Shard {
    chance: StdRng,
    began: Instant,
    /// A record arrives so often, until there are `records`; then the shard is closed.
    every: Duration,
    records: u64,
    /// When the newest subscription was made, and its number.
    newest: Option<(Instant, u64)>,
    takeovers: u32,
    calls: Vec<Instant>,
    /// When the reader was opened that reads now.
    run_began: Instant,
}

impl Shard {
    /// How many records have arrived.
    fn arrived(&self) -> u64 {
        let n = self.began.elapsed().as_millis() / self.every.as_millis();
        u64::try_from(n).unwrap().min(self.records)
    }
}

#[derive(Clone)]
struct Service(Arc<Mutex<Shard>>);

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Service")
    }
}

struct Channel(mpsc::Receiver<Result<Bytes, io::Error>>);

impl Body for Channel {
    type Data = Bytes;
    type Error = io::Error;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(context).map(|next| next.map(|bytes| bytes.map(Frame::data)))
    }
}

impl Service {
    fn subscribe(&self, body: &Value) -> Result<mpsc::Receiver<Result<Bytes, io::Error>>, &'static str> {
        let mut shard = self.0.lock().unwrap();
        let now = Instant::now();
        if let Some(last) = shard.calls.last()
            && now.duration_since(*last) < Duration::from_secs(1)
        {
            assert!(*last < shard.run_began, "one call a second and shard");
            return Err("LimitExceededException");
        }
        shard.calls.push(now);
        match shard.chance.random_range(0..20) {
            0 => return Err("LimitExceededException"),
            1 => return Err("InternalFailure"),
            _ => {}
        }
        let id = match shard.newest {
            Some((at, _)) if at.elapsed() < Duration::from_secs(5) => return Err("ResourceInUseException"),
            Some((_, id)) => id + 1,
            None => 0,
        };
        shard.newest = Some((now, id));
        let position = &body["StartingPosition"];
        let number = || position["SequenceNumber"].as_str().unwrap().parse::<u64>().unwrap();
        let (next, at_number) = match position["Type"].as_str().unwrap() {
            "TRIM_HORIZON" => (1, 0),
            "AT_SEQUENCE_NUMBER" => (number().div_ceil(STEP), number()),
            "AFTER_SEQUENCE_NUMBER" => (number() / STEP + 1, number()),
            other => panic!("{other}"),
        };
        let (to, from) = mpsc::channel(1);
        let seed = shard.chance.random();
        drop(shard);
        tokio::spawn(self.clone().push(to, (id, seed), (next, at_number)));
        Ok(from)
    }

    /// One subscription, until it is over in one way or another.
    async fn push(
        self,
        to: mpsc::Sender<Result<Bytes, io::Error>>,
        (id, seed): (u64, u64),
        (mut next, mut continuation): (u64, u64),
    ) {
        let mut chance = StdRng::seed_from_u64(seed);
        let opened = Instant::now();
        let ends =
            Duration::from_secs(if chance.random_bool(0.3) { chance.random_range(1..300) } else { 300 });
        loop {
            tokio::time::sleep(Duration::from_millis(chance.random_range(50..5000))).await;
            let (arrived, closed, taken_over) = {
                let mut shard = self.0.lock().unwrap();
                let taken_over = shard.newest.is_some_and(|(_, newest)| newest != id);
                shard.takeovers += u32::from(taken_over);
                (shard.arrived(), shard.arrived() == shard.records, taken_over)
            };
            if taken_over {
                if chance.random_bool(0.5) {
                    _ = to.send(Ok(Push::Exception("ResourceInUseException").frame())).await;
                }
                return;
            }
            if opened.elapsed() >= ends {
                match chance.random_range(0..4) {
                    // Half open: it never ends, and nothing comes any more.
                    0 => to.closed().await,
                    1 => _ = to.send(Err(io::ErrorKind::ConnectionReset.into())).await,
                    2 => {
                        _ = to.send(Ok(event(&[next * STEP], Some(next * STEP), 0).frame().slice(..40))).await
                    }
                    _ => {}
                }
                return;
            }
            let until = arrived.min(next + chance.random_range(0..40)).max(next - 1);
            let numbers: Vec<u64> = (next..=until).map(|n| n * STEP).collect();
            next = until + 1;
            continuation = continuation.max(until * STEP + chance.random_range(0..STEP));
            let frame = if closed && next > arrived {
                last_event(&numbers)
            } else {
                event(&numbers, Some(continuation), (arrived + 1 - next) * 1000)
            }
            .frame();
            // In pieces, as the network brings them.
            let cut = chance.random_range(1..frame.len());
            for piece in [frame.slice(..cut), frame.slice(cut..)] {
                if to.send(Ok(piece)).await.is_err() {
                    return;
                }
            }
            if closed && next > arrived {
                return;
            }
        }
    }
}

impl HttpConnector for Service {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default().to_owned();
        let body: Value =
            request.body().bytes().and_then(|b| serde_json::from_slice(b).ok()).unwrap_or_default();
        let service = self.clone();
        HttpConnectorFuture::new(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let answer = match target.rsplit('.').next().unwrap() {
                "SubscribeToShard" => match service.subscribe(&body) {
                    Ok(events) => {
                        let body = SdkBody::from_body_1_x(Channel(events));
                        return Ok(HttpResponse::new(200.try_into().unwrap(), body));
                    }
                    Err(code) => Answer::Error(code),
                },
                "DescribeStreamConsumer" => crate::fanout::described("ACTIVE"),
                _ => summary(CREATED),
            };
            let (status, text) = match answer {
                Answer::Ok(value) => (200, value.to_string()),
                Answer::Error(code) => (400, json!({"__type": code}).to_string()),
                _ => unreachable!("nothing else is answered here"),
            };
            Ok(HttpResponse::new(status.try_into().unwrap(), text.into()))
        })
    }
}

fn source(service: Service) -> Arc<dyn Source> {
    rustls_ready();
    let http = http_client_fn(move |_: &HttpConnectorSettings, _: &RuntimeComponents| {
        SharedHttpConnector::new(service.clone())
    });
    let mut registry = Registry::new();
    shardwright_connectors::source::kinesis::register_over(&mut registry, Some(http));
    let efo = [("kinesis.consumer.mode", "efo"), ("kinesis.consumer.name", "app")];
    registry.build_source(&source_spec(options("http://kinesis", "in", &efo))).unwrap()
}

/// Reads the shard to its end; gives the numbers of its records in the order in which they came.
async fn read_all(service: &Service, chance: &mut StdRng) -> Vec<u64> {
    let source = source(service.clone());
    let registrar = source.registrar().unwrap();
    let split = SplitId::new(Creation(CREATED * 1000), "shardId-000000000000");
    let mut position = Position::Start(StartFrom::Horizon);
    let mut got = Vec::new();
    loop {
        // A run: it ends by itself, or a new one begins at the checkpoint.
        let mut reader = registrar.open("app", &split, &position).await.unwrap();
        service.0.lock().unwrap().run_began = Instant::now();
        let until = Instant::now() + Duration::from_secs(chance.random_range(1..3000));
        while Instant::now() < until {
            let patience = Duration::from_millis(chance.random_range(1..20_000));
            _ = tokio::time::timeout(patience, reader.ready()).await;
            if chance.random_bool(0.02) {
                // The destination stands still.
                tokio::time::sleep(Duration::from_secs(chance.random_range(1..600))).await;
            }
            let patience = Duration::from_millis(chance.random_range(1..20_000));
            match tokio::time::timeout(patience, reader.next()).await {
                Err(_) => {}
                Ok(Err(error)) => assert!(error.is_transient(), "{error}"),
                Ok(Ok(Polled::End)) => return got,
                Ok(Ok(Polled::Idle { .. })) => {
                    let passed: Option<Cursor> = reader.passed();
                    position = passed.map_or(position, Position::After);
                }
                Ok(Ok(Polled::Records { records, .. })) => {
                    got.extend(records.iter().map(|r| r.cursor.offset().parse::<u64>().unwrap()));
                    position = Position::After(records.last().unwrap().cursor.clone());
                }
            }
            assert_eq!(reader.gap(), None, "nothing ages out here");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_every_record_comes_once_and_in_order() {
    let (mut hours, mut takeovers, mut calls) = (0.0, 0, 0);
    for seed in 0..10 {
        let mut chance = StdRng::seed_from_u64(seed);
        let shard = Shard {
            began: Instant::now(),
            every: Duration::from_millis(chance.random_range(20..20_000)),
            records: chance.random_range(1..3000),
            newest: None,
            takeovers: 0,
            calls: Vec::new(),
            run_began: Instant::now(),
            chance: StdRng::seed_from_u64(seed + 1000),
        };
        let records = shard.records;
        let service = Service(Arc::new(Mutex::new(shard)));
        let began = Instant::now();
        let day = Duration::from_secs(24 * 3600);
        let got = tokio::time::timeout(day, read_all(&service, &mut chance)).await;
        let got = got.unwrap_or_else(|_| panic!("seed {seed}: never at its end"));
        let expected: Vec<u64> = (1..=records).map(|n| n * STEP).collect();
        let wrong = got.iter().zip(&expected).position(|(a, b)| a != b);
        assert!(
            got == expected,
            "seed {seed}: {} of {records} records, first difference at {wrong:?}",
            got.len()
        );
        let shard = service.0.lock().unwrap();
        (takeovers, calls) = (takeovers + shard.takeovers, calls + shard.calls.len());
        hours += began.elapsed().as_secs_f64() / 3600.0;
    }
    assert!(hours > 5.0 && takeovers > 10 && calls > 100, "{hours} h, {takeovers} takeovers, {calls} calls");
}
