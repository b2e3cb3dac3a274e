//! Objects whose definitions are said anew: new specs take the places of present ones in one guarded commit, all or none. The
//! ids stay, and so do checkpoints (I1, I4); every run restarts at the new revision, as after a change.
//!
//! Called by the admin room, which decides what takes the place of what. It decides again under the lock of names: no other
//! statement creates or changes what it looks at until the commit.

use model::ObjectId;
use store::{Guard, ObjectKey, ObjectRecord, Spec, Write};

use crate::{
    catalog::{ATTEMPTS_MAX, busy, missing},
    error::{Error, ErrorKind, Result},
    events::Level,
    handle::Leader,
    memory::Memory,
    term::Outcome,
};

/// Objects that one statement can change: a guard each, and the leader's.
const OBJECTS_MAX: usize = store::COMMIT_OPS_MAX - 8;

impl Leader {
    /// Puts what `plan` says in the places of the objects of the same ids; the first is the one that the statement names, the
    /// others depend on it. Nothing is done if it says nothing. `plan` is called again after a lost race; revisions are raised
    /// here.
    ///
    /// # Errors
    /// Those of `plan`; `Missing` if an object or a credential is gone.
    pub(crate) async fn replace_objects<E: From<Error>>(
        &self,
        name: &str,
        plan: impl Fn() -> Result<Vec<Spec>, E> + Send,
    ) -> Result<bool, E> {
        let _one_at_a_time = self.term.naming.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let mut specs = plan()?;
            let Some(first) = specs.first() else { return Ok(false) };
            let (kind, id) = (first.kind().as_str(), first.id());
            if specs.len() > OBJECTS_MAX {
                let text = format!(
                    "{} sinks would deliver other columns with {kind} \"{name}\", at most {} can change at once",
                    specs.len() - 1,
                    OBJECTS_MAX - 1
                );
                return Err(Error::new(ErrorKind::State, text).into());
            }
            for spec in &mut specs {
                self.term.check_credentials(spec)?;
                raise(spec);
            }
            let Some((guards, writes)) = self.term.state().memory.swap_of(specs)? else { continue };
            if let Outcome::Done(_) = self.term.commit(guards, writes).await? {
                self.term.state().wake_discovery(id);
                self.term.nudge.notify_one();
                let message = format!("{kind} `{name}` replaced");
                self.term.events.tell(Level::Info, &format!("{kind}_replaced"), message, &[(kind, name)]);
                return Ok(true);
            }
        }
        Err(busy(name).into())
    }
}

fn raise(spec: &mut Spec) {
    match spec {
        Spec::Source(spec) => spec.revision += 1,
        Spec::Sink(spec) => spec.revision += 1,
        Spec::Credential(spec) => spec.revision += 1,
    }
}

/// The revision of a spec: it grows with every change, so that what follows on a spec that was read has the next one.
pub(crate) fn revision(spec: &Spec) -> u64 {
    match spec {
        Spec::Source(spec) => spec.revision,
        Spec::Sink(spec) => spec.revision,
        Spec::Credential(spec) => spec.revision,
    }
}

impl Memory {
    /// What putting these specs in their places guards and writes; `None` if one of those places has changed since it was read.
    fn swap_of(&self, specs: Vec<Spec>) -> Result<Option<(Vec<Guard>, Vec<Write>)>> {
        let (mut guards, mut writes) = (Vec::new(), Vec::new());
        for spec in specs {
            let id: ObjectId = spec.id();
            let there = self.view.objects.get(&id).filter(|object| !object.value.dropping);
            let there = there.ok_or_else(|| missing(spec.kind(), spec.name()))?;
            if revision(&there.value.spec) + 1 != revision(&spec) {
                return Ok(None);
            }
            guards.push(Guard::Unchanged(self.keys.object(id), there.mod_revision));
            let record = ObjectRecord { spec, ..there.value.clone() };
            writes.push(self.keys.put::<ObjectKey>(&id, &record));
        }
        Ok(Some((guards, writes)))
    }
}
