//! Lists the splits of each source, by the leader alone, and merges what it sees into the split table (`logic::lineage`).
//!
//! Every `discovery_interval`; at once when a reader saw the end of a split or an `End` became durable; then again every
//! 200 ms until the open splits own the whole key space, for a few tries. A split is *gone* only after two complete listings
//! without it and when the service says so itself; if a sink was not through with it, that is a data loss and is told (S7).
//! Errors wait and are shown; they remove nothing.
//!
//! A long listing takes several commits. Until the last one of a source's first listing has landed, the source's object says
//! that the listing is due, and the next leader completes it from the same pinned start (S9).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use connector::{Listing, Source};
use logic::{
    lineage::{self, Merge, Remembered},
    mutant,
};
use model::{Creation, ObjectId, Position, SourceSpec, SplitId, SplitRecord, StartFrom};
use opentelemetry::KeyValue;
use store::{Guard, ObjectKey, ObjectRecord, Spec, SplitKey, Write};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    error::{Error, ErrorKind, Result},
    events::Level,
    term::{Outcome, State, Term},
};

/// One listing, all its pages.
const LISTING_WITHIN: Duration = Duration::from_secs(30);

/// Between two listings that follow each other closely.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How often a source is listed in a row while children are missing.
const AGAIN_MAX: u32 = 25;

/// Split records in one transaction.
const RECORDS_MAX: usize = 100;

/// What the term knows of the discovery of one source.
#[derive(Default)]
pub(crate) struct SourceState {
    /// List now.
    wake: Arc<Notify>,
    /// What the last listing failed with; empty when it worked.
    pub error: String,
    /// When it last worked.
    pub listed_at: Option<Duration>,
    /// Parts of the key space that no known split owns.
    pub holes: usize,
    /// How long the source keeps its records, if it says.
    pub retention: Option<Duration>,
    remembered: Remembered,
}

impl State {
    /// Has a source listed at once.
    pub fn wake_discovery(&self, source: ObjectId) {
        if let Some(source) = self.discovery.get(&source) {
            source.wake.notify_one();
        }
    }
}

/// Keeps one loop per source running, until the term ends.
pub(crate) async fn run(term: Arc<Term>) {
    let mut loops: BTreeMap<ObjectId, CancellationToken> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let wanted: BTreeSet<ObjectId> = {
            let state = term.state();
            let live = state.memory.desired.sources.iter().filter(|(_, source)| !source.dropping);
            live.map(|(id, _)| *id).collect()
        };
        loops.retain(|id, cancel| {
            let keep = wanted.contains(id);
            if !keep {
                cancel.cancel();
            }
            keep
        });
        for id in wanted {
            loops.entry(id).or_insert_with(|| {
                let cancel = term.cancel.child_token();
                term.state().discovery.entry(id).or_default();
                tasks.spawn(follow(Arc::clone(&term), id, cancel.clone()));
                cancel
            });
        }
        tokio::select! {
            biased;
            () = term.cancel.cancelled() => return,
            Some(_) = tasks.join_next() => {}
            () = term.sources_changed.notified() => {}
        }
    }
}

/// Lists one source again and again, until it is dropped or the term ends.
async fn follow(term: Arc<Term>, id: ObjectId, cancel: CancellationToken) {
    let wake = match term.state().discovery.get(&id) {
        Some(source) => Arc::clone(&source.wake),
        None => return,
    };
    let mut built: Option<(u64, Arc<dyn Source>)> = None;
    let mut again = 0;
    loop {
        let Some(spec) = term.state().memory.source(id).cloned() else { return };
        let listed = list(&term, &spec, &mut built, &cancel).await;
        let complete = note(&term, &spec, listed);
        again = if complete { 0 } else { again + 1 };
        let settled = complete || again > AGAIN_MAX;
        let pause = if settled { interval(&spec, term.config.discovery_interval) } else { AGAIN_AFTER };
        let woken = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = wake.notified() => true,
            () = tokio::time::sleep(pause) => false,
        };
        if woken {
            again = 0;
        }
    }
}

/// How often a source is listed: its own option, whatever its connector calls the first part of that, or the coordinator's
/// setting.
fn interval(spec: &SourceSpec, configured: Duration) -> Duration {
    let own = spec.options.iter().find(|(name, _)| name.ends_with(".discovery_interval_ms"));
    own.and_then(|(_, value)| value.parse().ok()).map_or(configured, Duration::from_millis)
}

/// Keeps what came of a listing for `status`. `true` if nothing asks for another one soon.
fn note(term: &Term, spec: &SourceSpec, listed: Result<usize>) -> bool {
    let mut state = term.state();
    let Some(source) = state.discovery.get_mut(&spec.id) else { return true };
    match listed {
        Ok(unlisted) => {
            source.error.clear();
            source.listed_at = Some(term.clock.now());
            unlisted == 0
        }
        Err(error) if error.kind == ErrorKind::NotLeader => true,
        Err(error) => {
            let text = error.to_string();
            if source.error != text {
                let labels = [("source", spec.name.as_str())];
                term.events.tell(Level::Warn, "discovery_failed", text.as_str(), &labels);
                source.error = text;
            }
            true
        }
    }
}

/// Asks the service, within a deadline and until `cancel`. Only what is asked is given up half way, never what is stored.
async fn asked<T>(
    spec: &SourceSpec,
    cancel: &CancellationToken,
    answer: impl Future<Output = connector::Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::not_leader()),
        answer = tokio::time::timeout(LISTING_WITHIN, answer) => match answer {
            Ok(answer) => answer.map_err(|error| unlisted(spec, &error.to_string())),
            Err(_) => Err(unlisted(spec, "no answer within 30 s")),
        },
    }
}

/// One listing and what follows from it. Says how many parts of the key space no open split owns yet.
async fn list(
    term: &Term,
    spec: &SourceSpec,
    built: &mut Option<(u64, Arc<dyn Source>)>,
    cancel: &CancellationToken,
) -> Result<usize> {
    let source = match built {
        Some((revision, source)) if *revision == spec.revision => Arc::clone(source),
        _ => {
            let registry = term.state().memory.registry.clone();
            let source = registry
                .build_source(spec)
                .map_err(|error| Error::new(ErrorKind::Config, error.to_string()))?;
            *built = Some((spec.revision, Arc::clone(&source)));
            source
        }
    };
    let listing = asked(spec, cancel, source.discover()).await?;
    let ask = take(term, spec, &listing).await?;
    let mut confirmed = Vec::new();
    for split in ask {
        if asked(spec, cancel, source.is_gone(&split)).await? || mutant::on("hidden_is_gone") {
            confirmed.push(split);
        }
    }
    bury(term, spec, &confirmed).await?;
    let mut state = term.state();
    let empty = lineage::Table::default();
    let table = state.memory.observed.splits.get(&spec.id).unwrap_or(&empty);
    let holes = lineage::holes(table, listing.creation).len();
    let open = lineage::unlisted(table, listing.creation).len();
    if let Some(source) = state.discovery.get_mut(&spec.id) {
        source.holes = holes;
        source.retention = listing.retention;
    }
    Ok(open)
}

fn unlisted(spec: &SourceSpec, why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("splits of source `{}` could not be listed: {why}", spec.name))
}

/// Merges a complete listing into the table. Says which splits the service should be asked about.
pub(crate) async fn take(term: &Term, spec: &SourceSpec, listing: &Listing) -> Result<Vec<SplitId>> {
    let _one_at_a_time = term.listing.lock().await;
    let spec = &known_stream(term, spec, listing.creation).await?;
    let (merge, reshards): (Merge, _) = {
        let mut state = term.state();
        let State { memory, discovery, .. } = &mut *state;
        let empty = lineage::Table::default();
        let table = memory.observed.splits.get(&spec.id).unwrap_or(&empty);
        let remembered = &mut discovery.entry(spec.id).or_default().remembered;
        let listed = (listing.creation, listing.splits.as_slice());
        let due = memory.view.objects.get(&spec.id).is_some_and(|object| object.value.listing_due);
        let first = lineage::First { creation: spec.creation, start: &spec.start, due };
        let ours = clock::wall();
        let now = lineage::Now { ours, theirs: listing.now.unwrap_or(ours) };
        let merge = lineage::merge(table, listed, first, remembered, now);
        let reshards = reshards(table, listing, &merge.discovered);
        (merge, reshards)
    };
    put(term, spec, &merge.put).await?;
    for split in &merge.discovered {
        let labels = [("source", spec.name.as_str()), ("split", split.name())];
        let message = format!("split `{split}` of source `{}` discovered", spec.name);
        term.events.tell(Level::Info, "split_discovered", message, &labels);
    }
    for (kind, events) in reshards {
        term.meters.reshards.add(events as u64, &[KeyValue::new("kind", kind)]);
    }
    tell_gone(term, spec, &merge.buried);
    if !merge.put.is_empty() {
        term.nudge.notify_one();
    }
    Ok(merge.ask)
}

/// How many splits and merges the splits that were just discovered come from, as far as their parents were known before.
fn reshards(table: &lineage::Table, listing: &Listing, discovered: &[SplitId]) -> [(&'static str, usize); 2] {
    let new = listing.splits.iter().filter(|split| discovered.contains(&split.id));
    let (mut merges, mut parents) = (0, BTreeSet::new());
    for split in new {
        match split.parents.as_slice() {
            [parent] if table.contains_key(parent) => _ = parents.insert(parent),
            [first, second] if table.contains_key(first) || table.contains_key(second) => merges += 1,
            _ => {}
        }
    }
    // Of the two children of a split one may be listed before the other.
    let has_child = |parent: &SplitId| {
        table.values().any(|record| record.parents.iter().any(|name| name == parent.name()))
    };
    parents.retain(|parent| !has_child(parent));
    [("split", parents.len()), ("merge", merges)]
}

/// A source that was created before its stream could be listed belongs to the stream that its first listing shows.
async fn known_stream(term: &Term, spec: &SourceSpec, creation: Creation) -> Result<SourceSpec> {
    let (guard, write, known) = {
        let state = term.state();
        let memory = &state.memory;
        let due = memory.view.objects.get(&spec.id).filter(|object| object.value.listing_due);
        // As stored, which may be newer than what was listed with.
        let Some((object, Spec::Source(stored))) = due.map(|object| (object, &object.value.spec)) else {
            return Ok(spec.clone());
        };
        if stored.creation != Creation(0) {
            return Ok(spec.clone());
        }
        let known = SourceSpec { creation, ..SourceSpec::clone(stored) };
        let record = ObjectRecord { spec: Spec::Source(Box::new(known.clone())), ..object.value.clone() };
        let guard = Guard::Unchanged(memory.keys.object(spec.id), object.mod_revision);
        (guard, memory.keys.put::<ObjectKey>(&spec.id, &record), known)
    };
    match term.commit(vec![guard], vec![write]).await? {
        Outcome::Done(_) => Ok(known),
        Outcome::Lost(_) => Err(unlisted(spec, "the source has just been changed")),
    }
}

async fn bury(term: &Term, spec: &SourceSpec, confirmed: &[SplitId]) -> Result<()> {
    if confirmed.is_empty() {
        return Ok(());
    }
    let records = {
        let state = term.state();
        let table = state.memory.observed.splits.get(&spec.id);
        table.map(|table| lineage::bury(table, confirmed, clock::wall())).unwrap_or_default()
    };
    put(term, spec, &records).await?;
    let gone: Vec<SplitId> = records.into_iter().map(|(split, _)| split).collect();
    tell_gone(term, spec, &gone);
    term.nudge.notify_one();
    Ok(())
}

/// Writes split records, guarded by their source: what is being dropped gets no new keys (I7). The last part of a first listing
/// takes the mark away that it is due.
async fn put(term: &Term, spec: &SourceSpec, records: &[(SplitId, SplitRecord)]) -> Result<()> {
    let mut left = records;
    loop {
        let (part, rest) = left.split_at(left.len().min(RECORDS_MAX));
        let (guard, writes) = {
            let state = term.state();
            let memory = &state.memory;
            let Some(object) = memory.view.objects.get(&spec.id).filter(|object| !object.value.dropping)
            else {
                return Ok(());
            };
            let put = |(split, record): &(SplitId, SplitRecord)| {
                memory.keys.put::<SplitKey>(&(spec.id, split.clone()), record)
            };
            let mut writes: Vec<Write> = part.iter().map(put).collect();
            if rest.is_empty() && object.value.listing_due {
                let record = ObjectRecord { listing_due: false, ..object.value.clone() };
                writes.push(memory.keys.put::<ObjectKey>(&spec.id, &record));
            }
            (Guard::Unchanged(memory.keys.object(spec.id), object.mod_revision), writes)
        };
        if !writes.is_empty()
            && let Outcome::Lost(_) = term.commit(vec![guard], writes).await?
        {
            return Err(unlisted(spec, "the source has just been changed"));
        }
        if rest.is_empty() {
            return Ok(());
        }
        left = rest;
    }
}

/// What may be missing, in words: the range of positions, and of time where it is known.
fn missing(loss: &lineage::Loss) -> String {
    let after = match &loss.delivered {
        Some(Position::After(cursor)) => format!("everything after {}", cursor.offset()),
        Some(Position::Start(StartFrom::AtCursor(cursor))) => {
            format!("everything from {} on", cursor.offset())
        }
        Some(Position::Start(StartFrom::At(at))) => format!("everything from {at} on"),
        _ => "everything in it".to_owned(),
    };
    match loss.caught_up_at {
        Some(at) => format!("{after} that arrived after {at}"),
        None => after,
    }
}

fn tell_gone(term: &Term, spec: &SourceSpec, gone: &[SplitId]) {
    if gone.is_empty() {
        return;
    }
    for split in gone {
        let labels = [("source", spec.name.as_str()), ("split", split.name())];
        let message = format!("split `{split}` of source `{}` is gone", spec.name);
        term.events.tell(Level::Info, "split_gone", message, &labels);
    }
    let state = term.state();
    for loss in lineage::losses(&state.memory.desired, &state.memory.observed, spec.id, gone) {
        let sink = state.memory.sink(loss.sink).map_or("", |sink| sink.name.as_str());
        let message = format!(
            "split `{}` is gone before sink `{sink}` was through with it: {} may be lost",
            loss.split,
            missing(&loss)
        );
        let labels = [("source", spec.name.as_str()), ("sink", sink), ("split", loss.split.name())];
        term.events.tell(Level::Error, "data_loss", message, &labels);
        term.meters.data_loss.add(1, &[KeyValue::new("reason", "split_gone")]);
    }
}

#[cfg(test)]
mod tests {
    use model::{Encode, Format, FormatClause, ObjectId, OnError, Options, Start, Timestamp};

    use super::*;

    #[test]
    fn a_source_may_be_listed_more_often_or_less_than_the_others() {
        let spec = |options: &[(&str, &str)]| SourceSpec {
            id: ObjectId::from_parts(0, 0),
            name: "s".to_owned(),
            connector: "kinesis".to_owned(),
            options: options.iter().copied().collect(),
            columns: Vec::new(),
            include: Vec::new(),
            primary_key: Vec::new(),
            format: FormatClause {
                format: Format::Plain,
                encode: Encode::Bytes,
                options: Options::default(),
                key_encode: None,
            },
            on_error: OnError::Skip,
            start: Start::all(StartFrom::Horizon),
            creation: Creation(1),
            created_at: Timestamp(0),
            revision: 1,
        };
        let configured = Duration::from_secs(10);
        assert_eq!(interval(&spec(&[("stream", "1")]), configured), configured);
        let own = spec(&[("kinesis.shard.discovery_interval_ms", "2500")]);
        assert_eq!(interval(&own, configured), Duration::from_millis(2500));
    }
}
