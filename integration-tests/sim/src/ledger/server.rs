//! The destination's machine: requests arrive, are thought about, their rows stored or not, and answers leave; and the world
//! tells it what is to go wrong.
//!
//! No row lands later than [`LATE_MAX`] after its request was sent: by then its sender has closed the connection (I11 rests on
//! it). Until then a late request lands when it does most harm, if there is such a moment: see [`Spite`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use connector::{Error, ErrorKind, Result};
use model::{Epoch, TaskId};
use tokio::sync::oneshot;

use super::{
    fault::{Faults, Kind, up_to},
    keep::{Arrival, Kept, record, written},
    story,
};
use crate::{
    net::{LATE_MAX, Net},
    place::Place,
    spite::Spite,
};

/// How long a connection on which nobody answers stays open.
const SILENCE: Duration = Duration::from_secs(10);

/// Rows that were not taken, by their index in the batch; or why none was.
pub(super) type Answer = Result<Vec<(usize, Error)>>;

/// Whose request it is.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// Of the destination.
    pub name: Arc<str>,
    pub piecemeal: bool,
    pub worker: Place,
    pub task: TaskId,
    pub epoch: Epoch,
}

impl Origin {
    fn arrival(&self, at: Duration, value: Bytes) -> Arrival {
        let Self { task, epoch, worker, .. } = self.clone();
        Arrival { at, record: record(&value), value, task, epoch, worker, taken: true }
    }
}

/// A row of a request.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Its index in the batch.
    pub row: usize,
    /// As JSON.
    pub value: Bytes,
}

#[derive(Debug)]
pub(super) struct Request {
    pub origin: Origin,
    pub rows: Vec<Row>,
    sent: Duration,
    tell: oneshot::Sender<Answer>,
}

#[derive(Debug, Default)]
struct State {
    kept: BTreeMap<Arc<str>, Kept>,
    faults: Faults,
    spite: Spite<Request>,
}

/// The server. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Server {
    net: Net,
    state: Arc<Mutex<State>>,
}

/// What the world orders, and what it reads.
impl Server {
    /// A server that holds nothing.
    #[must_use]
    pub fn new(net: Net) -> Self {
        Self { net, state: Arc::default() }
    }

    /// For so long each request is thought about for up to `most`.
    pub fn slow(&self, most: Duration, length: Duration) {
        self.net.note(Place::Ledger, format!("slow, up to {most:?}, for {length:?}"));
        self.state().faults.set_slow(most, self.net.now() + length);
    }

    /// For so long connections are refused.
    pub fn refuse(&self, length: Duration) {
        self.order(Kind::Down, 1.0, length);
    }

    /// For so long nothing is served; then what has piled up is.
    pub fn hang(&self, length: Duration) {
        self.order(Kind::Hung, 1.0, length);
    }

    /// For so long requests are refused as too many, with this chance.
    pub fn throttle(&self, chance: f64, length: Duration) {
        self.order(Kind::Throttle, chance, length);
    }

    /// For so long rows are not taken, each with this chance.
    pub fn fail_rows(&self, chance: f64, length: Duration) {
        self.order(Kind::Rows, chance, length);
    }

    /// For so long requests are stored and their answers are lost, with this chance.
    pub fn forget(&self, chance: f64, length: Duration) {
        self.order(Kind::Forget, chance, length);
    }

    /// For so long connections break at once and their requests are stored later or never, with this chance.
    pub fn delay(&self, chance: f64, length: Duration) {
        self.order(Kind::Late, chance, length);
    }

    /// For so long only the first rows of a request are stored before its connection breaks, with this chance.
    pub fn tear(&self, chance: f64, length: Duration) {
        self.order(Kind::Prefix, chance, length);
    }

    /// Rows whose JSON holds these bytes are looked at and refused, until lifted with `None`.
    pub fn poison(&self, bytes: Option<Bytes>) {
        self.state().faults.poison = bytes;
    }

    /// Ends all faults; poison stays poison.
    pub fn heal(&self) {
        self.state().faults.heal();
    }

    /// Looks at what a destination holds.
    pub fn look<T>(&self, name: &str, look: impl FnOnce(&Kept) -> T) -> T {
        look(self.state().kept.entry(name.into()).or_default())
    }

    fn order(&self, kind: Kind, chance: f64, length: Duration) {
        self.net.note(Place::Ledger, format!("{kind:?} with {chance} for {length:?}"));
        self.state().faults.set(kind, chance, self.net.now() + length);
    }
}

/// What happens to requests.
impl Server {
    /// Whether anybody answers.
    pub(super) async fn reach(&self, from: Place) -> Result<()> {
        let server = self.clone();
        let asked = self.net.ask(from, Place::Ledger, move |now| {
            let faults = &server.state().faults;
            [Kind::Down, Kind::Hung].iter().all(|kind| faults.until(*kind, now).is_none())
        });
        match asked.await {
            Ok(true) => Ok(()),
            _ => Err(unavailable("connection refused")),
        }
    }

    /// Sends a request. Its answer comes, or its connection breaks; who goes away does not take it back.
    pub(super) fn write(&self, origin: Origin, rows: Vec<Row>) -> oneshot::Receiver<Answer> {
        let (tell, told) = oneshot::channel();
        let (server, from) = (self.clone(), origin.worker);
        let sent = self.net.now();
        let mut state = self.state();
        let kept = state.kept.entry(Arc::clone(&origin.name)).or_default();
        rows.iter().for_each(|row| kept.sent(origin.arrival(sent, row.value.clone())));
        drop(state);
        let request = Request { origin, rows, sent, tell };
        self.net.carry(from, Place::Ledger, move || server.receive(request));
        told
    }

    fn receive(self, request: Request) {
        let state = self.state();
        let faults = &state.faults;
        let now = self.net.now();
        let refused = if faults.strikes(Kind::Down, &self.net) {
            Some(unavailable("connection refused"))
        } else if faults.strikes(Kind::Throttle, &self.net) {
            Some(Error::new(ErrorKind::Throttled, "the ledger is asked too much"))
        } else {
            None
        };
        let late = faults.strikes(Kind::Late, &self.net);
        let mut wait = faults.thinking(&self.net);
        if let Some(until) = faults.until(Kind::Hung, now) {
            wait += until - now;
        }
        drop(state);
        if let Some(error) = refused {
            return self.answer(request.origin, Err(error), Vec::new(), request.tell);
        }
        if late {
            return self.delay_one(request);
        }
        let net = self.net.clone();
        net.after(wait, move || self.serve(request));
    }

    /// Breaks the connection of a request that lands later: at any moment, or at the worst.
    fn delay_one(self, request: Request) {
        let Request { origin, rows, sent, tell } = request;
        let net = self.net.clone();
        net.note(Place::Ledger, format!("breaks a connection of {}", origin.worker));
        net.carry(Place::Ledger, origin.worker, move || drop(tell));
        let (orphan, _nobody) = oneshot::channel();
        let late = Request { origin, rows, sent, tell: orphan };
        let most = (sent + LATE_MAX).saturating_sub(net.now());
        if net.chance(0.5) {
            return net.after(up_to(most, &net), move || self.serve(late));
        }
        let kept = self.state().spite.keep(late);
        net.after(most, move || {
            let late = self.state().spite.take(kept);
            // Its moment never came.
            if let Some(late) = late
                && self.net.chance(0.5)
            {
                self.serve(late);
            }
        });
    }

    fn serve(self, request: Request) {
        let Request { origin, mut rows, sent, tell } = request;
        let now = self.net.now();
        if now > sent + LATE_MAX {
            self.net.note(Place::Ledger, format!("{} has closed its connection", origin.worker));
            return;
        }
        let mut state = self.state();
        let torn = state.faults.strikes(Kind::Prefix, &self.net);
        let forgets = state.faults.strikes(Kind::Forget, &self.net);
        if torn {
            let upto = self.net.below(rows.len() as u64);
            rows.truncate(usize::try_from(upto).unwrap_or(usize::MAX));
        }
        let (stored, failed) = self.take(&mut state, &origin, rows);
        let fate = match (torn, forgets, failed.len()) {
            (true, _, _) => ", then breaks the connection".to_owned(),
            (_, true, _) => ", and the answer is lost".to_owned(),
            (_, _, 0) => String::new(),
            (_, _, count) => format!(", {count} not taken"),
        };
        let Origin { name, worker, epoch, .. } = &origin;
        let (split, words) = (story::split(&origin), story::rows(&stored));
        self.net.note(Place::Ledger, format!("{name}: {worker} {epoch} {split} {words}{fate}"));
        let thinking = state.faults.thinking(&self.net);
        let provoked = state.spite.provoked(|late| is_worst(late, &origin, &stored));
        drop(state);
        let net = self.net.clone();
        for late in provoked {
            let server = self.clone();
            net.after(Duration::ZERO, move || server.serve(late));
        }
        if torn {
            net.carry(Place::Ledger, origin.worker, move || drop(tell));
        } else if forgets {
            let silence = if net.chance(0.5) { SILENCE } else { Duration::ZERO };
            net.after(silence, move || drop(tell));
        } else {
            net.after(thinking, move || self.answer(origin, Ok(failed), stored, tell));
        }
    }

    /// Stores what no fault strikes. Unless it is piecemeal, what follows a failed row of a key fails with it.
    fn take(
        &self,
        state: &mut State,
        origin: &Origin,
        rows: Vec<Row>,
    ) -> (Vec<Arrival>, Vec<(usize, Error)>) {
        let kept = state.kept.entry(Arc::clone(&origin.name)).or_default();
        let (mut stored, mut failed) = (Vec::new(), Vec::new());
        let mut behind: BTreeSet<Option<String>> = BTreeSet::new();
        for Row { row, value } in rows {
            let mut arrival = origin.arrival(self.net.now(), value);
            let key = arrival.record.as_ref().map(|record| record.key.clone());
            if !origin.piecemeal && behind.contains(&key) {
                failed.push((row, unavailable("an earlier row of this key was not taken")));
            } else if state.faults.is_poison(&arrival.value) {
                arrival.taken = false;
                kept.refuse(arrival);
                failed.push((row, Error::new(ErrorKind::Rejected, "the ledger does not want this row")));
            } else if state.faults.strikes(Kind::Rows, &self.net) {
                let kind = if self.net.chance(0.5) { ErrorKind::Throttled } else { ErrorKind::Unavailable };
                failed.push((row, Error::new(kind, "the ledger did not take this row")));
                behind.insert(key);
            } else {
                kept.store(arrival.clone());
                stored.push(arrival);
            }
        }
        (stored, failed)
    }

    fn answer(self, origin: Origin, answer: Answer, stored: Vec<Arrival>, tell: oneshot::Sender<Answer>) {
        let net = self.net.clone();
        net.carry(Place::Ledger, origin.worker, move || {
            if tell.send(answer).is_ok() {
                let mut state = self.state();
                let kept = state.kept.entry(Arc::clone(&origin.name)).or_default();
                kept.confirm(stored.iter().map(written));
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this is the worst moment for a late request to land: a newer run of its task has written, or a newer row of a key
/// that is in it has come, from whatever task.
fn is_worst(late: &Request, origin: &Origin, stored: &[Arrival]) -> bool {
    let newer_row = |row: &Row| {
        let old = record(&row.value);
        let news = stored.iter().filter_map(|arrival| arrival.record.as_ref());
        old.is_some_and(|old| news.into_iter().any(|new| new.key == old.key && new.n > old.n))
    };
    let newer_run = late.origin.task == origin.task && late.origin.epoch < origin.epoch && !stored.is_empty();
    late.origin.name == origin.name && (newer_run || late.rows.iter().any(newer_row))
}

fn unavailable(why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("ledger: {why}"))
}
