//! Users and roles in the catalog: created, changed and dropped by guarded commits (see `catalog`), and the rights that
//! follow from them (`sql::access`). Whether whoever asks may do so was looked at before; here only the catalog can object.

use std::{collections::BTreeMap, sync::Arc};

use model::{Grantee, GranteeKind, ObjectId, ObjectKind, PasswordHash, Privilege, Target};
use sql::access::{Grantees, On, Principal, Revocation, Revoked, Rights, Support, add};
use store::{COMMIT_OPS_MAX, GranteeKey, Guard, Spec, Write};

use crate::{
    admin::hash,
    catalog::{ATTEMPTS_MAX, busy, new_id},
    clock,
    error::{Error, ErrorKind, Result},
    events::Level,
    handle::Leader,
    memory::Memory,
    term::{Outcome, Term},
};

/// Users and roles that one statement may change.
const CHANGES_MAX: usize = COMMIT_OPS_MAX - 8;

impl Leader {
    /// The user or role of this name.
    #[must_use]
    pub fn grantee(&self, name: &str) -> Option<Grantee> {
        let state = self.term.state();
        state.memory.view.grantees.get(name).map(|entry| entry.value.clone())
    }

    /// All users and roles.
    #[must_use]
    pub fn grantees(&self) -> BTreeMap<String, Grantee> {
        let state = self.term.state();
        state.memory.view.grantees.iter().map(|(name, entry)| (name.clone(), entry.value.clone())).collect()
    }

    /// What is behind an id; `None` for what is not there any more.
    #[must_use]
    pub fn thing(&self, id: ObjectId) -> Option<On> {
        self.term.state().memory.thing(id)
    }

    /// What belongs to a user.
    #[must_use]
    pub fn owned_by(&self, grantee: &Grantee) -> Vec<On> {
        let principal = Principal { id: Some(grantee.id), ..Principal::default() };
        self.term.state().memory.owned(&principal)
    }

    /// What a grant on a thing names.
    #[must_use]
    pub fn target(&self, on: &On) -> Option<Target> {
        let state = self.term.state();
        let named = |kind, name: &str| state.memory.named(kind, name).map(Target::Object);
        match on {
            On::Source(name) => named(ObjectKind::Source, name),
            On::Sink(name) => named(ObjectKind::Sink, name),
            On::Credential(name) => named(ObjectKind::Credential, name),
            On::Schema => Some(Target::Schema),
            On::Cluster => Some(Target::Cluster),
        }
    }

    /// The rights of a principal as they are now; `None` if the user that it was is gone.
    #[must_use]
    pub fn rights(&self, principal: &Principal) -> Option<Rights> {
        let state = self.term.state();
        let (memory, named) = (&state.memory, principal.name.as_deref());
        let now = named.and_then(|name| memory.view.grantees.get(name)).map(|entry| entry.value.id);
        if principal.id.is_some() && principal.id != now {
            return None;
        }
        Some(memory.rights(principal))
    }

    /// Creates a user or a role. Errors: `Exists`.
    pub async fn create_grantee(
        &self,
        name: &str,
        kind: GranteeKind,
        password: Option<PasswordHash>,
    ) -> Result<()> {
        let mut grantee = Grantee::new(new_id(), kind, clock::wall());
        grantee.password = password;
        if !self.term.put_new_grantee(name, &grantee).await? {
            return Err(Error::new(ErrorKind::Exists, format!("user or role \"{name}\" already exists")));
        }
        self.tell(kind, name, "created");
        Ok(())
    }

    /// Changes a user or a role; says whether anything changed. `change` may be called again after a lost race. Errors:
    /// `Missing`, and those of `change`.
    pub async fn change_grantee(
        &self,
        name: &str,
        change: impl Fn(&Grantees<'_>, &mut Grantee) -> Result<()> + Send,
    ) -> Result<bool> {
        for _ in 0..ATTEMPTS_MAX {
            let (guard, write) = {
                let state = self.term.state();
                let memory = &state.memory;
                let entry = memory.view.grantees.get(name).ok_or_else(|| missing(name))?;
                let mut grantee = entry.value.clone();
                change(&memory.grantees(), &mut grantee)?;
                if grantee == entry.value {
                    return Ok(false);
                }
                // What was granted on objects that are gone, or by who is, counts no more and goes with the next change.
                grantee.grants.retain(|grant| memory.is_there(grant.on));
                let guard = Guard::Unchanged(memory.keys.grantee(name), entry.mod_revision);
                (guard, memory.keys.put::<GranteeKey>(&name.to_owned(), &grantee))
            };
            if let Outcome::Done(_) = self.term.commit(vec![guard], vec![write]).await? {
                return Ok(true);
            }
        }
        Err(busy(name))
    }

    /// Grants privileges on a target to a user or a role; says whether anything changed.
    pub async fn grant(
        &self,
        name: &str,
        (privileges, on): (&[(Privilege, Support)], Target),
        option: bool,
    ) -> Result<bool> {
        let change = |_: &Grantees<'_>, grantee: &mut Grantee| {
            for (privilege, support) in privileges {
                add(&mut grantee.grants, *privilege, on, option, *support);
            }
            Ok(())
        };
        self.change_grantee(name, change).await
    }

    /// Takes privileges away. What rests on them alone goes too if `cascade`, else it is `InUse`, naming it.
    pub async fn revoke(&self, revocation: &Revocation, cascade: bool) -> Result<Revoked> {
        for _ in 0..ATTEMPTS_MAX {
            let revoked = revocation.work_out(&self.grantees());
            if !revoked.dependents.is_empty() && !cascade {
                let names: Vec<String> = revoked
                    .dependents
                    .iter()
                    .map(|(name, grant)| format!("{} of \"{name}\"", grant.privilege.as_str()))
                    .collect();
                let text = format!("dependent privileges exist: {}", names.join(", "));
                return Err(Error::new(ErrorKind::InUse, text));
            }
            if revoked.changed.is_empty() {
                return Ok(revoked);
            }
            if revoked.changed.len() > CHANGES_MAX {
                let text = format!(
                    "more than {CHANGES_MAX} users and roles would change: revoke from some of them first"
                );
                return Err(Error::new(ErrorKind::State, text));
            }
            let (guards, writes) = self.term.state().memory.changes_of(&revoked)?;
            if let Outcome::Done(_) = self.term.commit(guards, writes).await? {
                return Ok(revoked);
            }
        }
        Err(busy(&revocation.from))
    }

    /// Drops a user or a role. Errors: `Missing`; `InUse` if objects belong to it.
    pub async fn drop_grantee(&self, kind: GranteeKind, name: &str) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            let (guard, write) = {
                let state = self.term.state();
                let memory = &state.memory;
                let entry = memory.view.grantees.get(name).filter(|entry| entry.value.kind == kind);
                let entry = entry.ok_or_else(|| missing_kind(kind, name))?;
                let principal = Principal { id: Some(entry.value.id), ..Principal::default() };
                let owned = memory.owned(&principal).len();
                if owned > 0 {
                    let text = format!("user \"{name}\" owns {owned} object(s)");
                    return Err(Error::new(ErrorKind::InUse, text));
                }
                let guard = Guard::Unchanged(memory.keys.grantee(name), entry.mod_revision);
                (guard, memory.keys.delete::<GranteeKey>(&name.to_owned()))
            };
            if let Outcome::Done(_) = self.term.commit(vec![guard], vec![write]).await? {
                self.tell(kind, name, "dropped");
                return Ok(());
            }
        }
        Err(busy(name))
    }

    fn tell(&self, kind: GranteeKind, name: &str, what: &str) {
        let kind = kind.as_str();
        self.term.events.tell(
            Level::Info,
            &format!("{kind}_{what}"),
            format!("{kind} `{name}` {what}"),
            &[(kind, name)],
        );
    }

    /// A change of rights happened.
    pub fn tell_access(&self, event: &str, message: String) {
        self.term.events.tell(Level::Info, event, message, &[]);
    }
}

/// No user and no role has this name.
pub(crate) fn missing(name: &str) -> Error {
    Error::new(ErrorKind::Missing, format!("user or role \"{name}\" does not exist"))
}

fn missing_kind(kind: GranteeKind, name: &str) -> Error {
    Error::new(ErrorKind::Missing, format!("{} \"{name}\" does not exist", kind.as_str()))
}

impl Memory {
    /// All users and roles, for whoever decides.
    pub fn grantees(&self) -> Grantees<'_> {
        Grantees::new(self.view.grantees.iter().map(|(name, entry)| (name.as_str(), &entry.value)))
    }

    fn thing(&self, id: ObjectId) -> Option<On> {
        let object = &self.view.objects.get(&id).filter(|object| !object.value.dropping)?.value;
        Some(on(&object.spec))
    }

    fn is_there(&self, on: Target) -> bool {
        match on {
            Target::Object(id) => self.thing(id).is_some(),
            Target::Schema | Target::Cluster => true,
        }
    }

    /// What belongs to a principal.
    fn owned(&self, principal: &Principal) -> Vec<On> {
        let Some(owner) = principal.owner() else { return Vec::new() };
        let objects = self.view.objects.values().map(|object| &object.value);
        let owned = objects.filter(|object| !object.dropping && object.owner.as_ref() == Some(&owner));
        owned.map(|object| on(&object.spec)).collect()
    }

    fn rights(&self, principal: &Principal) -> Rights {
        if principal.administrator {
            return Rights::of(principal.clone(), &Grantees::default(), |_| None, []);
        }
        let name = |id| self.thing(id);
        Rights::of(principal.clone(), &self.grantees(), name, self.owned(principal))
    }

    fn changes_of(&self, revoked: &Revoked) -> Result<(Vec<Guard>, Vec<Write>)> {
        let (mut guards, mut writes) = (Vec::new(), Vec::new());
        for (name, grantee) in &revoked.changed {
            let entry = self.view.grantees.get(name).ok_or_else(|| missing(name))?;
            guards.push(Guard::Unchanged(self.keys.grantee(name), entry.mod_revision));
            writes.push(self.keys.put::<GranteeKey>(name, grantee));
        }
        Ok((guards, writes))
    }
}

fn on(spec: &Spec) -> On {
    let name = spec.name().to_owned();
    match spec.kind() {
        ObjectKind::Source => On::Source(name),
        ObjectKind::Sink => On::Sink(name),
        ObjectKind::Credential => On::Credential(name),
    }
}

impl Term {
    /// Writes a user or a role under a name that nobody has. `false` if somebody has it.
    async fn put_new_grantee(&self, name: &str, grantee: &Grantee) -> Result<bool> {
        let (guard, write) = {
            let keys = &self.state().memory.keys;
            (Guard::Absent(keys.grantee(name)), keys.put::<GranteeKey>(&name.to_owned(), grantee))
        };
        Ok(matches!(self.commit(vec![guard], vec![write]).await?, Outcome::Done(_)))
    }

    /// Creates the administrator of the settings if nobody who could log in is one. Called before the term answers anybody,
    /// so that there is no moment at which it is not there yet.
    pub async fn ensure_administrator(&self) -> Result<()> {
        let auth = &self.config.auth;
        let Some(password) = &auth.admin_password else { return Ok(()) };
        let name = &auth.admin_user;
        {
            let state = self.state();
            let grantees = state.memory.grantees();
            let administers =
                |grantee: &Grantee| grantee.kind == GranteeKind::User && grantees.is_powerful(grantee.id);
            if grantees.iter().any(|(_, grantee)| administers(grantee)) {
                return Ok(());
            }
            if grantees.named(name).is_some() {
                tracing::error!(
                    user = name,
                    "nobody is administrator, and the name in auth.admin_user is taken: name another"
                );
                return Ok(());
            }
        }
        let hash = hash(password.reveal().to_owned()).await;
        let hash = hash.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the process ends"))?;
        let mut grantee = Grantee::new(new_id(), GranteeKind::User, clock::wall());
        grantee.password = Some(hash);
        add(&mut grantee.grants, Privilege::SystemAdmin, Target::Cluster, false, Support::Own);
        if self.put_new_grantee(name, &grantee).await? {
            let message = format!("administrator `{name}` created from the settings");
            self.events.tell(Level::Info, "user_created", message, &[("user", name)]);
        }
        Ok(())
    }
}

/// What one caller of the admin API may see, and whose what it creates is.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub rights: Arc<Rights>,
}

impl Leader {
    /// The same leader as one caller sees it: lists leave out what it has no privilege on, and what it creates is its own.
    pub(crate) fn seen_by(&self, rights: Rights) -> Self {
        Self { term: Arc::clone(&self.term), viewer: Some(Arc::new(Viewer { rights: Arc::new(rights) })) }
    }

    /// The rights of whom this is seen by; those of an administrator for the coordinator itself.
    pub(crate) fn viewer_rights(&self) -> Arc<Rights> {
        match &self.viewer {
            Some(viewer) => Arc::clone(&viewer.rights),
            None => {
                let principal = Principal { administrator: true, ..Principal::default() };
                Arc::new(Rights::of(principal, &Grantees::default(), |_| None, []))
            }
        }
    }

    /// Whether whom this is seen by may change and drop it.
    pub(crate) fn administers(&self, on: &On) -> bool {
        self.viewer.as_ref().is_none_or(|viewer| viewer.rights.has(Privilege::Admin, on))
    }

    /// Whether it may be listed for whom this is seen by; everything for the coordinator itself.
    pub(crate) fn shows(&self, on: &On) -> bool {
        self.viewer.as_ref().is_none_or(|viewer| viewer.rights.sees(on))
    }

    /// Whether what is about a sink of a source may be listed: who sees one of both sees that.
    pub(crate) fn shows_of(&self, source: &str, sink: &str) -> bool {
        self.viewer.as_ref().is_none_or(|viewer| {
            viewer.rights.is_administrator()
                || viewer.rights.has(Privilege::Select, &On::Source(source.to_owned()))
                || viewer.rights.has(Privilege::Select, &On::Sink(sink.to_owned()))
        })
    }

    /// Whose what is created now is.
    pub(crate) fn owner(&self) -> Option<String> {
        self.viewer.as_ref().and_then(|viewer| viewer.rights.principal().owner())
    }
}
