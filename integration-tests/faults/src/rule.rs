//! What may go wrong, with which calls, and how often: the vocabulary of the fault layer, as Rust and as JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The operations that a rule may name: a mistyped one would never apply and nobody would notice.
const OPERATIONS: [&str; 24] = [
    "AddTagsToStream",
    "CreateStream",
    "DecreaseStreamRetentionPeriod",
    "DeleteStream",
    "DeregisterStreamConsumer",
    "DescribeLimits",
    "DescribeStream",
    "DescribeStreamConsumer",
    "DescribeStreamSummary",
    "GetRecords",
    "GetShardIterator",
    "IncreaseStreamRetentionPeriod",
    "ListShards",
    "ListStreamConsumers",
    "ListStreams",
    "MergeShards",
    "PutRecord",
    "PutRecords",
    "RegisterStreamConsumer",
    "SplitShard",
    "SubscribeToShard",
    EVENT,
    "UpdateShardCount",
    "UpdateStreamMode",
];

/// The operation of one event within a subscription that is under way.
pub(crate) const EVENT: &str = "SubscribeToShardEvent";

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// It is answered with this error and not carried out. Within a subscription: an exception, then the end.
    Error {
        /// The error's name, for example `ProvisionedThroughputExceededException`.
        code: String,
        /// HTTP status.
        status: u16,
    },
    /// `GetRecords` succeeds with no records and the same place, as a throttled shard may answer. Within a subscription: it
    /// ends without a word.
    Empty,
    /// `PutRecords`: these entries are refused with this code and not stored, the others are.
    FailEntries {
        /// The error's name.
        code: String,
        /// Which.
        entries: Entries,
    },
    /// It takes so much longer, and up to `jitter_ms` more by chance; other faults may follow.
    Delay {
        /// At least.
        ms: u64,
        /// More, at most.
        #[serde(default)]
        jitter_ms: u64,
    },
    /// The connection is reset; the endpoint never sees the call.
    Cut,
    /// The endpoint carries it out; then the connection is reset.
    LoseAnswer,
    /// Nothing happens, for as long as the caller waits.
    HalfOpen,
    /// The endpoint carries it out; the answer never comes.
    SwallowAnswer,
    /// `GetRecords`: the iterator is too old.
    ExpireIterator,
    /// `ListShards` leaves the rule's shard out.
    Hide,
    /// `ListShards` leaves out every shard that this proxy saw first less than so long ago.
    HideNew {
        /// Its age, below which it is hidden.
        age_ms: u64,
    },
}

impl Fault {
    /// A throttled shard.
    #[must_use]
    pub fn throttled() -> Self {
        Self::Error { code: "ProvisionedThroughputExceededException".to_owned(), status: 400 }
    }

    /// A service that is down behind its front.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::Error { code: "ServiceUnavailable".to_owned(), status: 503 }
    }

    /// The only operation that it can happen to, if there is but one.
    fn only(&self) -> Option<&'static [&'static str]> {
        match self {
            Self::Empty => Some(&["GetRecords", EVENT]),
            Self::ExpireIterator => Some(&["GetRecords"]),
            Self::FailEntries { .. } => Some(&["PutRecords"]),
            Self::Hide | Self::HideNew { .. } => Some(&["ListShards"]),
            _ => None,
        }
    }
}

/// Some entries of a `PutRecords`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entries {
    /// Every one.
    All,
    /// Each with this probability.
    Share(f64),
    /// The first so many of a request.
    First(usize),
    /// Those at these places of a request, from 0.
    At(Vec<usize>),
    /// Those with these partition keys.
    Keys(Vec<String>),
}

/// A fault and the calls that it happens to. With nothing but a fault: all calls, always, until it is removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What happens.
    pub fault: Fault,
    /// To these operations; to all if empty. `SubscribeToShardEvent` is one event of a subscription under way.
    #[serde(default)]
    pub operations: Vec<String>,
    /// Only of this stream.
    #[serde(default)]
    pub stream: Option<String>,
    /// Only of this shard: calls that name one, or whose iterator belongs to it.
    #[serde(default)]
    pub shard: Option<String>,
    /// To each call with this probability.
    #[serde(default = "always")]
    pub probability: f64,
    /// To the next so many, then never again.
    #[serde(default)]
    pub times: Option<u64>,
    /// For so long, then never again.
    #[serde(default)]
    pub for_ms: Option<u64>,
}

fn always() -> f64 {
    1.0
}

impl Rule {
    /// `fault` to every call.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        let (operations, probability) = (Vec::new(), 1.0);
        Self { fault, operations, stream: None, shard: None, probability, times: None, for_ms: None }
    }

    /// To this operation (too).
    #[must_use]
    pub fn on(mut self, operation: &str) -> Self {
        self.operations.push(operation.to_owned());
        self
    }

    /// Only of this stream.
    #[must_use]
    pub fn stream(mut self, stream: &str) -> Self {
        self.stream = Some(stream.to_owned());
        self
    }

    /// Only of this shard.
    #[must_use]
    pub fn shard(mut self, shard: &str) -> Self {
        self.shard = Some(shard.to_owned());
        self
    }

    /// To each call with this probability.
    #[must_use]
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    /// To the next so many.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// For so long.
    #[must_use]
    pub fn lasting(mut self, time: Duration) -> Self {
        self.for_ms = Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Refuses what could never apply.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(unknown) = self.operations.iter().find(|name| !OPERATIONS.contains(&name.as_str())) {
            return Err(format!("operation `{unknown}` is not known"));
        }
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(format!("probability {} is not between 0 and 1", self.probability));
        }
        if let Some(only) = self.fault.only()
            && !self.operations.is_empty()
            && !self.operations.iter().any(|name| only.contains(&name.as_str()))
        {
            return Err(format!("{:?} happens to {} only", self.fault, only.join(" and ")));
        }
        match &self.fault {
            Fault::Error { status, .. } if !(400..600).contains(status) => {
                Err(format!("status {status} is no error"))
            }
            Fault::Hide if self.shard.is_none() => Err("hide needs a shard".to_owned()),
            Fault::FailEntries { .. } if self.shard.is_some() => {
                Err("entries are chosen by place or key, not by shard".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Whether it is about such a call at all.
    pub(crate) fn concerns(&self, operation: &str, stream: Option<&str>, shard: Option<&str>) -> bool {
        let named = self.operations.is_empty() || self.operations.iter().any(|name| name == operation);
        // Without a name an event is not meant: "every call" of a subscription is its request.
        let event = operation != EVENT || !self.operations.is_empty();
        named
            && event
            && self.fault.only().is_none_or(|only| only.contains(&operation))
            && self.stream.as_deref().is_none_or(|wanted| Some(wanted) == stream)
            && self.shard.as_deref().is_none_or(|wanted| Some(wanted) == shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_as_json() {
        let text = r#"{"operations":["GetRecords"],"shard":"shardId-000000000001","times":3,"fault":{"kind":"error","code":"X","status":500}}"#;
        let rule: Rule = serde_json::from_str(text).unwrap();
        let fault = Fault::Error { code: "X".to_owned(), status: 500 };
        assert_eq!(rule, Rule::new(fault).on("GetRecords").shard("shardId-000000000001").times(3));
        let entries = r#"{"kind":"fail_entries","code":"InternalFailure","entries":{"share":0.5}}"#;
        let fault: Fault = serde_json::from_str(entries).unwrap();
        assert_eq!(
            fault,
            Fault::FailEntries { code: "InternalFailure".to_owned(), entries: Entries::Share(0.5) }
        );
        assert!(serde_json::from_str::<Rule>(r#"{"fault":{"kind":"cut"},"sharb":"x"}"#).is_err());
    }

    #[test]
    fn what_could_never_apply_is_refused() {
        assert!(Rule::new(Fault::Cut).on("GetRecord").check().is_err());
        assert!(Rule::new(Fault::Empty).on("PutRecords").check().is_err());
        assert!(Rule::new(Fault::Cut).probability(1.5).check().is_err());
        assert!(Rule::new(Fault::Hide).check().is_err());
        assert!(Rule::new(Fault::Error { code: String::new(), status: 200 }).check().is_err());
        assert!(Rule::new(Fault::Hide).shard("shardId-000000000000").check().is_ok());
        assert!(Rule::new(Fault::Cut).on("GetRecords").on(EVENT).check().is_ok());
    }

    #[test]
    fn a_rule_concerns_what_it_names() {
        let rule = Rule::new(Fault::Cut).on("GetRecords").stream("s").shard("a");
        assert!(rule.concerns("GetRecords", Some("s"), Some("a")));
        assert!(!rule.concerns("GetRecords", Some("s"), Some("b")));
        assert!(!rule.concerns("GetRecords", Some("t"), Some("a")));
        assert!(!rule.concerns("PutRecords", Some("s"), Some("a")));
        assert!(!rule.concerns("GetRecords", Some("s"), None));
        assert!(Rule::new(Fault::Cut).concerns("ListShards", None, None));
        assert!(!Rule::new(Fault::Cut).concerns(EVENT, None, None));
        assert!(!Rule::new(Fault::Empty).concerns("PutRecords", None, None));
    }
}
