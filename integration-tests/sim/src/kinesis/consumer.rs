//! Registered consumers of enhanced fan-out: made and unmade in their own time.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Model, Refusal,
    answer::{Done, Members as _},
    stream::Stream,
    wall_ms,
};

const CONSUMERS_MAX: usize = 20;
/// How long a consumer is CREATING, and DELETING.
const SETTLES_IN: Duration = Duration::from_secs(3);

/// A consumer of a stream.
#[derive(Clone, Debug)]
pub(super) struct Consumer {
    pub name: String,
    pub arn: String,
    pub created: Duration,
    pub deleted: Option<Duration>,
}

impl Consumer {
    fn is_gone(&self, now: Duration) -> bool {
        self.deleted.is_some_and(|at| at + SETTLES_IN <= now)
    }

    pub(super) fn is_active(&self, now: Duration) -> bool {
        self.deleted.is_none() && self.created + SETTLES_IN <= now
    }

    fn described(&self, now: Duration) -> Value {
        let status = match self.deleted {
            Some(_) => "DELETING",
            None if self.is_active(now) => "ACTIVE",
            None => "CREATING",
        };
        json!({
            "ConsumerName": self.name,
            "ConsumerARN": self.arn,
            "ConsumerStatus": status,
            "ConsumerCreationTimestamp": wall_ms(self.created) / 1000,
        })
    }
}

impl Stream {
    fn settle(&mut self, now: Duration) {
        self.consumers.retain(|_, consumer| !consumer.is_gone(now));
    }
}

impl Model {
    pub(super) fn register_stream_consumer(&mut self, now: Duration, ask: &Value) -> Result<Done, Refusal> {
        let stream = self.stream(ask.need("StreamARN")?)?;
        stream.settle(now);
        let name = ask.need("ConsumerName")?;
        if stream.consumers.contains_key(name) {
            return Err(Refusal::in_use(format!("Consumer {name} already exists.")));
        }
        if stream.consumers.len() >= CONSUMERS_MAX {
            return Err(Refusal::limit(format!("A stream has at most {CONSUMERS_MAX} consumers.")));
        }
        let arn = format!("{}/consumer/{name}:{}", stream.arn(), wall_ms(now) / 1000);
        let consumer = Consumer { name: name.to_owned(), arn, created: now, deleted: None };
        let body = json!({ "Consumer": consumer.described(now) });
        stream.consumers.insert(name.to_owned(), consumer);
        Ok(Done::new(body, format!("{} {name}", stream.name)))
    }

    pub(super) fn describe_stream_consumer(&mut self, now: Duration, ask: &Value) -> Result<Done, Refusal> {
        let (stream, consumer) = self.consumer(now, ask)?;
        let mut description = consumer.described(now);
        description["StreamARN"] = stream.arn().into();
        let note = format!("{} {}", stream.name, consumer.name);
        Ok(Done::new(json!({ "ConsumerDescription": description }), note))
    }

    pub(super) fn deregister_stream_consumer(&mut self, now: Duration, ask: &Value) -> Result<Done, Refusal> {
        let (stream, consumer) = self.consumer(now, ask)?;
        let (stream, name) = (stream.name.clone(), consumer.name.clone());
        let consumers = &mut self.streams.get_mut(&stream).expect("found above").consumers;
        consumers.get_mut(&name).expect("found above").deleted.get_or_insert(now);
        Ok(Done::new(json!({}), format!("{stream} {name}")))
    }

    pub(super) fn list_stream_consumers(&mut self, now: Duration, ask: &Value) -> Result<Done, Refusal> {
        let stream = self.stream(ask.need("StreamARN")?)?;
        stream.settle(now);
        let consumers: Vec<Value> = stream.consumers.values().map(|one| one.described(now)).collect();
        let note = format!("{} {} consumers", stream.name, consumers.len());
        Ok(Done::new(json!({ "Consumers": consumers }), note))
    }

    /// The consumer of an ARN, or of a stream's ARN and a name.
    pub(super) fn consumer(&mut self, now: Duration, ask: &Value) -> Result<(&Stream, &Consumer), Refusal> {
        let arn = ask.text("ConsumerARN");
        let stream = match arn.and_then(|arn| arn.split_once("/consumer/")) {
            Some((stream, _)) => stream,
            None => ask.need("StreamARN")?,
        };
        let stream = self.stream(stream)?;
        stream.settle(now);
        let stream = &*stream;
        let name = ask.text("ConsumerName");
        let mut consumers = stream.consumers.values();
        let found = consumers.find(|one| Some(one.arn.as_str()) == arn || Some(one.name.as_str()) == name);
        let found = found.ok_or_else(|| {
            Refusal::not_found(format!("Consumer {} not found.", arn.or(name).unwrap_or_default()))
        })?;
        Ok((stream, found))
    }
}
