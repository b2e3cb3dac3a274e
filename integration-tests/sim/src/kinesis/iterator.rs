//! Shard iterators and page tokens: opaque to who holds them, and all that the service knows of them is in them. So an
//! iterator can be used any number of times, and by anybody, for five minutes.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde_json::Value;

use super::{Model, Number, Refusal, answer, answer::Members, quota::READS_PER_SECOND, shard::Shard};

const ITERATOR_LIFE: Duration = Duration::from_secs(300);

/// Where to read on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Iterator {
    pub stream: String,
    pub created_at: u64,
    /// The next number that may be read; tells the shard too.
    pub place: Number,
    pub made: Duration,
}

impl Iterator {
    pub(super) fn token(&self) -> String {
        let Self { stream, created_at, place, made } = self;
        seal(&format!("iterator {stream} {created_at} {place} {}", made.as_micros()))
    }

    pub(super) fn open(token: &str) -> Result<Self, Refusal> {
        let read = || {
            let text = unseal(token)?;
            let mut words = text.split(' ');
            if words.next()? != "iterator" {
                return None;
            }
            Some(Self {
                stream: words.next()?.to_owned(),
                created_at: words.next()?.parse().ok()?,
                place: words.next()?.parse().ok()?,
                made: Duration::from_micros(words.next()?.parse().ok()?),
            })
        };
        read().ok_or_else(|| Refusal::argument("Invalid ShardIterator."))
    }

    pub(super) fn is_expired(&self, now: Duration, expired: Option<Duration>) -> bool {
        self.made + ITERATOR_LIFE < now || expired.is_some_and(|moment| self.made <= moment)
    }
}

/// What nobody but the service can read.
pub(super) fn seal(text: &str) -> String {
    format!("AAAAAAAAAAE{}", BASE64.encode(text))
}

pub(super) fn unseal(token: &str) -> Option<String> {
    let bytes = BASE64.decode(token.strip_prefix("AAAAAAAAAAE")?).ok()?;
    String::from_utf8(bytes).ok()
}

/// Where a reader begins: the members of `GetShardIterator`, or of a `StartingPosition`.
pub(super) struct Start<'a> {
    pub kind: &'a str,
    pub number: Option<&'a str>,
    pub moment: Option<u64>,
}

impl Start<'_> {
    /// The first number that is meant. LATEST is decided here and now, once.
    pub(super) fn place(&self, now: Duration, shard: &Shard) -> Result<Number, Refusal> {
        let number = || {
            let text = self.number.ok_or_else(|| Refusal::argument("Must have StartingSequenceNumber."))?;
            let number = answer::number(text, &shard.id())?;
            if shard.owns(number) {
                return Ok(number);
            }
            Err(Refusal::argument(format!(
                "StartingSequenceNumber {text} used in GetShardIterator on shard {} is invalid because it did not \
                 come from this shard.",
                shard.id()
            )))
        };
        match self.kind {
            "TRIM_HORIZON" => Ok(shard.first()),
            "LATEST" => Ok(shard.tip()),
            "AT_SEQUENCE_NUMBER" => number(),
            "AFTER_SEQUENCE_NUMBER" => Ok(number()?.next()),
            "AT_TIMESTAMP" => {
                let moment = self.moment.ok_or_else(|| Refusal::argument("Must have Timestamp."))?;
                if moment > super::wall_ms(now) {
                    let message = "The timestampInMillis parameter cannot be greater than the current time.";
                    return Err(Refusal::argument(message));
                }
                Ok(shard.since(moment))
            }
            other => Err(Refusal::validation(format!("{other} is not a ShardIteratorType."))),
        }
    }

    /// For the story.
    pub(super) fn told(&self, place: Number) -> String {
        format!("{} at {}", self.kind, place.short())
    }
}

impl Model {
    pub(super) fn get_shard_iterator(&mut self, now: Duration, ask: &Value) -> Result<answer::Done, Refusal> {
        let stream = self.stream(answer_stream(ask)?)?;
        let (name, created_at) = (stream.name.clone(), stream.created_at());
        let shard = stream.shard_named(now, ask.need("ShardId")?)?;
        let id = shard.id();
        if !shard.iterators.take(now, READS_PER_SECOND) {
            return Err(Refusal::throughput(&name, &id));
        }
        let start = Start {
            kind: ask.need("ShardIteratorType")?,
            number: ask.text("StartingSequenceNumber"),
            moment: ask.moment("Timestamp"),
        };
        let place = start.place(now, shard)?;
        let note = format!("{name}/{} {}", shard.index, start.told(place));
        let iterator = Iterator { stream: name, created_at, place, made: now };
        Ok(answer::Done::new(serde_json::json!({ "ShardIterator": iterator.token() }), note))
    }
}

/// The stream that a request means, by name or ARN.
pub(super) fn answer_stream(ask: &Value) -> Result<&str, Refusal> {
    ask.text("StreamARN")
        .or_else(|| ask.text("StreamName"))
        .ok_or_else(|| Refusal::argument("Either StreamName or StreamARN must be provided."))
}
