//! Commits at the server: carried out at once, or later, after the connection broke. A late commit comes at any moment or at the
//! worst, which is right after a later commit that names one of its keys, or right before one that writes one
//! ([`crate::spite`]): lanes and guards are there for it.

use std::time::Duration;

use store::{Commit, Guard, Key, Keyspace, Write};

use super::{
    fault::{Failure, current},
    model::Model,
    server::{Answer, Server},
    story,
};
use crate::place::Place;

/// How late a commit may be. A real one may be later still, but then its guards have long failed.
const LATE_MAX: Duration = Duration::from_secs(6);

/// A commit whose sender does not know what became of it.
#[derive(Debug)]
pub(super) struct LateCommit {
    from: Place,
    guards: Vec<Guard>,
    writes: Vec<Write>,
    /// Its worst moment is right before, not right after.
    before: bool,
}

impl LateCommit {
    fn names(&self, key: &Key) -> bool {
        self.guards.iter().any(|guard| guard.key() == key) || self.writes.iter().any(|w| w.key() == key)
    }
}

impl Server {
    /// A commit, once the server has got to it.
    pub(super) fn commit(
        &self,
        model: &mut Model,
        from: Place,
        guards: Vec<Guard>,
        writes: Vec<Write>,
    ) -> Answer<Commit> {
        let now = self.net().now();
        let strikes = |chance: Option<f64>| chance.is_some_and(|chance| self.net().chance(chance));
        if strikes(current(model.faults.delays, now)) {
            let before = self.net().chance(0.5);
            self.delay_one(model, LateCommit { from, guards, writes, before });
            return Err(self.no_answer());
        }
        let forgets = strikes(current(model.faults.forgets, now));
        let is_worst = |late: &LateCommit| late.before && writes.iter().any(|write| late.names(write.key()));
        for late in model.spite.provoked(is_worst) {
            self.carry_out(model, late.from, (&late.guards, late.writes), ", late").ok();
        }
        let fate = if forgets { ", and the answer is lost" } else { "" };
        let done = self.carry_out(model, from, (&guards, writes), fate)?;
        if forgets { Err(self.no_answer()) } else { Ok(done) }
    }

    fn carry_out(
        &self,
        model: &mut Model,
        from: Place,
        (guards, writes): (&[Guard], Vec<Write>),
        fate: &str,
    ) -> Answer<Commit> {
        let words = story::writes(&writes);
        let done = model.commit(guards, writes).map_err(|refusal| {
            self.net().note(Place::Store, format!("{from} refused ({refusal:?}): {words}"));
            Failure::Refused(refusal)
        })?;
        self.look_who(model, from, &done.touched);
        self.tell(model, &done.touched);
        let told = story::commit(guards, &words, &done.commit);
        self.net().note(Place::Store, format!("{from} {told}{fate}"));
        let is_worst = |late: &LateCommit| !late.before && done.touched.iter().any(|key| late.names(key));
        for late in model.spite.provoked(is_worst) {
            let server = self.clone();
            self.net().after(Duration::ZERO, move || server.land(late));
        }
        Ok(done.commit)
    }

    /// I3: what a coordinator wrote counts only while its key stands. The key itself is written by whoever wants to lead.
    fn look_who(&self, model: &mut Model, from: Place, touched: &[Key]) {
        let Some(leader) = touched.first().and_then(cluster).map(|cluster| Keyspace::new(cluster).leader())
        else {
            return;
        };
        if touched.contains(&leader) || !matches!(from, Place::Coordinator(_)) {
            return;
        }
        if !model.text(&leader).is_some_and(|record| record.contains(&format!("//{from}:"))) {
            let keys: Vec<&str> = touched.iter().map(Key::as_str).collect();
            model.broken.push(format!("I3: {from} wrote {keys:?} and does not lead"));
        }
    }

    fn delay_one(&self, model: &mut Model, late: LateCommit) {
        self.net().note(Place::Store, format!("{} will be late: {}", late.from, story::writes(&late.writes)));
        let server = self.clone();
        if self.net().chance(0.5) {
            return self.net().after(self.up_to(LATE_MAX), move || server.land(late));
        }
        let kept = model.spite.keep(late);
        self.net().after(LATE_MAX, move || {
            let late = server.settled().spite.take(kept);
            // Its moment never came.
            if let Some(late) = late
                && server.net().chance(0.5)
            {
                server.land(late);
            }
        });
    }

    fn land(&self, late: LateCommit) {
        let mut model = self.settled();
        if model.faults.outage.is_none() {
            // Nobody hears what comes of it.
            self.carry_out(&mut model, late.from, (&late.guards, late.writes), ", late").ok();
        }
    }

    /// A broken connection is known at once, a silent one only by the caller's deadline.
    fn no_answer(&self) -> Failure {
        if self.net().chance(0.5) { Failure::Broken } else { Failure::Silent }
    }
}

/// The cluster that a key belongs to.
fn cluster(key: &Key) -> Option<&str> {
    key.as_str().strip_prefix('/')?.split('/').next()
}
