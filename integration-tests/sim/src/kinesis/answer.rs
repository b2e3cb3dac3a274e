//! What is answered to a request, before it is on the wire; and how members are read from and written to the JSON of
//! `application/x-amz-json-1.1`.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

use super::{Number, Refusal, shard::Record};

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// HTTP.
    pub status: u16,
    /// The body's JSON.
    pub body: Value,
    /// How much later it leaves.
    pub delay: Duration,
    /// The body is followed by the events of this subscription.
    pub subscription: Option<u64>,
    /// For the story.
    pub note: Option<String>,
}

/// What an operation does when it does what it was asked.
#[derive(Debug)]
pub(super) struct Done {
    pub body: Value,
    pub subscription: Option<u64>,
    /// Nothing, where telling it would drown the story.
    pub note: Option<String>,
}

impl Done {
    pub(super) fn new(body: Value, note: impl Into<String>) -> Self {
        Self { body, subscription: None, note: Some(note.into()) }
    }
}

impl Answer {
    pub(super) fn refused(refusal: &Refusal) -> Self {
        Self {
            status: refusal.status,
            body: json!({ "__type": refusal.code, "message": refusal.message }),
            delay: Duration::ZERO,
            subscription: None,
            note: Some(format!(
                "refused: {}: {}",
                refusal.code,
                refusal.told.as_ref().unwrap_or(&refusal.message)
            )),
        }
    }

    pub(super) fn done(done: Done) -> Self {
        let Done { body, subscription, note } = done;
        Self { status: 200, body, delay: Duration::ZERO, subscription, note }
    }
}

/// A member of a request.
pub(super) trait Members {
    /// A text; absent and null are alike.
    fn text(&self, name: &str) -> Option<&str>;
    /// A text that the operation cannot do without.
    fn need(&self, name: &str) -> Result<&str, Refusal>;
    /// A moment, in ms since 1970.
    fn moment(&self, name: &str) -> Option<u64>;
}

impl Members for Value {
    fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    fn need(&self, name: &str) -> Result<&str, Refusal> {
        self.text(name).ok_or_else(|| Refusal::validation(format!("{name} must not be null")))
    }

    fn moment(&self, name: &str) -> Option<u64> {
        // Seconds with a fraction; rounding takes back what the fraction cannot hold.
        self.get(name).and_then(Value::as_f64).map(|seconds| (seconds * 1000.0).round() as u64)
    }
}

/// A moment as the service writes it: seconds with a fraction.
pub(super) fn moment(ms: u64) -> Value {
    json!(ms as f64 / 1000.0)
}

/// Bytes, from a request.
pub(super) fn blob(value: &Value) -> Result<Vec<u8>, Refusal> {
    let text = value.as_str().unwrap_or_default();
    BASE64.decode(text).map_err(|_| Refusal::unreadable("a blob is no base64"))
}

/// A record as readers get it. A stream that places records by itself hands out no key.
pub(super) fn record(record: &Record, auto: bool) -> Value {
    let mut out = json!({
        "SequenceNumber": record.number.to_string(),
        "ApproximateArrivalTimestamp": moment(record.arrived),
        "Data": BASE64.encode(&record.data),
        "PartitionKey": record.key,
    });
    if auto {
        out.as_object_mut().expect("made as an object above").remove("PartitionKey");
    }
    out
}

/// A sequence number of a request.
pub(super) fn number(text: &str, shard: &str) -> Result<Number, Refusal> {
    text.parse().map_err(|_| {
        Refusal::argument(format!(
            "StartingSequenceNumber {text} used in GetShardIterator on shard {shard} is invalid."
        ))
    })
}
