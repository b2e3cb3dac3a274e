//! One `SubscribeToShard`: the call, and the events of its body. The body is read here and not by the SDK, because a reader
//! must be able to see that an event begins to arrive without taking it (docs/kinesis.md 3.7): what is not asked for stays in
//! the connection, whose flow control stops the service.
//!
//! Encoding of the events: <https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html>.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use aws_sdk_kinesis::{
    config::{
        ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeDeserializationInterceptorContextMut,
    },
    error::BoxError,
    primitives::DateTime,
    types::{ShardIteratorType, StartingPosition},
};
use aws_smithy_eventstream::frame::read_message_from;
use aws_smithy_types::{body::SdkBody, event_stream::Message};
use bytes::{Buf, Bytes, BytesMut};
use connector::{Error, ErrorKind, Result};
use serde::Deserialize;

use super::{
    super::{
        client::{Begin, Client},
        get_records::Record,
    },
    lines::{Line, Lines},
};
use crate::aws::{code_error, records};

/// Length of the whole event, length of its headers, checksum of both.
const PRELUDE: usize = 12;
/// No event is larger (10 MiB of records in base64, and what stands around them); more is not taken on trust.
const EVENT_MAX: usize = 16 << 20;

/// What one event brought.
#[derive(Debug)]
pub(super) struct Event {
    /// In the order of the shard.
    pub records: Vec<Record>,
    /// Keys and data of `records`.
    pub bytes: usize,
    /// Where a next subscription goes on; it moves also when no record comes. `None` at the end of the shard.
    pub continuation: Option<String>,
    /// `MillisBehindLatest`.
    pub behind: Option<Duration>,
    /// Whether children were named: the shard is closed.
    pub children: bool,
}

/// What a subscription says next.
#[derive(Debug)]
pub(super) enum Heard {
    /// An event has begun to arrive.
    Arrived,
    /// A whole event.
    Event(Event),
    /// Nothing will come any more: the five minutes are over, or why else.
    Over(Option<Error>),
}

/// An open subscription. Dropped, it ends.
pub(super) struct Subscription {
    /// For messages.
    what: String,
    line: Arc<Line>,
    buffer: BytesMut,
    over: bool,
    /// An event came.
    pub useful: bool,
}

impl Subscription {
    /// Subscribes `consumer` to `shard`. Takes over from an older subscription of the two if that is at least 5 s old.
    pub(super) async fn open(
        client: &Client,
        (consumer, lines): (&str, &Arc<Lines>),
        shard: &str,
        from: &Begin,
    ) -> Result<Self> {
        let what = || format!("failed to subscribe to shard `{shard}` of stream `{}`", client.stream());
        let taken = Taken::default();
        client
            .service
            .call("SubscribeToShard", what, |client| {
                client
                    .subscribe_to_shard()
                    .consumer_arn(consumer)
                    .shard_id(shard)
                    .starting_position(position(from))
                    .customize()
                    .interceptor(taken.clone())
                    .send()
            })
            .await?;
        let body = taken.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let body = body.ok_or_else(|| Error::new(ErrorKind::Bug, format!("{}: no body", what())))?;
        Ok(Self {
            what: format!("subscription to shard `{shard}` of stream `{}`", client.stream()),
            line: lines.add(body),
            buffer: BytesMut::new(),
            over: false,
            useful: false,
        })
    }

    /// What comes next; unless `whole`, it is enough that something does. Cancel safe.
    pub(super) async fn hear(&mut self, whole: bool) -> Heard {
        std::future::poll_fn(|context| self.poll(context, whole)).await
    }

    /// Says whether anybody listens from now on: a subscription to which nobody does is closed after a while.
    pub(super) fn listened(&self, listened: bool) {
        self.line.listened(listened);
    }

    fn poll(&mut self, context: &mut Context<'_>, whole: bool) -> Poll<Heard> {
        loop {
            if self.over {
                return Poll::Ready(Heard::Over(None));
            }
            match self.complete() {
                Ok(Some(event)) => {
                    self.useful = true;
                    return Poll::Ready(Heard::Event(event));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(self.end(Some(error))),
            }
            if !whole && !self.buffer.is_empty() {
                return Poll::Ready(Heard::Arrived);
            }
            match self.line.poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) if self.line.is_closed() => {
                    self.useful = true;
                    return Poll::Ready(self.end(None));
                }
                Poll::Ready(None) if self.buffer.is_empty() => return Poll::Ready(self.end(None)),
                Poll::Ready(None) => {
                    let error = self.broken("it ended within an event");
                    return Poll::Ready(self.end(Some(error)));
                }
                Poll::Ready(Some(Err(error))) => {
                    let error = self.broken(&innermost(error.as_ref()));
                    return Poll::Ready(self.end(Some(error)));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn end(&mut self, error: Option<Error>) -> Heard {
        self.over = true;
        self.buffer = BytesMut::new();
        Heard::Over(error)
    }

    /// The next whole event of the buffer, past whatever else is in it.
    fn complete(&mut self) -> Result<Option<Event>> {
        while self.buffer.len() >= PRELUDE {
            let length = (&self.buffer[..4]).get_u32() as usize;
            if !(PRELUDE..=EVENT_MAX).contains(&length) {
                return Err(self.broken(&format!("an event of {length} bytes")));
            }
            if self.buffer.len() < length {
                self.buffer.reserve(length - self.buffer.len());
                return Ok(None);
            }
            let frame = self.buffer.split_to(length).freeze();
            let message = read_message_from(frame).map_err(|error| self.broken(&error.to_string()))?;
            if let Some(event) = self.read(&message)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn read(&self, message: &Message) -> Result<Option<Event>> {
        let header = |name: &str| {
            let found = message.headers().iter().find(|header| header.name().as_str() == name);
            found.and_then(|header| header.value().as_string().ok()).map_or("", |text| text.as_str())
        };
        match (header(":message-type"), header(":event-type")) {
            ("event", "SubscribeToShardEvent") => {
                event(message.payload()).map(Some).map_err(|e| self.broken(&e))
            }
            // `initial-response`, and what may be invented later.
            ("event", _) => Ok(None),
            (kind, _) => {
                let code = [header(":exception-type"), header(":error-code")].concat();
                let said: Said = serde_json::from_slice(message.payload()).unwrap_or_default();
                let text = said.message.unwrap_or_else(|| header(":error-message").to_owned());
                let code = if code.is_empty() { kind.to_owned() } else { code };
                Err(code_error(&self.what, &code, &text, None))
            }
        }
    }

    fn broken(&self, why: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("{}: {why}", self.what))
    }
}

/// The body of an exception.
#[derive(Default, Deserialize)]
struct Said {
    #[serde(alias = "Message")]
    message: Option<String>,
}

/// What an event has and an answer to `GetRecords` has not.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tail {
    continuation_sequence_number: Option<String>,
    child_shards: Option<Vec<serde::de::IgnoredAny>>,
}

fn event(payload: &Bytes) -> Result<Event, String> {
    let tail: Tail = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    let answer = records::read(payload).map_err(|error| error.to_string())?;
    Ok(Event {
        records: answer.records,
        bytes: answer.bytes,
        continuation: tail.continuation_sequence_number.filter(|number| !number.is_empty()),
        behind: answer.behind,
        children: tail.child_shards.is_some_and(|children| !children.is_empty()),
    })
}

fn position(from: &Begin) -> StartingPosition {
    let (kind, number, moment) = match from {
        Begin::Horizon => (ShardIteratorType::TrimHorizon, None, None),
        Begin::At(at) => (ShardIteratorType::AtTimestamp, None, Some(DateTime::from_millis(at.0))),
        Begin::AtNumber(n) => (ShardIteratorType::AtSequenceNumber, Some(n.clone()), None),
        Begin::AfterNumber(n) => (ShardIteratorType::AfterSequenceNumber, Some(n.clone()), None),
    };
    StartingPosition::builder()
        .r#type(kind)
        .set_sequence_number(number)
        .set_timestamp(moment)
        .build()
        .expect("the only field that must be there was set")
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let last = std::iter::successors(Some(error), |error| error.source()).last();
    last.map(ToString::to_string).unwrap_or_default()
}

/// Takes the body of a good answer away from the SDK.
#[derive(Clone, Debug, Default)]
struct Taken(Arc<Mutex<Option<SdkBody>>>);

impl Intercept for Taken {
    fn name(&self) -> &'static str {
        "Taken"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        if response.status().is_success() {
            let body = std::mem::replace(response.body_mut(), SdkBody::empty());
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
        Ok(())
    }
}
