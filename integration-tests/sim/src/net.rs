//! The network between places, and the agenda of everything that is under way on it: a parcel leaves one place and its action
//! happens at the other, after a delay, late, or never. Connections are like TCP's: nothing is reordered within one, and
//! what a partition holds back comes when it heals, unless the connection broke meanwhile.
//!
//! All randomness is the seed's. One thread runs everything; the locks are there because product futures must be `Send`.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::oneshot;

use crate::{place::Place, trace::Trace};

/// How late a request may reach a destination: the protocol's `write_attempt_timeout` and `late_write_margin` together, less a
/// little for the serving. What is promised (I11) rests on it, so the network of the simulation keeps it.
pub const LATE_MAX: Duration = Duration::from_millis(5_500);

/// What happens when a parcel arrives or a moment comes.
pub type Action = Box<dyn FnOnce() + Send>;

/// The connection broke: whether the request was served is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;

/// How one direction between two places is.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Delay of a parcel, at least and at most.
    pub delay: (Duration, Duration),
    /// Chance that a parcel is lost and must be sent again, which takes 200 ms and doubles.
    pub loss: f64,
    /// Parcels wait here until it opens again.
    pub closed: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self { delay: (Duration::from_micros(300), Duration::from_millis(4)), loss: 0.0, closed: false }
    }
}

struct Entry {
    at: Duration,
    number: u64,
    action: Action,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    /// The earliest is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

struct Inner {
    now: Duration,
    number: u64,
    agenda: BinaryHeap<Entry>,
    links: BTreeMap<(Place, Place), Link>,
    held: BTreeMap<(Place, Place), VecDeque<(Duration, Action)>>,
    random: StdRng,
}

/// The network. Cheap to clone.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Mutex<Inner>>,
    trace: Arc<Trace>,
}

impl Net {
    /// A network in which everything works.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            now: Duration::ZERO,
            number: 0,
            agenda: BinaryHeap::new(),
            links: BTreeMap::new(),
            held: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
        };
        Self { inner: Arc::new(Mutex::new(inner)), trace: Arc::default() }
    }

    /// True time since the beginning. Processes have clocks of their own.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.inner().now
    }

    /// Writes a line of the story.
    pub fn note(&self, place: Place, what: impl Into<String>) {
        self.trace.note(self.now(), place, what.into());
    }

    /// The story so far.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// A number of the seed's, below `bound`.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        self.inner().random.random_range(0..bound.max(1))
    }

    /// True once in a while.
    #[must_use]
    pub fn chance(&self, probability: f64) -> bool {
        self.inner().random.random_bool(probability.clamp(0.0, 1.0))
    }

    /// Something that happens later, whatever the network is like.
    pub fn after(&self, delay: Duration, action: impl FnOnce() + Send + 'static) {
        let mut inner = self.inner();
        let at = inner.now + delay;
        inner.schedule(at, Box::new(action));
    }

    /// One request to a server that only answers: `serve` runs there when the request arrives, with its time. The caller may
    /// give up; a request that is on its way is served all the same.
    ///
    /// # Errors
    /// [`Broken`] if the network gave up on either way.
    pub async fn ask<A: Send + 'static>(
        &self,
        from: Place,
        to: Place,
        serve: impl FnOnce(Duration) -> A + Send + 'static,
    ) -> Result<A, Broken> {
        let (tell, told) = oneshot::channel();
        let net = self.clone();
        self.carry(from, to, move || {
            let answer = serve(net.now());
            net.carry(to, from, move || drop(tell.send(answer)));
        });
        told.await.map_err(|_| Broken)
    }

    /// Sends one parcel.
    pub fn carry(&self, from: Place, to: Place, action: impl FnOnce() + Send + 'static) {
        let mut inner = self.inner();
        let delay = inner.delay(from, to);
        inner.deliver((from, to), delay, Box::new(action));
    }

    /// How a direction is now.
    #[must_use]
    pub fn link(&self, from: Place, to: Place) -> Link {
        self.inner().links.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Changes a direction. What was held comes when it opens; each parcel is lost with probability `broken`, and one to a
    /// destination if it has been under way for [`LATE_MAX`].
    pub fn set_link(&self, from: Place, to: Place, link: Link, broken: f64) {
        let mut inner = self.inner();
        inner.links.insert((from, to), link);
        if link.closed {
            return;
        }
        let mut lost = Vec::new();
        for (sent, action) in inner.held.remove(&(from, to)).unwrap_or_default() {
            let stale = to.is_destination() && inner.now - sent + link.delay.1 > LATE_MAX;
            if inner.random.random_bool(broken) || stale {
                lost.push(action);
                continue;
            }
            let at = inner.now + link.delay.1;
            inner.schedule(at, action);
        }
        // A lost parcel may break a connection, which sends more.
        drop(inner);
        drop(lost);
    }

    /// The moment of the next thing on the agenda.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.inner().agenda.peek().map(|entry| entry.at)
    }

    /// Lets everything happen that is due until `until`, and moves the time there.
    pub fn run_until(&self, until: Duration) {
        loop {
            let action = {
                let mut inner = self.inner();
                match inner.agenda.peek() {
                    Some(entry) if entry.at <= until => {}
                    _ => {
                        inner.now = until;
                        return;
                    }
                }
                let entry = inner.agenda.pop().expect("it was there a line ago");
                inner.now = inner.now.max(entry.at);
                entry.action
            };
            action();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn schedule(&mut self, at: Duration, action: Action) {
        self.number += 1;
        self.agenda.push(Entry { at, number: self.number, action });
    }

    fn delay(&mut self, from: Place, to: Place) -> Duration {
        let link = self.links.get(&(from, to)).copied().unwrap_or_default();
        let mut delay = self.random.random_range(link.delay.0..=link.delay.1);
        let mut resend = Duration::from_millis(200);
        let most = if to.is_destination() { LATE_MAX } else { Duration::from_secs(20) };
        while link.loss > 0.0 && resend < Duration::from_secs(10) && self.random.random_bool(link.loss) {
            delay += resend;
            resend *= 2;
        }
        delay.min(most)
    }

    /// A parcel arrives if the direction is open when it is sent; a closed one keeps it.
    fn deliver(&mut self, way: (Place, Place), delay: Duration, action: Action) {
        if self.links.get(&way).is_some_and(|link| link.closed) {
            self.held.entry(way).or_default().push_back((self.now, action));
        } else {
            self.schedule(self.now + delay, action);
        }
    }
}
