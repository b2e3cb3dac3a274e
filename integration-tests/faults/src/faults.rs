//! The handle: which rules stand, what is trimmed, which limits are kept; shared by a proxy, the control API and the test.
//!
//! All chance comes from the seed given here, so a run whose calls come in the same order has the same faults.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::rule::{Entries, Fault, Rule};

/// A stream and one of its shards.
pub(crate) type ShardKey = (String, String);

/// The service's read limits of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// `GetRecords` a second; also `GetShardIterator` a second.
    pub reads_per_second: f64,
    /// Bytes of keys and data a second; an answer may overdraw them, and then the shard throttles until they are earned.
    pub bytes_per_second: f64,
    /// A throttled `GetRecords` succeeds with no records instead of failing.
    pub empty: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { reads_per_second: 5.0, bytes_per_second: 2_097_152.0, empty: false }
    }
}

/// Which records of a shard are gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Before {
    /// Those with a smaller sequence number.
    Number(String),
    /// Those that arrived before this moment, in ms since 1970.
    Moment(i64),
}

/// A rule that was added, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// Names it for [`Faults::remove`].
    pub id: u64,
    /// The rule.
    pub rule: Rule,
    /// How often it has applied.
    pub hits: u64,
    /// True while it can still apply.
    pub active: bool,
}

/// Calls of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// All.
    pub calls: u64,
    /// Those that a rule or a limit changed.
    pub faulted: u64,
}

struct Entry {
    id: u64,
    rule: Rule,
    hits: u64,
    added: Instant,
}

impl Entry {
    fn active(&self) -> bool {
        self.rule.times.is_none_or(|times| self.hits < times)
            && self.rule.for_ms.is_none_or(|ms| self.added.elapsed() < Duration::from_millis(ms))
    }
}

struct State {
    rng: StdRng,
    next_id: u64,
    rules: Vec<Entry>,
    limits: Option<Limits>,
    iterator_life: Duration,
    subscription_life: Duration,
    expired: HashMap<Option<ShardKey>, u64>,
    trimmed: HashMap<ShardKey, Before>,
    gone: Vec<ShardKey>,
    retention: HashMap<String, u64>,
    counts: BTreeMap<String, Count>,
}

/// What a call is to suffer.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// First this.
    pub delay: Duration,
    /// Then this, which ends it.
    pub fault: Option<Fault>,
    /// Entries to refuse, with the code.
    pub entries: Vec<(String, Entries)>,
}

/// The handle. Clones are the same.
#[derive(Clone)]
pub struct Faults {
    state: Arc<Mutex<State>>,
}

impl Faults {
    /// No faults yet; chance comes from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            next_id: 1,
            rules: Vec::new(),
            limits: None,
            iterator_life: Duration::from_secs(300),
            subscription_life: Duration::from_secs(300),
            expired: HashMap::new(),
            trimmed: HashMap::new(),
            gone: Vec::new(),
            retention: HashMap::new(),
            counts: BTreeMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule; its id.
    ///
    /// # Errors
    /// When it could never apply, in words.
    pub fn try_add(&self, rule: Rule) -> Result<u64, String> {
        rule.check()?;
        let mut state = self.state();
        let id = state.next_id;
        state.next_id += 1;
        state.rules.push(Entry { id, rule, hits: 0, added: Instant::now() });
        Ok(id)
    }

    /// Adds a rule; its id.
    ///
    /// # Panics
    /// When it could never apply: a mistake in the test.
    #[allow(clippy::must_use_candidate, reason = "most rules go by time or number")]
    pub fn add(&self, rule: Rule) -> u64 {
        match self.try_add(rule) {
            Ok(id) => id,
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes a rule away; how often it had applied, if it was there.
    #[allow(clippy::must_use_candidate, reason = "the count is a by-product")]
    pub fn remove(&self, id: u64) -> Option<u64> {
        let mut state = self.state();
        let place = state.rules.iter().position(|entry| entry.id == id)?;
        Some(state.rules.remove(place).hits)
    }

    /// Takes all rules and limits away. What is trimmed and gone stays so.
    pub fn heal(&self) {
        let mut state = self.state();
        state.rules.clear();
        state.limits = None;
    }

    /// Every rule that was added and not removed.
    #[must_use]
    pub fn rules(&self) -> Vec<Standing> {
        let standing =
            |e: &Entry| Standing { id: e.id, rule: e.rule.clone(), hits: e.hits, active: e.active() };
        self.state().rules.iter().map(standing).collect()
    }

    /// How often a rule has applied.
    #[must_use]
    pub fn hits(&self, id: u64) -> u64 {
        self.state().rules.iter().find(|entry| entry.id == id).map_or(0, |entry| entry.hits)
    }

    /// Calls so far, by operation.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, Count> {
        self.state().counts.clone()
    }

    /// Keeps these limits for every shard, or none.
    pub fn set_limits(&self, limits: Option<Limits>) {
        self.state().limits = limits;
    }

    pub(crate) fn limits(&self) -> Option<Limits> {
        self.state().limits
    }

    /// How long an iterator lives; five minutes at first.
    pub fn set_iterator_life(&self, life: Duration) {
        self.state().iterator_life = life;
    }

    /// How long a subscription lives that the proxy makes itself; five minutes at first.
    pub fn set_subscription_life(&self, life: Duration) {
        self.state().subscription_life = life;
    }

    pub(crate) fn subscription_life(&self) -> Duration {
        self.state().subscription_life
    }

    /// Every iterator made until now is too old: of this shard of this stream, or of all.
    pub fn expire_iterators(&self, shard: Option<(&str, &str)>) {
        let shard = shard.map(|(stream, shard)| (stream.to_owned(), shard.to_owned()));
        self.state().expired.insert(shard, now_ms());
    }

    /// Whether an iterator made then (ms since 1970) is too old.
    pub(crate) fn expired(&self, shard: &ShardKey, made: u64) -> bool {
        let state = self.state();
        let marked = |key: &Option<ShardKey>| state.expired.get(key).is_some_and(|at| made <= *at);
        let age = Duration::from_millis(now_ms().saturating_sub(made));
        age >= state.iterator_life || marked(&None) || marked(&Some(shard.clone()))
    }

    /// The records of a shard before a point are gone. An older position is moved up without a word, as the service does.
    pub fn trim(&self, stream: &str, shard: &str, before: Before) {
        self.state().trimmed.insert((stream.to_owned(), shard.to_owned()), before);
    }

    pub(crate) fn trimmed(&self, shard: &ShardKey) -> Option<Before> {
        self.state().trimmed.get(shard).cloned()
    }

    /// A stream says that it keeps its records so long: what makes an early [`Faults::trim`] believable. 0 is possible here.
    pub fn set_retention(&self, stream: &str, hours: u64) {
        self.state().retention.insert(stream.to_owned(), hours);
    }

    pub(crate) fn retention(&self, stream: &str) -> Option<u64> {
        self.state().retention.get(stream).copied()
    }

    /// A shard is not there any more: all of it has passed its retention.
    pub fn remove_shard(&self, stream: &str, shard: &str) {
        self.state().gone.push((stream.to_owned(), shard.to_owned()));
    }

    pub(crate) fn gone(&self, shard: &ShardKey) -> bool {
        self.state().gone.contains(shard)
    }

    /// What happens to this call.
    pub(crate) fn decide(&self, operation: &str, stream: Option<&str>, shard: Option<&str>) -> Verdict {
        let mut state = self.state();
        let State { rng, rules, counts, .. } = &mut *state;
        let mut verdict = Verdict::default();
        let mut faulted = false;
        for entry in rules.iter_mut() {
            let listing = matches!(entry.rule.fault, Fault::Hide | Fault::HideNew { .. });
            if listing || !entry.active() || !entry.rule.concerns(operation, stream, shard) {
                continue;
            }
            if entry.rule.probability < 1.0 && !rng.random_bool(entry.rule.probability) {
                continue;
            }
            faulted = true;
            entry.hits += 1;
            match &entry.rule.fault {
                Fault::Delay { ms, jitter_ms } => {
                    verdict.delay += Duration::from_millis(ms + rng.random_range(0..=*jitter_ms));
                }
                Fault::FailEntries { code, entries } => verdict.entries.push((code.clone(), entries.clone())),
                fault => {
                    verdict.fault = Some(fault.clone());
                    break;
                }
            }
        }
        let count = counts.entry(operation.to_owned()).or_default();
        count.calls += 1;
        count.faulted += u64::from(faulted);
        verdict
    }

    /// A limit changed the outcome of a call that was counted already.
    pub(crate) fn limited(&self, operation: &str) {
        self.state().counts.entry(operation.to_owned()).or_default().faulted += 1;
    }

    /// Whether a listing leaves this shard out, which the proxy has known for `age`.
    pub(crate) fn hidden(&self, stream: &str, shard: &str, age: Duration) -> bool {
        let mut state = self.state();
        let mut hidden = false;
        for entry in &mut state.rules {
            let meant = match entry.rule.fault {
                Fault::Hide => true,
                Fault::HideNew { age_ms } => age < Duration::from_millis(age_ms),
                _ => false,
            };
            if meant && entry.active() && entry.rule.concerns("ListShards", Some(stream), Some(shard)) {
                entry.hits += 1;
                hidden = true;
            }
        }
        hidden
    }

    /// True with probability `share`.
    pub(crate) fn chance(&self, share: f64) -> bool {
        self.state().rng.random_bool(share.clamp(0.0, 1.0))
    }
}

/// Milliseconds since 1970: the service's clock, for moments that an iterator carries.
pub(crate) fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suffered(faults: &Faults) -> bool {
        faults.decide("GetRecords", Some("s"), Some("a")).fault.is_some()
    }

    #[test]
    fn a_rule_applies_as_often_as_it_says() {
        let faults = Faults::new(1);
        let id = faults.add(Rule::new(Fault::Cut).on("GetRecords").times(2));
        assert_eq!([suffered(&faults), suffered(&faults), suffered(&faults)], [true, true, false]);
        assert_eq!(faults.counts()["GetRecords"], Count { calls: 3, faulted: 2 });
        assert!(!faults.rules()[0].active);
        assert_eq!(faults.remove(id), Some(2));
        assert_eq!(faults.remove(id), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rule_lasts_as_long_as_it_says() {
        let faults = Faults::new(1);
        faults.add(Rule::new(Fault::Cut).lasting(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(suffered(&faults));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!suffered(&faults));
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let run = |seed| {
            let faults = Faults::new(seed);
            faults.add(Rule::new(Fault::Cut).probability(0.5));
            (0..64).map(|_| suffered(&faults)).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let half = run(7).iter().filter(|cut| **cut).count();
        assert!((16..48).contains(&half), "{half} of 64");
    }

    #[test]
    fn delays_add_up_and_the_first_end_wins() {
        let faults = Faults::new(1);
        faults.add(Rule::new(Fault::Delay { ms: 100, jitter_ms: 0 }));
        faults.add(Rule::new(Fault::Delay { ms: 20, jitter_ms: 0 }));
        faults.add(Rule::new(Fault::HalfOpen));
        let unused = faults.add(Rule::new(Fault::Cut));
        let verdict = faults.decide("ListShards", None, None);
        assert_eq!(verdict.delay, Duration::from_millis(120));
        assert_eq!(verdict.fault, Some(Fault::HalfOpen));
        assert_eq!(faults.hits(unused), 0);
        faults.heal();
        assert!(faults.decide("ListShards", None, None).fault.is_none());
    }

    #[test]
    fn iterators_expire_by_mark_and_by_age() {
        let faults = Faults::new(1);
        let shard = ("s".to_owned(), "a".to_owned());
        let now = now_ms();
        assert!(!faults.expired(&shard, now));
        faults.expire_iterators(Some(("s", "b")));
        assert!(!faults.expired(&shard, now));
        faults.expire_iterators(Some(("s", "a")));
        assert!(faults.expired(&shard, now));
        assert!(!faults.expired(&shard, now_ms() + 1000));
        faults.set_iterator_life(Duration::ZERO);
        assert!(faults.expired(&shard, now_ms() + 1000));
    }
}
