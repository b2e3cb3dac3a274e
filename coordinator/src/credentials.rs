//! Credentials in the catalog: created, changed and dropped by guarded commits, like sources and sinks (see `catalog`).
//!
//! A changed credential gives every source and sink that names it a new revision, so its tasks get new epochs through a drain, as
//! after `ALTER`: the next connection is made with the new secret, and nothing is lost or restarted but the runs. With many users
//! that takes several commits; until the last one has landed, the credential says so, and whoever leads goes on with it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use connector::Registry;
use model::{CredentialSpec, ObjectId, ObjectKind};
use sql::access::On;
use store::{Guard, NameKey, ObjectKey, ObjectRecord, Spec, Write};

use crate::{
    catalog::{ATTEMPTS_MAX, busy, missing, new_id},
    clock,
    error::{Error, ErrorKind, Result},
    events::Level,
    handle::Leader,
    memory::Memory,
    term::{Outcome, Term},
};

/// Users that get their new revision in one transaction; besides them there are the credential and the leader.
const USERS_MAX: usize = store::COMMIT_OPS_MAX - 8;

/// Credentials that one statement may drop: a name and an object each.
const DROPS_MAX: usize = store::COMMIT_OPS_MAX / 2 - 1;

/// When users get their new revision that somebody else was changing.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Leader {
    /// The connectors, with the credentials that the catalog has now.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.term.state().memory.registry.clone()
    }

    /// The credential of this name.
    #[must_use]
    pub fn credential(&self, name: &str) -> Option<Arc<CredentialSpec>> {
        let state = self.term.state();
        let id = state.memory.named(ObjectKind::Credential, name)?;
        state.memory.credential(id).cloned().map(Arc::new)
    }

    /// All credentials, sorted by name.
    #[must_use]
    pub fn credentials(&self) -> Vec<Arc<CredentialSpec>> {
        let mut credentials = self.term.state().memory.credentials();
        credentials.retain(|spec| self.shows(&On::Credential(spec.name.clone())));
        credentials
    }

    /// The sources and sinks that name a credential.
    #[must_use]
    pub fn users_of(&self, credential: &str) -> Vec<(ObjectKind, String)> {
        self.term.state().memory.users(credential).into_iter().map(|(kind, name, _)| (kind, name)).collect()
    }

    /// Makes a credential durable. The draft's id, `created_at` and revision are chosen here. Errors: `Exists`.
    pub async fn create_credential(&self, mut draft: CredentialSpec) -> Result<()> {
        (draft.id, draft.created_at, draft.revision) = (new_id(), clock::wall(), 1);
        self.term.create(Spec::Credential(Box::new(draft)), None, self.owner()).await.map(drop)
    }

    /// Changes a credential; every run that uses it restarts. Says how many objects use it. `change` may be called again after a
    /// lost race.
    pub async fn update_credential(
        &self,
        name: &str,
        change: impl Fn(&mut CredentialSpec) -> Result<()> + Send,
    ) -> Result<usize> {
        let _one_at_a_time = self.term.naming.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let mut spec =
                self.credential(name).ok_or_else(|| missing(ObjectKind::Credential, name))?.as_ref().clone();
            change(&mut spec)?;
            spec.revision += 1;
            let (guards, writes, users) = self.term.state().memory.change_of(spec)?;
            if let Outcome::Done(_) = self.term.commit(guards, writes).await? {
                let message = format!("credential `{name}` changed, {users} object(s) use it");
                self.term.events.tell(Level::Info, "credential_changed", message, &[("credential", name)]);
                self.term.renewals.notify_one();
                self.term.nudge.notify_one();
                return Ok(users);
            }
        }
        Err(busy(name))
    }

    /// Drops credentials, all or none. Errors: `InUse`, naming the users of the first that has any.
    pub async fn drop_credentials(&self, names: &[String]) -> Result<()> {
        let _one_at_a_time = self.term.naming.lock().await;
        if names.len() > DROPS_MAX {
            let text = format!("at most {DROPS_MAX} credentials are dropped at once: name them");
            return Err(Error::new(ErrorKind::State, text));
        }
        for _ in 0..ATTEMPTS_MAX {
            let (guards, writes) = self.term.state().memory.removal_of(names)?;
            if let Outcome::Done(_) = self.term.commit(guards, writes).await? {
                for name in names {
                    let message = format!("credential `{name}` dropped");
                    self.term.events.tell(
                        Level::Info,
                        "credential_dropped",
                        message,
                        &[("credential", name)],
                    );
                }
                return Ok(());
            }
        }
        Err(busy(names.first().map_or("*", String::as_str)))
    }
}

/// Gives all users of a changed credential their new revision where the change itself could not. Runs until the term ends.
pub(crate) async fn renew(term: Arc<Term>) {
    loop {
        let due: Vec<CredentialSpec> = {
            let state = term.state();
            state.memory.credentials().iter().filter(|c| c.renewal_due).map(|c| c.as_ref().clone()).collect()
        };
        let mut again = false;
        for credential in due {
            if let Err(error) = renew_users(&term, &credential).await {
                let name = credential.name;
                tracing::warn!(credential = name, %error, "users of a changed credential go on with the old one");
                again = true;
            }
        }
        tokio::select! {
            biased;
            () = term.cancel.cancelled() => return,
            () = term.renewals.notified() => {}
            () = tokio::time::sleep(AGAIN_AFTER), if again => {}
        }
    }
}

async fn renew_users(term: &Term, credential: &CredentialSpec) -> Result<()> {
    let mut left: Vec<ObjectId> = {
        let state = term.state();
        state.memory.users(&credential.name).into_iter().map(|(.., id)| id).collect()
    };
    while !left.is_empty() {
        let part = left.split_off(left.len().saturating_sub(USERS_MAX));
        let (guards, writes) = term.state().memory.renewed(&part);
        if let Outcome::Lost(_) = term.commit(guards, writes).await? {
            // Somebody changed one of them meanwhile: all again, from what is there now.
            return Err(busy(&credential.name));
        }
        term.nudge.notify_one();
    }
    let (guard, write) = {
        let state = term.state();
        let Some(object) = state.memory.view.objects.get(&credential.id) else { return Ok(()) };
        let done = CredentialSpec { renewal_due: false, ..credential.clone() };
        let guard = Guard::Unchanged(state.memory.keys.object(credential.id), object.mod_revision);
        let record = ObjectRecord { spec: Spec::Credential(Box::new(done)), ..object.value.clone() };
        if object.value.spec != Spec::Credential(Box::new(credential.clone())) {
            return Err(busy(&credential.name));
        }
        (guard, state.memory.keys.put::<ObjectKey>(&credential.id, &record))
    };
    term.commit(vec![guard], vec![write]).await.map(drop)
}

impl Term {
    /// That every credential exists that an object names. Under the lock of `naming`, so that none is dropped meanwhile.
    pub(crate) fn check_credentials(&self, spec: &Spec) -> Result<()> {
        let state = self.state();
        let known = |name: &str| state.memory.named(ObjectKind::Credential, name).is_some();
        match spec.credentials().find(|name| !known(name)) {
            Some(name) => Err(missing(ObjectKind::Credential, name)),
            None => Ok(()),
        }
    }
}

impl Memory {
    /// The credential behind an id.
    pub fn credential(&self, id: ObjectId) -> Option<&CredentialSpec> {
        match &self.view.objects.get(&id)?.value.spec {
            Spec::Credential(spec) => Some(spec),
            Spec::Source(_) | Spec::Sink(_) => None,
        }
    }

    /// Every credential, sorted by name.
    pub fn credentials(&self) -> Vec<Arc<CredentialSpec>> {
        let ids = self.of_kind(ObjectKind::Credential);
        ids.filter_map(|id| Some(Arc::new(self.credential(id)?.clone()))).collect()
    }

    /// The sources and sinks that name a credential and are not being dropped.
    fn users(&self, credential: &str) -> Vec<(ObjectKind, String, ObjectId)> {
        let mut users = self.all_users(credential);
        users.retain(|(.., id)| !self.is_dropping(*id));
        users
    }

    /// The same, and the sources that are being dropped and are needed to take back what their sinks registered.
    fn last_users(&self, credential: &str) -> Vec<(ObjectKind, String, ObjectId)> {
        let registered = |object: &ObjectRecord| match &object.spec {
            Spec::Sink(sink) if object.registration.is_some() => Some(sink.source),
            _ => None,
        };
        let needed: BTreeSet<ObjectId> =
            self.view.objects.values().filter_map(|object| registered(&object.value)).collect();
        let mut users = self.all_users(credential);
        users.retain(|(.., id)| !self.is_dropping(*id) || needed.contains(id));
        users
    }

    fn is_dropping(&self, id: ObjectId) -> bool {
        self.view.objects.get(&id).is_some_and(|object| object.value.dropping)
    }

    fn all_users(&self, credential: &str) -> Vec<(ObjectKind, String, ObjectId)> {
        let named = |spec: &Spec| spec.credentials().any(|name| name == credential);
        let users = self.view.objects.iter().filter(|(_, object)| named(&object.value.spec));
        users
            .map(|(id, object)| (object.value.spec.kind(), object.value.spec.name().to_owned(), *id))
            .collect()
    }

    /// What changing a credential guards and writes, and how many use it.
    fn change_of(&self, mut spec: CredentialSpec) -> Result<(Vec<Guard>, Vec<Write>, usize)> {
        let id = spec.id;
        let object = self.view.objects.get(&id).ok_or_else(|| missing(ObjectKind::Credential, &spec.name))?;
        let users: Vec<ObjectId> = self.users(&spec.name).into_iter().map(|(.., id)| id).collect();
        spec.renewal_due = users.len() > USERS_MAX;
        let (mut guards, mut writes) =
            if spec.renewal_due { (Vec::new(), Vec::new()) } else { self.renewed(&users) };
        guards.push(Guard::Unchanged(self.keys.object(id), object.mod_revision));
        let record = ObjectRecord { spec: Spec::Credential(Box::new(spec)), ..object.value.clone() };
        writes.push(self.keys.put::<ObjectKey>(&id, &record));
        Ok((guards, writes, users.len()))
    }

    /// What a new revision of these objects guards and writes.
    fn renewed(&self, ids: &[ObjectId]) -> (Vec<Guard>, Vec<Write>) {
        let renewed = |id: &ObjectId| {
            let object = self.view.objects.get(id)?;
            let mut record = object.value.clone();
            match &mut record.spec {
                Spec::Source(spec) => spec.revision += 1,
                Spec::Sink(spec) => spec.revision += 1,
                Spec::Credential(_) => return None,
            }
            let guard = Guard::Unchanged(self.keys.object(*id), object.mod_revision);
            Some((guard, self.keys.put::<ObjectKey>(id, &record)))
        };
        ids.iter().filter_map(renewed).unzip()
    }

    /// What dropping credentials guards and writes.
    fn removal_of(&self, names: &[String]) -> Result<(Vec<Guard>, Vec<Write>)> {
        let (mut guards, mut writes) = (Vec::new(), Vec::new());
        for name in names.iter().collect::<BTreeSet<_>>() {
            let kind = ObjectKind::Credential;
            let id = self.named(kind, name).ok_or_else(|| missing(kind, name))?;
            let users = self.last_users(name);
            if !users.is_empty() {
                let said = |(kind, name, id): &(ObjectKind, String, ObjectId)| {
                    let going = if self.is_dropping(*id) { " (being dropped)" } else { "" };
                    format!("{} \"{name}\"{going}", kind.as_str())
                };
                let users: Vec<String> = users.iter().map(said).collect();
                let text = format!("credential \"{name}\" is still used by {}", users.join(", "));
                return Err(Error::new(ErrorKind::InUse, text));
            }
            if let Some(object) = self.view.objects.get(&id) {
                guards.push(Guard::Unchanged(self.keys.object(id), object.mod_revision));
                writes.push(self.keys.delete::<ObjectKey>(&id));
            }
            writes.push(self.keys.delete::<NameKey>(&(kind, name.clone())));
        }
        Ok((guards, writes))
    }
}
