//! Registers each sink at the service of its source, for sources whose service must know who reads ([`connector::Registrar`]: a
//! consumer of Kinesis fan-out), and takes that back when the sink is dropped. By the leader alone.
//!
//! ```text
//! sink created ─▶ absent? ─▶ claimed in its object ─▶ registered ─▶ ready
//! sink dropped ─▶ its runs are over ─▶ deregistered, if claimed ─▶ claim gone ─▶ object gone
//! ```
//!
//! What was there before is used and never removed: only what the sink's object claims is its own. The claim is durable before
//! the service is asked, so a crash between the two leaves nothing behind that nobody removes. The object goes last (I7).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use connector::{Error, ErrorKind, Registered, Registrar, Registry, Result, Source};
use model::{ObjectId, SinkSpec};
use store::{Guard, ObjectKey, ObjectRecord};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    events::Level,
    handle::Leader,
    term::{Outcome, Term},
};

/// How often it is looked for sinks that wait.
const TICK: Duration = Duration::from_secs(1);
/// How often it is looked whether a registration is still there.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The same after a refusal that only a human can end, where the source can be read without.
const REFUSED_EVERY: Duration = Duration::from_secs(300);
/// After what may heal by itself.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long a new registration may take until it can be used.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often a deregistration is tried before the sink goes without.
const RELEASES_MAX: u32 = 60;
/// How often a change of an object is tried again when others change it, too.
const ATTEMPTS_MAX: u32 = 8;

/// What is to be done about one sink.
#[derive(Clone)]
enum Duty {
    /// It lives: its registration is there.
    Keep { sink: Box<SinkSpec>, source: Arc<dyn Source> },
    /// It was dropped and its runs are over: its registration goes.
    Release { sink: Box<SinkSpec>, source: Option<Arc<dyn Source>>, name: String },
}

/// What the loop remembers of one sink.
#[derive(Default)]
struct Seen {
    /// It was being released; what was seen before says nothing about that.
    releasing: bool,
    due: Duration,
    told: String,
    failures: u32,
}

/// Runs until the term ends.
pub(crate) async fn run(term: Arc<Term>) {
    let mut seen: BTreeMap<ObjectId, Seen> = BTreeMap::new();
    let mut busy: BTreeSet<ObjectId> = BTreeSet::new();
    let mut built = Built::default();
    let mut tasks: JoinSet<(Duty, Result<()>)> = JoinSet::new();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            biased;
            () = term.cancel.cancelled() => return,
            Some(ended) = tasks.join_next() => {
                let (duty, outcome) = ended.expect("a duty does not panic and is not cancelled");
                busy.remove(&duty.sink().id);
                note(&term, seen.entry(duty.sink().id).or_default(), (duty, outcome)).await;
                continue;
            }
            _ = tick.tick() => {}
        }
        let now = term.clock.now();
        for duty in duties(&term, &mut built) {
            let id = duty.sink().id;
            let releasing = matches!(duty, Duty::Release { .. });
            let seen = seen.entry(id).or_default();
            if seen.releasing != releasing {
                *seen = Seen { releasing, ..Seen::default() };
            }
            if seen.due <= now && busy.insert(id) {
                let term = Arc::clone(&term);
                tasks.spawn(async move {
                    let outcome = duty.carry_out(&term).await;
                    (duty, outcome)
                });
            }
        }
        let state = term.state();
        seen.retain(|id, _| state.memory.sink(*id).is_some());
    }
}

/// Sources, each built once per revision.
#[derive(Default)]
struct Built(BTreeMap<ObjectId, (u64, Option<Arc<dyn Source>>)>);

impl Built {
    /// Nothing if it cannot be built: then nobody can read it either, and discovery says why. Tried again each time.
    fn source(&mut self, registry: &Registry, spec: &model::SourceSpec) -> Option<Arc<dyn Source>> {
        let entry = self.0.entry(spec.id).or_insert((0, None));
        if entry.0 != spec.revision || entry.1.is_none() {
            *entry = (spec.revision, registry.build_source(spec).ok());
        }
        entry.1.clone()
    }
}

fn duties(term: &Term, built: &mut Built) -> Vec<Duty> {
    let state = term.state();
    let memory = &state.memory;
    let mut duties = Vec::new();
    for (id, object) in &memory.view.objects {
        let store::Spec::Sink(sink) = &object.value.spec else { continue };
        let source = memory.source(sink.source).and_then(|spec| built.source(&memory.registry, spec));
        match (&object.value.registration, object.value.dropping) {
            (Some(name), true) => {
                if !memory.observed.assignments.keys().any(|task| task.sink == *id) {
                    duties.push(Duty::Release { sink: sink.clone(), source, name: name.clone() });
                }
            }
            (_, false) => {
                let source = source.filter(|source| source.registrar().is_some());
                duties.extend(source.map(|source| Duty::Keep { sink: sink.clone(), source }));
            }
            (None, true) => {}
        }
    }
    built.0.retain(|id, _| memory.source(*id).is_some());
    duties
}

impl Duty {
    fn sink(&self) -> &SinkSpec {
        match self {
            Self::Keep { sink, .. } | Self::Release { sink, .. } => sink,
        }
    }

    async fn carry_out(&self, term: &Term) -> Result<()> {
        match self {
            Self::Keep { sink, source } => match source.registrar() {
                Some(registrar) => keep(term, sink, registrar).await,
                None => Ok(()),
            },
            Self::Release { sink, source, name } => {
                let unbuilt = || Error::new(ErrorKind::Config, "its source cannot be built");
                if let Some(registrar) = source.as_ref().ok_or_else(unbuilt)?.registrar() {
                    registrar.deregister(name).await?;
                }
                claim(term, sink, None).await
            }
        }
    }
}

/// Draws the conclusions from what came of a duty.
async fn note(term: &Term, seen: &mut Seen, (duty, outcome): (Duty, Result<()>)) {
    let now = term.clock.now();
    if seen.releasing != matches!(duty, Duty::Release { .. }) {
        // It was dropped meanwhile: the outcome says nothing about what is due now.
        return;
    }
    let Err(error) = outcome else {
        *seen = Seen { due: now + LOOK_EVERY, releasing: seen.releasing, ..Seen::default() };
        return;
    };
    seen.failures += 1;
    let (mut message, mut kind) = (String::new(), "registration_failed");
    let sink = duty.sink();
    match &duty {
        Duty::Keep { source, .. } => {
            let optional = source.registrar().is_some_and(Registrar::optional);
            let without = if optional { "; it is read without meanwhile" } else { "" };
            message
                .push_str(&format!("sink `{}` is not registered at its source: {error}{without}", sink.name));
            let human = if optional { REFUSED_EVERY } else { LOOK_EVERY };
            seen.due = now + if error.is_transient() { AGAIN_AFTER } else { human };
        }
        Duty::Release { name, .. } => {
            seen.due = now + AGAIN_AFTER;
            if seen.failures >= RELEASES_MAX {
                kind = "registration_left";
                let text =
                    format!("`{name}` of sink `{}` stays registered, remove it by hand: {error}", sink.name);
                message.push_str(&text);
                if let Err(error) = claim(term, sink, None).await {
                    tracing::warn!(%error, "the claim of a dropped sink could not be taken back");
                }
            } else {
                let text = format!("`{name}` of sink `{}` could not be deregistered: {error}", sink.name);
                message.push_str(&text);
            }
        }
    }
    if seen.told != message {
        term.events.tell(Level::Warn, kind, message.as_str(), &[("sink", &sink.name)]);
        seen.told = message;
    }
}

/// Waits until the registration of a sink can be used; makes it if it is not there.
async fn keep(term: &Term, sink: &SinkSpec, registrar: &dyn Registrar) -> Result<()> {
    let name = registrar.name(sink);
    let deadline = Instant::now() + READY_WITHIN;
    let mut asked = false;
    loop {
        // One of a dropped sink is removed before it is made again.
        let leaving = term.state().memory.view.objects.iter().any(|(id, object)| {
            *id != sink.id && object.value.dropping && object.value.registration.as_ref() == Some(&name)
        });
        match if leaving { Registered::Pending } else { registrar.find(&name).await? } {
            Registered::Ready => return Ok(()),
            Registered::Absent if !asked => {
                claim(term, sink, Some(&name)).await?;
                tracing::info!(sink = sink.name, name, "is registered");
                if let Err(error) = registrar.register(&name).await {
                    // What was refused is not there; what is there later is somebody else's.
                    if !error.is_transient() {
                        claim(term, sink, None).await?;
                    }
                    return Err(error);
                }
                asked = true;
            }
            Registered::Absent | Registered::Pending => {}
        }
        if Instant::now() + TICK > deadline {
            let text = format!("consumer \"{name}\" did not become ACTIVE");
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Writes into the sink's object what it has registered.
async fn claim(term: &Term, sink: &SinkSpec, name: Option<&str>) -> Result<()> {
    let lost = |why: &str| Error::new(ErrorKind::Unavailable, format!("sink `{}` {why}", sink.name));
    for _ in 0..ATTEMPTS_MAX {
        let (guard, write) = {
            let state = term.state();
            let memory = &state.memory;
            let object = memory.view.objects.get(&sink.id).ok_or_else(|| lost("is gone"))?;
            if object.value.dropping && name.is_some() {
                return Err(lost("was dropped"));
            }
            let record = ObjectRecord { registration: name.map(str::to_owned), ..object.value.clone() };
            if record == object.value {
                return Ok(());
            }
            let guard = Guard::Unchanged(memory.keys.object(sink.id), object.mod_revision);
            (guard, memory.keys.put::<ObjectKey>(&sink.id, &record))
        };
        match term.commit(vec![guard], vec![write]).await {
            Ok(Outcome::Done(_)) => {
                term.nudge.notify_one();
                return Ok(());
            }
            Ok(Outcome::Lost(_)) => {}
            Err(error) => return Err(lost(&format!("could not be changed: {error}"))),
        }
    }
    Err(lost("is being changed by others"))
}

impl Leader {
    /// Another sink that the service of this source would take for `sink`.
    pub(crate) fn namesake(&self, sink: &SinkSpec, registrar: &dyn Registrar) -> Option<String> {
        let name = registrar.name(sink);
        let others =
            self.all_sinks().into_iter().filter(|other| other.source == sink.source && other.id != sink.id);
        let mut same = others.filter(|other| registrar.name(other) == name);
        same.next().map(|other| other.name.clone())
    }

    /// Registers a sink that was just created, and waits until its source may be read.
    pub(crate) async fn register(&self, sink: &SinkSpec, registrar: &dyn Registrar) -> Result<()> {
        keep(&self.term, sink, registrar).await
    }
}
