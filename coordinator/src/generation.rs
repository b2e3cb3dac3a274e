//! A store that was restored, by `shardwright restore` or from a backup of its own: its revisions begin again at an older one, so
//! an epoch or a leadership that it gives out now may be smaller than one that still runs. Both are compared by the store's
//! generation first, so a restore begins a new one (I3).
//!
//! ```text
//! `shardwright restore`, or a worker has seen more than this store has come to
//!    ──▶ schema: generation raised, `begins` ──▶ a new term loads: no assignment of before is left, and no gate opens until
//!        runs that the store knows nothing of have fenced themselves ──▶ that moment has passed: `begins` goes
//! ```
//!
//! Whoever leads carries on where the one before stopped. Keeps I3, I4 (a run never starts at the old start of an assignment
//! that was kept) and I11.

use model::Epoch;
use proto::v1;
use store::{AssignmentKey, Commit, Guard, Keyspace, Schema, SchemaKey, View, Write};

use crate::{
    error::{Error, Result},
    events::Level,
    session::run_of,
    term::{Outcome, Term},
};

impl Term {
    /// Looks whether a process has seen an epoch or a leader that this store has never come to. Then the generation is raised
    /// and the term ends: the next one lists everything anew. `true` if so. A leader that was deposed and does not know it
    /// finds that out here: the write is guarded.
    pub(crate) async fn sees_restore(&self, hello: &v1::Hello) -> bool {
        let (guard, write, newest) = {
            let state = self.state();
            let (view, keys) = (&state.memory.view, &state.memory.keys);
            let Some(schema) = &view.schema else { return false };
            let runs = hello.running.iter().filter_map(|run| run_of(run.task.as_ref(), run.epoch));
            let reached = view.epoch(view.revision);
            let epochs = runs.map(|(_, epoch)| epoch).filter(|epoch| *epoch > reached);
            let heard = hello.newest_leader.as_ref().map(seniority);
            let leaders = heard.filter(|heard| *heard > seniority(&self.leader()));
            let Some(newest) = epochs.chain(leaders).max() else { return false };
            // There is none after the last: whoever says so is mistaken.
            let Some(generation) = newest.generation.checked_add(1) else { return false };
            let raised = Schema { generation, begins: true, ..schema.value };
            let guard = Guard::Unchanged(keys.schema(), schema.mod_revision);
            (guard, keys.put::<SchemaKey>(&(), &raised), newest)
        };
        if let Ok(Outcome::Done(_)) = self.commit(vec![guard], vec![write]).await {
            let message = format!(
                "worker `{}` has seen {newest}, which the store has not come to: it was restored from a backup; a new \
                 generation begins, and what was delivered since the backup is delivered again",
                hello.worker
            );
            self.events.tell(Level::Error, "store_restored", message.as_str(), &[("worker", &hello.worker)]);
            self.end(Level::Warn, "the store was restored");
        }
        true
    }

    /// A generation begins with no runs: what is assigned from before it is removed. (An assignment that was kept would be
    /// taken for a new epoch, which starts where the old one did.)
    pub(crate) async fn begin_generation(&self, keys: &Keyspace) -> Result<()> {
        let view = View::decode(keys, &self.store.list(&keys.all()).await?)?;
        let Some(schema) = &view.schema else { return Ok(()) };
        let generation = schema.value.generation;
        let before = view.assignments.iter().filter(|(_, run)| run.mod_revision < schema.mod_revision);
        let gone: Vec<Write> = before.map(|(task, _)| keys.delete::<AssignmentKey>(task)).collect();
        let message = format!(
            "generation {generation} of the store begins: every task starts again at its checkpoint ({} were assigned before)",
            gone.len()
        );
        self.events.tell(Level::Warn, "generation_begins", message, &[]);
        for batch in gone.chunks(store::COMMIT_OPS_MAX) {
            match self.store.commit(&[self.guard()], batch.to_vec()).await? {
                Commit::Done(_) => {}
                Commit::Lost(_) => return Err(Error::not_leader()),
            }
        }
        Ok(())
    }

    /// Once nothing of the former generation can land any more, this one is like any other.
    pub(crate) async fn settle_generation(&self) {
        let (guard, write) = {
            let state = self.state();
            let heard = &state.memory.observed.heard;
            let due = heard.unknown_until(&self.config.timing) <= self.clock.now();
            let (view, keys) = (&state.memory.view, &state.memory.keys);
            let Some(schema) = view.schema.as_ref().filter(|schema| schema.value.begins && due) else {
                return;
            };
            let settled = Schema { begins: false, ..schema.value };
            let guard = Guard::Unchanged(keys.schema(), schema.mod_revision);
            (guard, keys.put::<SchemaKey>(&(), &settled))
        };
        match self.commit(vec![guard], vec![write]).await {
            Ok(Outcome::Done(_)) => self.state().memory.observed.heard.generation_begins = false,
            Ok(Outcome::Lost(_)) => {}
            Err(error) => tracing::warn!(%error, "the new generation could not be settled, trying again"),
        }
    }
}

/// A leadership in the order in which they came: like an epoch.
fn seniority(leader: &v1::Leader) -> Epoch {
    Epoch { generation: leader.generation, revision: leader.revision }
}
