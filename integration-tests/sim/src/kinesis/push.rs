//! `SubscribeToShard`, without the wire: who is subscribed to which shard, and what comes next. The pipe of a subscription
//! asks for that when the subscriber has room for more.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{
    Model, Number, Refusal, Throttle,
    answer::{self, Done, Members as _},
    iterator::Start,
    quota::ReadBytes,
    read::{children, millis},
    shard::Record,
};

const LIFE: Duration = Duration::from_secs(300);
/// A subscription younger than this cannot be taken over.
const TAKEOVER_AFTER: Duration = Duration::from_secs(5);
/// One call a second for each consumer and shard.
const CALLS_EVERY: Duration = Duration::from_secs(1);
/// A quiet shard is heard from so often.
const EMPTY_EVENT_EVERY: Duration = Duration::from_secs(5);
const EVENT_RECORDS_MAX: usize = 500;
const EVENT_BYTES_MAX: usize = 256 * 1024;

/// A subscription that is being served.
#[derive(Debug)]
pub struct Subscription {
    stream: String,
    created_at: u64,
    consumer: String,
    place: Number,
    began: Duration,
    heard: Option<Duration>,
    bytes: ReadBytes,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Live,
    /// Another call has it now.
    TakenOver,
    /// The shard's end was told.
    Ended,
}

/// All subscriptions, and when each consumer last called for each shard.
#[derive(Default, Debug)]
pub(super) struct Subscriptions {
    live: BTreeMap<u64, Subscription>,
    last_calls: BTreeMap<(String, u32), Duration>,
    number: u64,
}

/// What comes next on a subscription.
#[derive(Debug)]
pub enum Push {
    /// A `SubscribeToShardEvent`, and so many bytes of records.
    Event(Value, usize),
    /// Nothing now.
    Nothing,
    /// It ends as it should.
    End,
    /// It ends with an exception.
    Refused(Refusal),
}

impl Model {
    pub(super) fn subscribe_to_shard(&mut self, now: Duration, ask: &Value) -> Result<Done, Refusal> {
        ask.need("ConsumerARN")?;
        let (stream, consumer) = self.consumer(now, ask)?;
        let (name, created_at) = (stream.name.clone(), stream.created_at());
        let (consumer, active) = (consumer.arn.clone(), consumer.is_active(now));
        if !active {
            return Err(Refusal::in_use(format!("Consumer {consumer} is not ACTIVE.")));
        }
        let shard = self.stream(&name)?.shard_named(now, ask.need("ShardId")?)?;
        let position = &ask["StartingPosition"];
        let start = Start {
            kind: position.need("Type")?,
            number: position.text("SequenceNumber"),
            moment: position.moment("Timestamp"),
        };
        let place = start.place(now, shard)?;
        let index = shard.index;
        let last = self.subscriptions.last_calls.insert((consumer.clone(), index), now);
        if last.is_some_and(|last| now < last + CALLS_EVERY) {
            return Err(Refusal::limit("Rate exceeded for SubscribeToShard."));
        }
        let mut earlier =
            self.subscriptions.live.values_mut().filter(|one| {
                one.state == State::Live && one.consumer == consumer && one.place.shard == index
            });
        if let Some(earlier) = earlier.next() {
            if now < earlier.began + TAKEOVER_AFTER {
                return Err(Refusal::in_use(format!(
                    "Another active subscription exists for this consumer: {consumer}, shard: {index}."
                )));
            }
            earlier.state = State::TakenOver;
        }
        self.subscriptions.number += 1;
        let id = self.subscriptions.number;
        let note = format!("{name}/{index} {}, subscription {id}", start.told(place));
        let bytes = ReadBytes::default();
        let subscription = Subscription {
            stream: name,
            created_at,
            consumer,
            place,
            began: now,
            heard: None,
            bytes,
            state: State::Live,
        };
        self.subscriptions.live.insert(id, subscription);
        Ok(Done { body: json!({}), subscription: Some(id), note: Some(note) })
    }

    /// The subscriber hung up.
    pub fn hang_up(&mut self, id: u64) {
        self.subscriptions.live.remove(&id);
    }

    /// What comes next on a subscription; no event if there is no room for one. After an end there is nothing more to ask for.
    pub fn push(&mut self, now: Duration, id: u64, room: bool) -> Push {
        let Some(mut subscription) = self.subscriptions.live.remove(&id) else { return Push::End };
        let push = match self.ending(now, &subscription) {
            None if room => self.event(now, &mut subscription),
            ending => ending.unwrap_or(Push::Nothing),
        };
        if matches!(push, Push::Event(..) | Push::Nothing) {
            self.subscriptions.live.insert(id, subscription);
        }
        push
    }

    /// Whether a subscription is over, or is not to be touched.
    fn ending(&mut self, now: Duration, one: &Subscription) -> Option<Push> {
        let dead = self.faults.dead.is_some_and(|moment| one.began <= moment);
        if dead || self.faults.is_half_open(now, &one.stream, one.place.shard) {
            return Some(Push::Nothing);
        }
        match one.state {
            State::Ended => return Some(Push::End),
            State::TakenOver => {
                let message = "Another subscription of this consumer took over.";
                return Some(Push::Refused(Refusal::in_use(message)));
            }
            State::Live if one.began + LIFE <= now => return Some(Push::End),
            State::Live => {}
        }
        let stream = self.streams.get_mut(&one.stream).filter(|stream| stream.created_at() == one.created_at);
        let Some(stream) = stream else { return Some(Push::Refused(Refusal::no_stream(&one.stream))) };
        if !stream.consumers.values().any(|consumer| consumer.arn == one.consumer && consumer.is_active(now))
        {
            return Some(Push::Refused(Refusal::not_found(format!("Consumer {} not found.", one.consumer))));
        }
        stream.shard(now, one.place.shard).err().map(Push::Refused)
    }

    fn event(&mut self, now: Duration, one: &mut Subscription) -> Push {
        let index = one.place.shard;
        let throttled = self.faults.throttled(now, &one.stream, index);
        if throttled == Some(Throttle::Error) || !one.bytes.open(now) {
            return Push::Nothing;
        }
        let stream = self.streams.get_mut(&one.stream).expect("`ending` has seen it");
        let auto = stream.shape.auto;
        let shard = stream.shards.get_mut(&index).expect("`ending` has seen it");
        let rest = shard.from(one.place);
        let records = if throttled.is_some() { &[] } else { fitting(rest) };
        let over = shard.closed.is_some() && records.len() == rest.len();
        let due = one.heard.is_none_or(|heard| heard + EMPTY_EVENT_EVERY <= now);
        if records.is_empty() && !over && !due {
            return Push::Nothing;
        }
        let bytes: usize = records.iter().map(Record::bytes).sum();
        let behind = rest.get(records.len()).map_or(Duration::ZERO, |next| now.saturating_sub(next.stored));
        let listed: Vec<Value> = records.iter().map(|record| answer::record(record, auto)).collect();
        let mut body = json!({ "Records": listed, "MillisBehindLatest": millis(behind) });
        match records.last() {
            Some(last) => one.place = last.number.next(),
            // A quiet shard's number moves too, past one that no record will have.
            None if rest.is_empty() && !over => one.place = shard.advance().next(),
            None => {}
        }
        one.heard = Some(now);
        one.bytes.spend(now, bytes);
        if over {
            one.state = State::Ended;
            body["ChildShards"] = children(stream, index);
        } else {
            body["ContinuationSequenceNumber"] = one.place.before().to_string().into();
        }
        Push::Event(body, bytes)
    }
}

/// What fits into one event.
fn fitting(rest: &[Record]) -> &[Record] {
    let mut bytes = 0;
    let fits = |record: &&Record| {
        bytes += record.bytes();
        bytes <= EVENT_BYTES_MAX
    };
    let count = rest.iter().take(EVENT_RECORDS_MAX).take_while(fits).count();
    &rest[..count.max(rest.len().min(1))]
}
