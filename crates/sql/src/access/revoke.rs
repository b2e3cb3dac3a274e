//! What a `REVOKE` takes away: the grants that it names, and those that rest on them alone.

use std::collections::BTreeMap;

use model::{Grant, Grantee, ObjectId, Privilege, Target};

use super::{Grantees, Support};

/// What is to be revoked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revocation {
    /// From whom.
    pub from: String,
    /// What.
    pub privileges: Vec<Privilege>,
    /// On what.
    pub on: Target,
    /// By whom: an administrator, the owner and who has ADMIN take it whoever gave it; who has no more than the right to pass
    /// it on takes what he passed on.
    pub by: Option<ObjectId>,
    /// `GRANT OPTION FOR`
    pub option_only: bool,
}

/// What comes of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Revoked {
    /// Those who change, as they will be.
    pub changed: BTreeMap<String, Grantee>,
    /// Privileges that were not granted so.
    pub absent: Vec<Privilege>,
    /// Who loses what rests on it, besides.
    pub dependents: Vec<(String, Grant)>,
}

impl Revocation {
    fn takes(&self, grant: &Grant) -> bool {
        grant.on == self.on
            && self.privileges.contains(&grant.privilege)
            && (!self.option_only || grant.option)
            && self.by.is_none_or(|by| grant.by == Some(by))
    }

    /// Works it out.
    #[must_use]
    pub fn work_out(&self, all: &BTreeMap<String, Grantee>) -> Revoked {
        let mut revoked = Revoked::default();
        let Some(before) = all.get(&self.from) else { return revoked };
        let takes = |privilege: &Privilege| {
            before.grants.iter().any(|grant| grant.privilege == *privilege && self.takes(grant))
        };
        revoked.absent = self.privileges.iter().copied().filter(|privilege| !takes(privilege)).collect();
        let mut after = all.clone();
        if let Some(grantee) = after.get_mut(&self.from) {
            if self.option_only {
                grantee
                    .grants
                    .iter_mut()
                    .filter(|grant| self.takes(grant))
                    .for_each(|grant| grant.option = false);
            } else {
                grantee.grants.retain(|grant| !self.takes(grant));
            }
        }
        revoked.dependents = lost(all, &after, self.on);
        for (name, grant) in &revoked.dependents {
            if let Some(grantee) = after.get_mut(name) {
                grantee.grants.retain(|kept| kept != grant);
            }
        }
        revoked.changed =
            after.into_iter().filter(|(name, grantee)| all.get(name) != Some(grantee)).collect();
        revoked
    }
}

/// Grants on a target that counted before and do not count after, though they are still there.
fn lost(
    before: &BTreeMap<String, Grantee>,
    after: &BTreeMap<String, Grantee>,
    on: Target,
) -> Vec<(String, Grant)> {
    let view = |all| {
        Grantees::new(BTreeMap::iter(all).map(|(name, grantee): (&String, _)| (name.as_str(), grantee)))
    };
    let (old, new) = (view(before), view(after));
    let mut lost = Vec::new();
    for (name, grantee) in after {
        for grant in grantee.grants.iter().filter(|grant| grant.on == on) {
            if old.counts(grant) && !new.counts(grant) {
                lost.push((name.clone(), *grant));
            }
        }
    }
    lost
}

/// Adds a grant, or the right to pass it on to one that is there.
pub fn add(grants: &mut Vec<Grant>, privilege: Privilege, on: Target, option: bool, support: Support) {
    let by = match support {
        Support::Own => None,
        Support::Of(id) => Some(id),
    };
    let same = |grant: &&mut Grant| (grant.privilege, grant.on, grant.by) == (privilege, on, by);
    match grants.iter_mut().find(same) {
        Some(grant) => grant.option |= option,
        None => grants.push(Grant { privilege, on, option, by }),
    }
}
