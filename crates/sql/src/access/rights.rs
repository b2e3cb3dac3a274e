//! What somebody may do, worked out from what was granted: the union over a user and all its roles, nested ones too. A grant
//! that rests on somebody's right to grant counts only while that one has it; so a privilege that is taken away takes with
//! it what was passed on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use model::{Grant, Grantee, GranteeKind, ObjectId, Privilege, Target};

use super::On;

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Principal {
    /// The name; what it creates belongs to it. `None` for the administrator without a name.
    pub name: Option<String>,
    /// The user behind the name, if the catalog has one.
    pub id: Option<ObjectId>,
    /// Roles that it has besides those that were granted: a token brings them.
    pub roles: BTreeSet<ObjectId>,
    /// May do everything: nobody needs to log in here.
    pub administrator: bool,
    /// It showed its password.
    pub by_password: bool,
}

impl Principal {
    /// Whose an object is that it creates, as the catalog stores it; `None` for the administrator without a name. A user is
    /// told by its id, so that a later one of the same name inherits nothing.
    #[must_use]
    pub fn owner(&self) -> Option<String> {
        match (self.id, &self.name) {
            (Some(id), _) => Some(format!("id:{id}")),
            (None, Some(name)) => Some(format!("name:{name}")),
            (None, None) => None,
        }
    }
}

/// All users and roles.
#[derive(Clone, Debug, Default)]
pub struct Grantees<'a> {
    named: BTreeMap<&'a str, &'a Grantee>,
    by_id: HashMap<ObjectId, (&'a str, &'a Grantee)>,
}

/// Who may rest a grant on what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Support {
    /// An administrator or the owner: on nobody's grant.
    Own,
    /// On what was granted to this one.
    Of(ObjectId),
}

impl<'a> Grantees<'a> {
    /// Of these names and records.
    pub fn new(all: impl IntoIterator<Item = (&'a str, &'a Grantee)>) -> Self {
        let named: BTreeMap<&str, &Grantee> = all.into_iter().collect();
        let by_id = named.iter().map(|(name, grantee)| (grantee.id, (*name, *grantee))).collect();
        Self { named, by_id }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&'a Grantee> {
        self.named.get(name).copied()
    }

    /// The one behind an id, with its name.
    #[must_use]
    pub fn get(&self, id: ObjectId) -> Option<(&'a str, &'a Grantee)> {
        self.by_id.get(&id).copied()
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a Grantee)> + '_ {
        self.named.iter().map(|(name, grantee)| (*name, *grantee))
    }

    /// These, and every role that they are in, directly or through another.
    #[must_use]
    pub fn closure(&self, from: impl IntoIterator<Item = ObjectId>) -> BTreeSet<ObjectId> {
        let mut found = BTreeSet::new();
        let mut left: Vec<ObjectId> = from.into_iter().collect();
        while let Some(id) = left.pop() {
            if let Some((_, grantee)) = self.get(id)
                && found.insert(id)
            {
                // A user is no role: an id among roles that is a user's means nothing.
                let roles = grantee.roles.iter().filter(|role| self.is_role(**role));
                left.extend(roles.copied());
            }
        }
        found
    }

    fn is_role(&self, id: ObjectId) -> bool {
        self.get(id).is_some_and(|(_, grantee)| grantee.kind == GranteeKind::Role)
    }

    /// Whether a grant counts: whoever it rests on still may grant it.
    #[must_use]
    pub fn counts(&self, grant: &Grant) -> bool {
        self.counts_but(grant, &mut Vec::new())
    }

    /// `path` is who is being looked at: a circle of grants that rest on each other supports nothing.
    fn counts_but(&self, grant: &Grant, path: &mut Vec<ObjectId>) -> bool {
        let Some(by) = grant.by else { return true };
        if path.contains(&by) {
            return false;
        }
        path.push(by);
        let gives = |held: &&Grant| {
            held.on == grant.on
                && (held.privilege == Privilege::Admin || held.privilege == grant.privilege && held.option)
        };
        let holders = self.closure([by]);
        let counts = holders
            .iter()
            .filter_map(|id| self.get(*id))
            .flat_map(|(_, holder)| holder.grants.iter().filter(gives))
            .any(|held| self.counts_but(held, path));
        path.pop();
        counts
    }

    /// Whether a user or a role has `SYSTEM_ADMIN`, by whatever way.
    #[must_use]
    pub fn is_powerful(&self, id: ObjectId) -> bool {
        let has = |id: &ObjectId| {
            let grants = self.get(*id).map(|(_, grantee)| grantee.grants.as_slice()).unwrap_or_default();
            grants.iter().any(|grant| grant.privilege == Privilege::SystemAdmin && self.counts(grant))
        };
        self.closure([id]).iter().any(has)
    }
}

/// What somebody may do.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    principal: Principal,
    all: bool,
    users: bool,
    /// Who has `SYSTEM_ADMIN`: only such a one may change them.
    powerful: BTreeSet<String>,
    /// The principal and its roles.
    mine: BTreeMap<ObjectId, String>,
    owned: HashSet<On>,
    /// Privileges, each with whether it may be passed on, and through whom.
    held: HashMap<On, BTreeMap<Privilege, Held>>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    option: Option<ObjectId>,
    through: ObjectId,
}

impl Rights {
    /// Those of `principal`. `name` tells what stands behind an id; `owned` is what belongs to the principal.
    pub fn of(
        principal: Principal,
        grantees: &Grantees<'_>,
        name: impl Fn(ObjectId) -> Option<On>,
        owned: impl IntoIterator<Item = On>,
    ) -> Self {
        let ids = grantees.closure(principal.id.into_iter().chain(principal.roles.iter().copied()));
        let mine = ids.iter().filter_map(|id| Some((*id, grantees.get(*id)?.0.to_owned()))).collect();
        let mut rights = Self { mine, owned: owned.into_iter().collect(), ..Self::default() };
        (rights.all, rights.users) = (principal.administrator, principal.administrator);
        for (id, grantee) in ids.iter().filter_map(|id| Some((*id, grantees.get(*id)?.1))) {
            for grant in grantee.grants.iter().filter(|grant| grantees.counts(grant)) {
                rights.take(id, grant, &name);
            }
        }
        rights.users |= rights.all;
        let powerful = grantees.iter().filter(|(_, grantee)| grantees.is_powerful(grantee.id));
        rights.powerful = powerful.map(|(name, _)| name.to_owned()).collect();
        rights.principal = principal;
        rights
    }

    fn take(&mut self, through: ObjectId, grant: &Grant, name: impl Fn(ObjectId) -> Option<On>) {
        match grant.privilege {
            Privilege::SystemAdmin => self.all = true,
            Privilege::SystemUserAdmin => self.users = true,
            privilege => {
                let on = match grant.on {
                    Target::Object(id) => name(id),
                    Target::Schema => Some(On::Schema),
                    Target::Cluster => Some(On::Cluster),
                };
                let Some(on) = on else { return };
                let held = self.held.entry(on).or_default();
                let held = held.entry(privilege).or_insert(Held { option: None, through });
                if grant.option && held.option.is_none() {
                    held.option = Some(through);
                }
            }
        }
    }

    /// Whose rights these are.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// May do everything.
    #[must_use]
    pub fn is_administrator(&self) -> bool {
        self.all
    }

    /// Whether it has the privilege on the thing.
    #[must_use]
    pub fn has(&self, privilege: Privilege, on: &On) -> bool {
        // Whoever manages users manages credentials; CREATE CREDENTIAL is everybody's, for own use.
        let by_office = self.all
            || self.users && matches!(on, On::Credential(_))
            || privilege == Privilege::CreateCredential;
        by_office || self.owned.contains(on) || self.holds(privilege, on).is_some()
    }

    fn holds(&self, privilege: Privilege, on: &On) -> Option<Held> {
        let held = self.held.get(on)?;
        held.get(&privilege).or_else(|| held.get(&Privilege::Admin)).copied()
    }

    /// Whether it may see that the thing is there: any privilege on it will do.
    #[must_use]
    pub fn sees(&self, on: &On) -> bool {
        self.all
            || self.owned.contains(on)
            || self.held.contains_key(on)
            || self.users && matches!(on, On::Credential(_))
    }

    /// Whether it has a privilege of the system.
    #[must_use]
    pub fn has_system(&self, privilege: Privilege) -> bool {
        match privilege {
            Privilege::SystemUserAdmin => self.users,
            _ => self.all,
        }
    }

    /// Whether it may grant the privilege on the thing, or take it away.
    #[must_use]
    pub fn may_give(&self, privilege: Privilege, on: &On) -> bool {
        self.support(privilege, on).is_some()
    }

    /// What a grant of the privilege on the thing would rest on; `None` if it may not be given.
    #[must_use]
    pub fn support(&self, privilege: Privilege, on: &On) -> Option<Support> {
        if self.users || self.owned.contains(on) {
            return Some(Support::Own);
        }
        let held = self.held.get(on)?;
        let admin = held.get(&Privilege::Admin).map(|held| held.through);
        let through = admin.or_else(|| held.get(&privilege)?.option)?;
        // A user's grants rest on the user, whatever role it has the right through.
        Some(Support::Of(self.principal.id.unwrap_or(through)))
    }

    /// Whether a user or a role of this name has `SYSTEM_ADMIN`.
    #[must_use]
    pub fn is_powerful(&self, name: &str) -> bool {
        self.powerful.contains(name)
    }

    /// Whether this is the principal's name or that of one of its roles.
    #[must_use]
    pub fn is_mine(&self, name: &str) -> bool {
        self.mine.values().any(|mine| mine == name)
    }

    /// Who showed a password may change it. Who came by certificate or token may not give itself one: that would outlive them.
    #[must_use]
    pub fn may_change_own_password(&self, name: &str) -> bool {
        self.principal.by_password && self.principal.name.as_deref() == Some(name)
    }

    /// What `SHOW PRIVILEGES` lists: the privilege, on what, through which role, and whether it may be passed on.
    #[must_use]
    pub fn listed(&self) -> Vec<(Privilege, Option<On>, String, bool)> {
        let own = self.principal.name.clone().unwrap_or_default();
        let mut listed = Vec::new();
        if self.all {
            listed.push((Privilege::SystemAdmin, None, own.clone(), false));
        } else if self.users {
            listed.push((Privilege::SystemUserAdmin, None, own.clone(), false));
        }
        listed.extend(self.owned.iter().map(|on| (Privilege::Admin, Some(on.clone()), own.clone(), true)));
        for (on, held) in &self.held {
            listed.extend(held.iter().map(|(privilege, held)| {
                let through = self.mine.get(&held.through).cloned().unwrap_or_default();
                (*privilege, Some(on.clone()), through, held.option.is_some())
            }));
        }
        listed.sort();
        listed
    }
}
