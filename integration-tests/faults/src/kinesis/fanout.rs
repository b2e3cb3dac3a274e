//! `SubscribeToShard` made of the endpoint's `GetRecords`, as the service does it: every start position, events of records
//! with a continuation number that moves on a quiet shard too, child shards in the last event, an end after five minutes;
//! a second subscription of a consumer to a shard within 5 s is refused, a later one takes over.
//!
//! Reading, not the endpoint's own stream, because an emulator that must be asked in turn (ferrokinesis) cannot be while its
//! streams run. Each event is an operation `SubscribeToShardEvent` to the rules.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::{Response, body::Frame};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Front, Reply,
    call::Call,
    number,
    upstream::Upstreamed,
    wire::{Body, Scissors, error},
};
use crate::{
    Fault,
    faults::{ShardKey, now_ms},
    rule::EVENT,
};

/// Between two looks at a shard that has nothing new.
const LOOK: Duration = Duration::from_millis(100);
/// Between two events of a quiet shard.
const QUIET: Duration = Duration::from_secs(1);
/// Records of one event at most.
const EVENT_RECORDS: u64 = 1000;
/// A subscription younger than this is not taken over.
const TAKEOVER: Duration = Duration::from_secs(5);

/// Who subscribes to what.
#[derive(Default)]
pub(super) struct Subscriptions {
    running: Mutex<HashMap<(String, ShardKey), (Instant, CancellationToken)>>,
}

impl Subscriptions {
    /// The end of a new one, or `None` if there is one that is too young to be taken over.
    fn begin(&self, consumer: &str, shard: &ShardKey) -> Option<CancellationToken> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (consumer.to_owned(), shard.clone());
        if let Some((since, end)) = running.get(&key) {
            if !end.is_cancelled() && since.elapsed() < TAKEOVER {
                return None;
            }
            end.cancel();
        }
        let end = CancellationToken::new();
        running.insert(key, (Instant::now(), end.clone()));
        Some(end)
    }
}

/// What goes to the subscriber.
type Frames = mpsc::Sender<io::Result<Frame<Bytes>>>;

struct Subscription {
    front: Arc<Front>,
    call: Call,
    shard: ShardKey,
    frames: Frames,
    end: CancellationToken,
    scissors: Scissors,
    /// The last number given out, or the one to stand in for it.
    last: String,
    /// The endpoint's.
    iterator: String,
}

impl Front {
    pub(super) async fn subscribe(self: &Arc<Self>, call: &Call, scissors: &Scissors) -> Upstreamed {
        let (Some(shard), Some(consumer)) = (call.key(), call.json["ConsumerARN"].as_str()) else {
            return Ok(error(400, "InvalidArgumentException", "ConsumerARN and ShardId are needed"));
        };
        // An unknown consumer is the endpoint's to refuse.
        self.upstream.ask(call, "DescribeStreamConsumer", &json!({ "ConsumerARN": consumer })).await?;
        let position = &call.json["StartingPosition"];
        let start = json!({
            "StreamName": shard.0,
            "ShardId": shard.1,
            "ShardIteratorType": position["Type"],
            "StartingSequenceNumber": position["SequenceNumber"],
            "Timestamp": position["Timestamp"],
        });
        let located = self.upstream.ask(call, "GetShardIterator", &without_nulls(start)).await?;
        let Some(iterator) = located.json["ShardIterator"].as_str().map(str::to_owned) else {
            return Ok(error(500, "InternalFailureException", "the endpoint gave no iterator"));
        };
        let last = match position["SequenceNumber"].as_str() {
            Some(number) => number.to_owned(),
            None => self.first_number(call, &shard).await?,
        };
        let Some(end) = self.subscriptions.begin(consumer, &shard) else {
            let text = "Another active subscription exists for this consumer";
            return Ok(error(400, "ResourceInUseException", text));
        };
        let (frames, mut received) = mpsc::channel(4);
        let again = Call::read(call.headers.clone(), call.body.clone());
        let (front, scissors) = (Arc::clone(self), scissors.clone());
        let subscription = Subscription { front, call: again, shard, frames, end, scissors, last, iterator };
        tokio::spawn(subscription.run());
        let body = StreamBody::new(futures::stream::poll_fn(move |cx| received.poll_recv(cx)));
        let mut answer: Response<Body> = Response::new(body.boxed_unsync());
        let kind = hyper::header::HeaderValue::from_static("application/vnd.amazon.eventstream");
        answer.headers_mut().insert("content-type", kind);
        Ok(answer)
    }

    async fn first_number(&self, call: &Call, (stream, shard): &ShardKey) -> Result<String, Reply> {
        let all = self.all_shards(call, stream).await?;
        let found = all.iter().find(|other| other["ShardId"] == shard.as_str());
        let number = found.and_then(|s| s["SequenceNumberRange"]["StartingSequenceNumber"].as_str());
        Ok(number.unwrap_or("0").to_owned())
    }
}

/// Emulators take a null for a value.
fn without_nulls(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    value
}

impl Subscription {
    async fn run(mut self) {
        let life = self.front.faults.subscription_life();
        let end = self.end.clone();
        tokio::select! {
            () = self.serve() => {}
            () = end.cancelled() => {}
            () = tokio::time::sleep(life) => {}
        }
        // Whoever comes next need not wait for a subscription that has ended.
        end.cancel();
    }

    async fn serve(&mut self) {
        let mut told = Instant::now();
        if !self.send(&initial()).await {
            return;
        }
        loop {
            let asked = now_ms();
            let request = json!({ "ShardIterator": self.iterator, "Limit": EVENT_RECORDS });
            let answer = match self.front.upstream.ask(&self.call, "GetRecords", &request).await {
                Ok(answer) => answer,
                Err(Reply::Answer(_)) => {
                    self.send(&exception("InternalFailureException")).await;
                    return;
                }
                Err(_) => return self.cut().await,
            };
            let mut event = answer.json;
            self.front.trim_answer(&mut event, &self.shard);
            let next = event["NextShardIterator"].as_str().filter(|next| !next.is_empty()).map(str::to_owned);
            let records = event["Records"].as_array().map_or(0, Vec::len);
            if records == 0 && next.is_some() && told.elapsed() < QUIET {
                self.iterator = next.unwrap_or_default();
                tokio::time::sleep(LOOK).await;
                continue;
            }
            told = Instant::now();
            if !self.give(event, next.is_none(), asked).await {
                return;
            }
            match next {
                Some(next) => self.iterator = next,
                None => return,
            }
        }
    }

    /// Makes an event of an answer and sends it; false if that was the last.
    async fn give(&mut self, mut event: Value, ended: bool, asked: u64) -> bool {
        let records = event["Records"].as_array().map(Vec::as_slice).unwrap_or_default();
        self.last = match records.last().and_then(|record| record["SequenceNumber"].as_str()) {
            Some(number) => number.to_owned(),
            None => number::moved(&self.last, asked),
        };
        event["ContinuationSequenceNumber"] = json!(self.last);
        if let Some(fields) = event.as_object_mut() {
            fields.remove("NextShardIterator");
        }
        if ended {
            match self.front.children(&self.call, &self.shard).await {
                Ok(children) => event["ChildShards"] = children,
                Err(_) => {
                    self.cut().await;
                    return false;
                }
            }
        }
        let (stream, shard) = (self.shard.0.clone(), self.shard.1.clone());
        let verdict = self.front.faults.decide(EVENT, Some(&stream), Some(&shard));
        tokio::time::sleep(verdict.delay).await;
        match verdict.fault {
            None => self.send(&framed("SubscribeToShardEvent", Bytes::from(event.to_string()))).await,
            Some(Fault::Error { code, .. }) => {
                self.send(&exception(&code)).await;
                false
            }
            Some(Fault::Empty) => false,
            Some(Fault::Cut | Fault::LoseAnswer) => {
                self.cut().await;
                false
            }
            Some(_) => std::future::pending().await,
        }
    }

    /// Resets the connection. It must be gone before this value is: the end of the frames would be an orderly one.
    async fn cut(&self) {
        self.scissors.close();
        self.frames.closed().await;
    }

    /// False if nobody listens any more.
    async fn send(&self, message: &Message) -> bool {
        let mut bytes = Vec::new();
        if write_message_to(message, &mut bytes).is_err() {
            return false;
        }
        self.frames.send(Ok(Frame::data(Bytes::from(bytes)))).await.is_ok()
    }
}

fn header(name: &'static str, value: &str) -> Header {
    Header::new(name, HeaderValue::String(value.to_owned().into()))
}

fn framed(event: &str, payload: Bytes) -> Message {
    Message::new(payload)
        .add_header(header(":message-type", "event"))
        .add_header(header(":event-type", event))
        .add_header(header(":content-type", super::wire::JSON))
}

fn initial() -> Message {
    framed("initial-response", Bytes::from_static(b"{}"))
}

fn exception(code: &str) -> Message {
    Message::new(Bytes::from(json!({ "message": "injected" }).to_string()))
        .add_header(header(":message-type", "exception"))
        .add_header(header(":exception-type", code))
        .add_header(header(":content-type", super::wire::JSON))
}
