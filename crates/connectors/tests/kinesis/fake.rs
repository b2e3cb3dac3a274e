//! A service that does what a test says: each request goes to a closure, by operation.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::oneshot::Receiver;

use crate::rustls_ready;

/// What the fake answers.
pub enum Answer {
    /// 200 and this.
    Ok(Value),
    /// 400 with this code.
    Error(&'static str),
    /// A status with a body that is not the service's.
    Status(u16),
    /// Nothing for so long.
    Silence(Duration),
    /// 200 and this, in two halves, each when it is told to.
    Told(Value, [Receiver<()>; 2]),
    /// 200 and an event stream.
    Events(Vec<Push>),
}

/// What an event stream does next. After the last of them it ends.
pub enum Push {
    /// This event.
    Event(Value),
    /// An exception of this code.
    Exception(&'static str),
    /// Nothing for so long.
    Wait(Duration),
    /// This event again and again; each is counted when it leaves.
    Forever(Value, Arc<AtomicUsize>),
}

impl Push {
    pub fn frame(&self) -> Bytes {
        let text =
            |name: &'static str, value: &str| Header::new(name, HeaderValue::String(value.to_owned().into()));
        let message = match self {
            Self::Event(value) | Self::Forever(value, _) => Message::new(Bytes::from(value.to_string()))
                .add_header(text(":message-type", "event"))
                .add_header(text(":event-type", "SubscribeToShardEvent"))
                .add_header(text(":content-type", "application/json")),
            Self::Exception(code) => {
                Message::new(Bytes::from(json!({"message": format!("said {code}")}).to_string()))
                    .add_header(text(":message-type", "exception"))
                    .add_header(text(":exception-type", code))
            }
            Self::Wait(_) => return Bytes::new(),
        };
        let mut frame = Vec::new();
        write_message_to(&message, &mut frame).unwrap();
        frame.into()
    }
}

fn pushed(parts: Vec<Push>) -> Body {
    let first = Message::new(Bytes::new())
        .add_header(Header::new(":message-type", HeaderValue::String("event".into())))
        .add_header(Header::new(":event-type", HeaderValue::String("initial-response".into())));
    let mut opening = Vec::new();
    write_message_to(&first, &mut opening).unwrap();
    let opening = stream::iter([Ok::<_, std::io::Error>(Bytes::from(opening))]);
    let parts = stream::iter(parts).flat_map(|part| {
        let frame = part.frame();
        match part {
            Push::Wait(time) => stream::once(async move {
                tokio::time::sleep(time).await;
                Ok(frame)
            })
            .boxed(),
            Push::Forever(_, count) => stream::repeat_with(move || {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(frame.clone())
            })
            .boxed(),
            _ => stream::iter([Ok(frame)]).boxed(),
        }
    });
    Body::from_stream(opening.chain(parts))
}

/// An event with these numbers as sequence numbers.
pub fn event(numbers: &[u64], continuation: Option<u64>, behind: u64) -> Push {
    let mut event = json!({"Records": items(numbers), "MillisBehindLatest": behind});
    if let Some(number) = continuation {
        event["ContinuationSequenceNumber"] = json!(number.to_string());
    }
    Push::Event(event)
}

/// The last event of a shard.
pub fn last_event(numbers: &[u64]) -> Push {
    let range = json!({"StartingHashKey": "0", "EndingHashKey": "9"});
    let child = json!({"ShardId": "shardId-000000000001", "ParentShards": ["shardId-000000000000"], "HashKeyRange": range});
    Push::Event(json!({"Records": items(numbers), "MillisBehindLatest": 0, "ChildShards": [child]}))
}

type Script = Box<dyn FnMut(&str, &Value) -> Answer + Send>;

/// A running fake. Every request so far is kept.
pub struct Fake {
    pub endpoint: String,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

struct Shared {
    script: Mutex<Script>,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Fake {
    pub async fn start(script: impl FnMut(&str, &Value) -> Answer + Send + 'static) -> Self {
        rustls_ready();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::new(Shared { script: Mutex::new(Box::new(script)), seen: Arc::clone(&seen) });
        let app = Router::new().fallback(answer).with_state(shared);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { endpoint, seen }
    }

    /// The requests of one operation, in order.
    pub fn requests(&self, operation: &str) -> Vec<Value> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(name, _)| name == operation).map(|(_, body)| body.clone()).collect()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").map(|t| t.to_str().unwrap().to_owned()).unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let answer = (shared.script.lock().unwrap())(&operation, &body);
    shared.seen.lock().unwrap().push((operation, body));
    let (status, text) = match answer {
        Answer::Events(parts) => {
            let kind = [("content-type", "application/vnd.amazon.eventstream")];
            return (kind, pushed(parts)).into_response();
        }
        Answer::Ok(value) => (200, value.to_string()),
        Answer::Error(code) => (400, json!({"__type": code, "message": format!("said {code}")}).to_string()),
        Answer::Status(status) => (status, "<html>proxy</html>".to_owned()),
        Answer::Silence(time) => {
            tokio::time::sleep(time).await;
            (200, "{}".to_owned())
        }
        Answer::Told(value, [head, body]) => {
            let _ = head.await;
            let text = value.to_string();
            let (first, rest) = text.split_at(text.len() / 2);
            let (first, rest) =
                (Bytes::copy_from_slice(first.as_bytes()), Bytes::copy_from_slice(rest.as_bytes()));
            let rest = stream::once(async move {
                let _ = body.await;
                Ok(rest)
            });
            let parts = stream::iter([Ok::<_, std::io::Error>(first)]).chain(rest);
            return ([("content-type", "application/x-amz-json-1.1")], Body::from_stream(parts))
                .into_response();
        }
    };
    (
        axum::http::StatusCode::from_u16(status).unwrap(),
        [("content-type", "application/x-amz-json-1.1")],
        text,
    )
        .into_response()
}

/// `DescribeStreamSummary` of a stream that was created at this second.
pub fn summary(created: i64) -> Answer {
    Answer::Ok(json!({"StreamDescriptionSummary": {
        "StreamName": "in", "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/in", "StreamStatus": "ACTIVE",
        "RetentionPeriodHours": 24, "StreamCreationTimestamp": created, "EnhancedMonitoring": [],
        "OpenShardCount": 1, "MaxRecordSizeInKiB": 1024,
    }}))
}

fn items(numbers: &[u64]) -> Vec<Value> {
    let item = |n: &u64| json!({"SequenceNumber": n.to_string(), "Data": "eA==", "PartitionKey": "k", "ApproximateArrivalTimestamp": 1.5});
    numbers.iter().map(item).collect()
}

/// `GetRecords` with these numbers as payload and sequence number, base64.
pub fn get_records(numbers: &[u64], next: Option<&str>, behind: u64) -> Answer {
    let mut answer = json!({"Records": items(numbers), "MillisBehindLatest": behind});
    if let Some(next) = next {
        answer["NextShardIterator"] = json!(next);
    }
    Answer::Ok(answer)
}
