//! A store that was restored from a backup: its revisions begin again at an older one, so an epoch that it gives out now may be
//! smaller than one that still runs. Epochs are ordered by the store's generation first; whoever sees that the store went back
//! raises it, and every later epoch is newer than all before (I3).

use model::Epoch;
use proto::v1;
use store::{Guard, Schema, SchemaKey};

use super::hear::run_of;
use crate::{
    events::Level,
    term::{Outcome, Term},
};

impl Term {
    /// Looks whether a process runs an epoch that this store has never come to. Then the generation is raised and the term
    /// ends: the next one lists everything anew. `true` if so.
    pub(super) async fn sees_restore(&self, hello: &v1::Hello) -> bool {
        let (guard, write, newest) = {
            let state = self.state();
            let (view, keys) = (&state.memory.view, &state.memory.keys);
            let Some(schema) = &view.schema else { return false };
            let reached = view.epoch(view.revision);
            let runs = hello.running.iter().filter_map(|run| run_of(run.task.as_ref(), run.epoch));
            let newest: Option<Epoch> = runs.map(|(_, epoch)| epoch).filter(|epoch| *epoch > reached).max();
            let Some(newest) = newest else { return false };
            let raised = Schema { generation: newest.generation + 1, ..schema.value };
            let guard = Guard::Unchanged(keys.schema(), schema.mod_revision);
            (guard, keys.put::<SchemaKey>(&(), &raised), newest)
        };
        if let Ok(Outcome::Done(_)) = self.commit(vec![guard], vec![write]).await {
            let message = format!(
                "worker `{}` runs epoch {newest}, which the store has not come to: it was restored from a backup; a new \
                 generation begins, and what was delivered since the backup is delivered again",
                hello.worker
            );
            self.events.tell(Level::Error, "store_restored", message.as_str(), &[("worker", &hello.worker)]);
            self.end(Level::Warn, "the store was restored");
        }
        true
    }
}
