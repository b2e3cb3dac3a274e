//! The store's machine: requests arrive, are served when the server gets to it, and answers leave; watches are told; leases
//! end; and the world tells it what is to go wrong.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use store::{Key, LeaseId, Write};
use tokio::sync::oneshot;

use super::{
    fault::{Failure, Outage, Refusal, Spell, current},
    model::Model,
    story,
    watch::Push,
};
use crate::{net::Net, place::Place};

/// How long a connection on which nobody answers stays open.
const SILENCE: Duration = Duration::from_secs(10);
/// etcd looks for leases whose time is over twice a second.
const LEASE_LOOK: Duration = Duration::from_millis(500);

pub(super) type Answer<A> = Result<A, Failure>;

/// The server. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Server {
    net: Net,
    model: Arc<Mutex<Model>>,
}

/// What the world orders.
impl Server {
    /// The server of this model.
    #[must_use]
    pub fn new(net: Net, model: Arc<Mutex<Model>>) -> Self {
        Self { net, model }
    }

    /// Nobody is served for so long.
    pub fn fail(&self, outage: Outage, length: Duration) {
        let (mut model, until) = (self.model(), self.net.now() + length);
        self.net.note(Place::Store, format!("{outage:?} for {length:?}"));
        model.faults.outage = Some(Spell { what: outage, until });
        if outage != Outage::Hung {
            self.end_watches(&mut model);
        }
        let server = self.clone();
        self.net.after(length, move || drop(server.settled()));
    }

    /// For so long it thinks for up to `most` before it serves a request, and for as long again before it answers.
    pub fn slow(&self, most: Duration, length: Duration) {
        self.net.note(Place::Store, format!("slow, up to {most:?}, for {length:?}"));
        self.model().faults.slow = Some(Spell { what: most, until: self.net.now() + length });
    }

    /// For so long watches are told later by `lag`.
    pub fn lag_watches(&self, lag: Duration, length: Duration) {
        self.net.note(Place::Store, format!("watches lag by {lag:?} for {length:?}"));
        self.model().faults.watch_lag = Some(Spell { what: lag, until: self.net.now() + length });
    }

    /// The connections of all watches break.
    pub fn break_watches(&self) {
        self.net.note(Place::Store, "all watches break");
        self.end_watches(&mut self.model());
    }

    /// All history is compacted away, and with it every watch, as those that had fallen behind.
    pub fn compact_watches(&self) {
        let mut model = self.model();
        let revision = model.revision();
        self.net.note(Place::Store, format!("compacted to {revision}, and all watches with it"));
        // Somebody has compacted to here already: as well.
        model.compact(revision).ok();
        self.end_watches(&mut model);
    }

    /// For so long, commits are carried out and their answers are lost with this chance.
    pub fn forget(&self, chance: f64, length: Duration) {
        self.net.note(Place::Store, format!("forgets answers of commits with {chance} for {length:?}"));
        self.model().faults.forgets = Some(Spell { what: chance, until: self.net.now() + length });
    }

    /// For so long the connections of commits break with this chance, and they are carried out later or never.
    pub fn delay(&self, chance: f64, length: Duration) {
        self.net.note(Place::Store, format!("delays commits with {chance} for {length:?}"));
        self.model().faults.delays = Some(Spell { what: chance, until: self.net.now() + length });
    }

    /// A hand from outside removes a key (the leader's, say).
    pub fn remove(&self, key: &Key) {
        let mut model = self.model();
        self.net.note(Place::Store, format!("a hand removes {}", story::short(key)));
        if let Ok(done) = model.commit(&[], vec![Write::Delete(key.clone())]) {
            self.tell(&mut model, &done.touched);
        }
    }

    /// Ends all faults, ordered ones too.
    pub fn heal(&self) {
        let mut model = self.model();
        let now = self.net.now();
        if let Some(outage) = &mut model.faults.outage {
            outage.until = now;
        }
        self.settle(&mut model);
        model.faults.heal();
        model.set_alarm(super::NOSPACE, false);
    }
}

/// What happens to requests.
impl Server {
    pub(super) fn net(&self) -> &Net {
        &self.net
    }

    /// Sends a request and waits for its answer. A caller that gives up does not take the request back.
    pub(super) async fn ask<A: Send + 'static>(
        &self,
        from: Place,
        serve: impl FnOnce(&Self, &mut Model, Duration) -> Answer<A> + Send + 'static,
    ) -> Answer<A> {
        let (tell, told) = oneshot::channel();
        let server = self.clone();
        self.net.carry(from, Place::Store, move || server.receive(from, serve, tell));
        told.await.unwrap_or(Err(Failure::Broken))
    }

    fn receive<A: Send + 'static>(
        self,
        from: Place,
        serve: impl FnOnce(&Self, &mut Model, Duration) -> Answer<A> + Send + 'static,
        tell: oneshot::Sender<Answer<A>>,
    ) {
        let now = self.net.now();
        let (outage, slow) = {
            let model = self.settled();
            (current(model.faults.outage, now), current(model.faults.slow, now))
        };
        if outage == Some(Outage::Down) {
            return self.answer(from, Err(Failure::NotSent), tell);
        }
        let net = self.net.clone();
        net.after(self.thinking(slow), move || self.serve(from, serve, tell));
    }

    fn serve<A: Send + 'static>(
        self,
        from: Place,
        serve: impl FnOnce(&Self, &mut Model, Duration) -> Answer<A> + Send + 'static,
        tell: oneshot::Sender<Answer<A>>,
    ) {
        let now = self.net.now();
        let mut model = self.settled();
        let slow = current(model.faults.slow, now);
        let answer = match model.faults.outage {
            Some(Spell { what: Outage::Hung, until }) => {
                drop(model);
                let net = self.net.clone();
                return net.after(until - now, move || self.serve(from, serve, tell));
            }
            Some(_) => Err(Failure::Broken),
            None => serve(&self, &mut model, now),
        };
        drop(model);
        let net = self.net.clone();
        net.after(self.thinking(slow), move || self.answer(from, answer, tell));
    }

    fn answer<A: Send + 'static>(self, to: Place, answer: Answer<A>, tell: oneshot::Sender<Answer<A>>) {
        if matches!(answer, Err(Failure::Silent)) {
            return self.net.after(SILENCE, move || drop(tell));
        }
        self.net.carry(Place::Store, to, move || drop(tell.send(answer)));
    }

    fn thinking(&self, most: Option<Duration>) -> Duration {
        most.map_or(Duration::ZERO, |most| self.up_to(most))
    }

    pub(super) fn up_to(&self, most: Duration) -> Duration {
        Duration::from_micros(self.net.below(u64::try_from(most.as_micros()).unwrap_or(u64::MAX)))
    }

    /// A new lease, and somebody who looks when it is over.
    pub(super) fn grant(&self, model: &mut Model, from: Place, ttl: Duration) -> Answer<LeaseId> {
        let now = self.net.now();
        let lease = model.grant(ttl, now).map_err(Failure::Refused)?;
        self.net.note(Place::Store, format!("{from} has lease {} of {ttl:?}", lease.0));
        self.look_at(lease, model.lease_ends(lease).unwrap_or(now));
        Ok(lease)
    }

    pub(super) fn keep_alive(&self, model: &mut Model, from: Place, lease: LeaseId) -> bool {
        let alive = model.keep_alive(lease, self.net.now());
        if !alive {
            self.net.note(Place::Store, format!("{from} asks to prolong lease {}, which has ended", lease.0));
        }
        alive
    }

    fn look_at(&self, lease: LeaseId, at: Duration) {
        let delay = at.saturating_sub(self.net.now()) + self.up_to(LEASE_LOOK);
        let server = self.clone();
        self.net.after(delay, move || server.end_if_over(lease));
    }

    fn end_if_over(&self, lease: LeaseId) {
        let now = self.net.now();
        let mut model = self.settled();
        if let Some(outage) = model.faults.outage {
            return self.look_at(lease, outage.until);
        }
        match model.lease_ends(lease) {
            None => {}
            Some(later) if later > now => self.look_at(lease, later),
            Some(_) => {
                let keys = model.revoke(lease);
                let (at, gone) = (model.revision(), story::gone(&keys));
                self.net.note(Place::Store, format!("lease {} ends at {at}: {gone}", lease.0));
                self.tell(&mut model, &keys);
            }
        }
    }

    pub(super) fn tell(&self, model: &mut Model, touched: &[Key]) {
        let lag = current(model.faults.watch_lag, self.net.now());
        for push in model.watches.of(touched) {
            self.push(lag, push, Push::wake);
        }
    }

    fn end_watches(&self, model: &mut Model) {
        for push in model.watches.end_all() {
            self.push(None, push, drop);
        }
    }

    fn push(&self, lag: Option<Duration>, push: Push, arrive: fn(Push)) {
        let (net, to) = (self.net.clone(), push.to);
        let send = move || net.carry(Place::Store, to, move || arrive(push));
        match lag {
            Some(lag) => self.net.after(lag, send),
            None => send(),
        }
    }

    /// The model, once an outage that is over has been left behind.
    pub(super) fn settled(&self) -> MutexGuard<'_, Model> {
        let mut model = self.model();
        self.settle(&mut model);
        model
    }

    fn settle(&self, model: &mut Model) {
        let now = self.net.now();
        if let Some(outage) = model.faults.outage
            && outage.until <= now
        {
            model.faults.outage = None;
            if outage.what != Outage::Hung {
                model.renew_leases(now);
            }
            self.net.note(Place::Store, "serves again");
        }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
