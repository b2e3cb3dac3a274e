//! `ListShards`: pages, filters, and how late it shows a split.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Model, Refusal,
    answer::{Done, Members as _},
    describe::described,
    fault::Faults,
    iterator::{answer_stream, seal, unseal},
    shard::{Shard, shard_index},
    stream::Stream,
    wall_ms,
};

const PAGE_MAX: usize = 1000;
const TOKEN_LIFE: Duration = Duration::from_secs(300);

/// Which shards are meant.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Filter {
    All,
    After(u32),
    AtHorizon,
    AtLatest,
    At(u64),
    From(u64),
}

impl Filter {
    fn read(ask: &Value) -> Result<Self, Refusal> {
        if let Some(id) = ask.text("ExclusiveStartShardId") {
            return Ok(Self::After(known(id)?));
        }
        let Some(filter) = ask.get("ShardFilter").filter(|filter| !filter.is_null()) else {
            return Ok(Self::All);
        };
        let moment = || filter.moment("Timestamp").ok_or_else(|| Refusal::argument("Must have Timestamp."));
        Ok(match filter.need("Type")? {
            "AFTER_SHARD_ID" => Self::After(known(filter.need("ShardId")?)?),
            "AT_TRIM_HORIZON" => Self::AtHorizon,
            "FROM_TRIM_HORIZON" => Self::All,
            "AT_LATEST" => Self::AtLatest,
            "AT_TIMESTAMP" => Self::At(moment()?),
            "FROM_TIMESTAMP" => Self::From(moment()?),
            other => return Err(Refusal::validation(format!("{other} is not a ShardFilterType."))),
        })
    }

    fn text(&self) -> String {
        match self {
            Self::All => "all 0".into(),
            Self::After(index) => format!("after {index}"),
            Self::AtHorizon => "at-horizon 0".into(),
            Self::AtLatest => "at-latest 0".into(),
            Self::At(moment) => format!("at {moment}"),
            Self::From(moment) => format!("from {moment}"),
        }
    }

    fn of_text(kind: &str, argument: &str) -> Option<Self> {
        Some(match kind {
            "all" => Self::All,
            "after" => Self::After(argument.parse().ok()?),
            "at-horizon" => Self::AtHorizon,
            "at-latest" => Self::AtLatest,
            "at" => Self::At(argument.parse().ok()?),
            "from" => Self::From(argument.parse().ok()?),
            _ => return None,
        })
    }

    fn takes(&self, shard: &Shard, now: Duration, retention: Duration) -> bool {
        let opened = wall_ms(shard.opened);
        let closed = shard.closed.map(|closed| wall_ms(closed.at));
        let lived = |moment: u64| opened <= moment && closed.is_none_or(|closed| closed >= moment);
        match *self {
            Self::All => true,
            Self::After(index) => shard.index > index,
            // What was open at the horizon; a stream younger than its retention has its first shards there.
            Self::AtHorizon => match now.checked_sub(retention) {
                Some(horizon) => lived(wall_ms(horizon)),
                None => shard.parents.is_empty(),
            },
            Self::AtLatest => closed.is_none(),
            Self::At(moment) => lived(moment),
            Self::From(moment) => closed.is_none_or(|closed| closed >= moment),
        }
    }
}

fn known(id: &str) -> Result<u32, Refusal> {
    shard_index(id).ok_or_else(|| Refusal::argument(format!("{id} is not a shard id.")))
}

/// What a `NextToken` holds.
struct Token {
    stream: String,
    created_at: u64,
    filter: Filter,
    /// The last shard of the page before.
    after: u32,
    made: Duration,
}

impl Token {
    fn seal(&self) -> String {
        let Self { stream, created_at, filter, after, made } = self;
        seal(&format!("page {stream} {created_at} {} {after} {}", filter.text(), made.as_micros()))
    }

    fn open(token: &str) -> Result<Self, Refusal> {
        let read = || {
            let text = unseal(token)?;
            let words: Vec<&str> = text.split(' ').collect();
            let ["page", stream, created_at, kind, argument, after, made] = words.as_slice() else {
                return None;
            };
            Some(Self {
                stream: (*stream).to_owned(),
                created_at: created_at.parse().ok()?,
                filter: Filter::of_text(kind, argument)?,
                after: after.parse().ok()?,
                made: Duration::from_micros(made.parse().ok()?),
            })
        };
        read().ok_or_else(|| Refusal::argument("Invalid NextToken."))
    }
}

impl Model {
    pub(super) fn list_shards(&mut self, now: Duration, ask: &Value) -> Result<Done, Refusal> {
        let max = match ask.get("MaxResults").and_then(Value::as_u64) {
            None => PAGE_MAX,
            Some(max @ 1..=10_000) => (max as usize).min(PAGE_MAX),
            Some(max) => {
                return Err(Refusal::validation(format!("MaxResults {max} is not within 1 and 10000.")));
            }
        };
        let (name, created_at, filter, after) = match ask.text("NextToken") {
            Some(_)
                if ask.text("StreamName").is_some()
                    || ask.get("ShardFilter").is_some_and(Value::is_object) =>
            {
                return Err(Refusal::argument("NextToken and StreamName cannot be provided together."));
            }
            Some(text) => {
                let token = Token::open(text)?;
                if token.made + TOKEN_LIFE < now {
                    return Err(Refusal::expired_token());
                }
                (token.stream, Some(token.created_at), token.filter, Some(token.after))
            }
            None => (answer_stream(ask)?.to_owned(), None, Filter::read(ask)?, None),
        };
        let stream = self.stream(&name)?;
        stream.age(now);
        let (name, created) = (stream.name.clone(), stream.created_at());
        if created_at.is_some_and(|earlier| earlier != created) {
            return Err(Refusal::no_stream(&name));
        }
        let stream = &self.streams[&name];
        let retention = stream.shape.retention;
        let mut wanted = stream.shards.values().filter(|shard| {
            after.is_none_or(|after| shard.index > after)
                && listed(&self.faults, now, stream, shard)
                && filter.takes(shard, now, retention)
        });
        let page: Vec<&Shard> = wanted.by_ref().take(max).collect();
        let shown = |shard: &&Shard| {
            let closed = shard.closed.filter(|closed| closed.at + self.faults.listing_lag <= now);
            described(shard, closed.map(|closed| closed.number))
        };
        let mut body = json!({ "Shards": page.iter().map(shown).collect::<Vec<_>>() });
        let mut note = format!("{name} {} shards", page.len());
        if let (Some(last), true) = (page.last(), wanted.next().is_some()) {
            let token = Token { stream: name, created_at: created, filter, after: last.index, made: now };
            body["NextToken"] = token.seal().into();
            note += ", more";
        }
        Ok(Done::new(body, note))
    }
}

/// Whether a listing shows this shard yet, and still.
pub(super) fn listed(faults: &Faults, now: Duration, stream: &Stream, shard: &Shard) -> bool {
    let old = shard.parents.is_empty() || shard.opened + faults.listing_lag <= now;
    old && !shard.gone && !faults.hidden(now, &stream.name, shard.index)
}
