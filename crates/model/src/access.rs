//! Who may do what, as the catalog stores it: users and roles (grantees), and what was granted to them. What follows from
//! that is `sql::access`; the coordinator stores a grantee under `/grantee/{name}` and is the only one that reads it.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{MASK, ObjectId, Timestamp};

/// What may be granted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privilege {
    /// To look: at a source or a sink and its splits, to read a source by a sink, to look at the cluster.
    Select,
    /// To use a credential.
    Read,
    /// To use a data sink.
    Connect,
    /// To change, to drop, to grant; includes the others on the same object.
    Admin,
    /// `CREATE SOURCE` in a schema.
    CreateSource,
    /// `CREATE SINK` in a schema.
    CreateSink,
    /// `CREATE CREDENTIAL` in a schema.
    CreateCredential,
    /// Everything.
    SystemAdmin,
    /// Users, roles, grants and credentials.
    SystemUserAdmin,
}

impl Privilege {
    /// The words of `GRANT`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Select => "SELECT",
            Self::Read => "READ",
            Self::Connect => "CONNECT",
            Self::Admin => "ADMIN",
            Self::CreateSource => "CREATE SOURCE",
            Self::CreateSink => "CREATE SINK",
            Self::CreateCredential => "CREATE CREDENTIAL",
            Self::SystemAdmin => "SYSTEM_ADMIN",
            Self::SystemUserAdmin => "SYSTEM_USER_ADMIN",
        }
    }

    /// Whether it is about the whole system rather than about an object.
    #[must_use]
    pub fn of_system(self) -> bool {
        matches!(self, Self::SystemAdmin | Self::SystemUserAdmin)
    }
}

/// What something was granted on. Objects are named by id, so that one of the same name inherits nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A source, a sink, a credential.
    Object(ObjectId),
    /// The schema `public`: the only one.
    Schema,
    /// The cluster: its workers, its balance, its events; also what is granted on nothing.
    Cluster,
}

/// One thing that was granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// What.
    pub privilege: Privilege,
    /// On what.
    pub on: Target,
    /// `WITH GRANT OPTION`
    #[serde(default)]
    pub option: bool,
    /// Whose right to grant it rests on; `None` for administrators and owners. It counts only while that one has the right.
    #[serde(default)]
    pub by: Option<ObjectId>,
}

/// A user or a role.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GranteeKind {
    /// Somebody who calls.
    User,
    /// A set of privileges with a name.
    Role,
}

impl GranteeKind {
    /// The word users read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Role => "role",
        }
    }
}

/// A user or a role, and what was granted to it. Users and roles share one space of names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grantee {
    /// Made by the leader; a later one of the same name is another one.
    pub id: ObjectId,
    /// Which of both.
    pub kind: GranteeKind,
    /// A user without one comes by certificate or token.
    #[serde(default)]
    pub password: Option<PasswordHash>,
    /// The roles that were granted to it.
    #[serde(default)]
    pub roles: BTreeSet<ObjectId>,
    /// The privileges that were granted to it.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// When it was created (the leader's clock).
    pub created_at: Timestamp,
}

impl Grantee {
    /// One to whom nothing was granted.
    #[must_use]
    pub fn new(id: ObjectId, kind: GranteeKind, created_at: Timestamp) -> Self {
        Self { id, kind, password: None, roles: BTreeSet::new(), grants: Vec::new(), created_at }
    }
}

/// A hashed password in PHC form (`$argon2id$…`). `Debug` masks it (I9).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// A hash as it is written.
    pub fn new(phc: impl Into<String>) -> Self {
        Self(phc.into())
    }

    /// The text, for whoever compares.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_stored_and_never_shown() {
        let mut user = Grantee::new(ObjectId::from_parts(1, 2), GranteeKind::User, Timestamp(3));
        user.password = Some(PasswordHash::new("$argon2id$hunter2"));
        assert!(!format!("{user:?}").contains("hunter2"));
        let stored = serde_json::to_string(&user).unwrap();
        assert_eq!(serde_json::from_str::<Grantee>(&stored).unwrap(), user);
    }
}
