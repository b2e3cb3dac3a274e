//! Users, roles, grants: the statements as they were written.

use std::fmt;

use model::{GranteeKind, MASK, Privilege};

use super::{ObjectName, Place};
use crate::print::ident;

/// A name that stands alone: a user's, a role's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name.
    pub name: String,
    /// Where it stands.
    pub place: Place,
}

/// The text of `PASSWORD '…'`. Nothing shows it (I9).
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// A password as it was written.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever hashes it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// What stands behind `ON`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantOn {
    /// `[SOURCE] name`
    Source(ObjectName),
    /// `SINK name`
    Sink(ObjectName),
    /// `CREDENTIAL name`
    Credential(ObjectName),
    /// `SCHEMA name`
    Schema(Name),
    /// `CLUSTER`
    Cluster,
}

/// What is granted or revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// `privilege, … ON …`
    Privileges {
        /// Each once, as written.
        privileges: Vec<Privilege>,
        /// On what.
        on: GrantOn,
    },
    /// `SYSTEM_ADMIN`, `SYSTEM_USER_ADMIN`
    System(Privilege),
    /// `role, …`
    Roles(Vec<Name>),
}

/// A statement about users, roles and grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessStatement {
    /// `CREATE USER | ROLE`
    Create {
        /// Which of both.
        kind: GranteeKind,
        /// `IF NOT EXISTS`
        if_not_exists: bool,
        /// Its name.
        name: Name,
        /// `PASSWORD '…'`, of a user.
        password: Option<Password>,
    },
    /// `ALTER USER name PASSWORD '…' | NULL`
    AlterUser {
        /// Whose.
        name: Name,
        /// The new one; `None` takes it away.
        password: Option<Password>,
    },
    /// `DROP USER | ROLE`
    Drop {
        /// Which of both.
        kind: GranteeKind,
        /// `IF EXISTS`
        if_exists: bool,
        /// Its name.
        name: Name,
    },
    /// `GRANT … TO …`
    Grant {
        /// What.
        granted: Granted,
        /// To whom.
        to: Vec<Name>,
        /// `WITH GRANT OPTION`
        option: bool,
    },
    /// `REVOKE … FROM …`
    Revoke {
        /// What.
        granted: Granted,
        /// From whom.
        from: Vec<Name>,
        /// `GRANT OPTION FOR`: the privilege stays.
        option_only: bool,
        /// `CASCADE`; else `RESTRICT`.
        cascade: bool,
    },
    /// `SHOW USERS | ROLES`
    Show(GranteeKind),
    /// `SHOW GRANTS [FOR name]`
    ShowGrants {
        /// A user or a role; without it everybody whom the caller may see.
        of: Option<Name>,
    },
    /// `SHOW PRIVILEGES`: what whoever asks may do, by whatever way.
    ShowPrivileges,
}

impl AccessStatement {
    /// The tag of the answer.
    #[must_use]
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Create { kind: GranteeKind::User, .. } => "CREATE USER",
            Self::Create { kind: GranteeKind::Role, .. } => "CREATE ROLE",
            Self::AlterUser { .. } => "ALTER USER",
            Self::Drop { kind: GranteeKind::User, .. } => "DROP USER",
            Self::Drop { kind: GranteeKind::Role, .. } => "DROP ROLE",
            Self::Grant { .. } => "GRANT",
            Self::Revoke { .. } => "REVOKE",
            Self::Show(_) | Self::ShowGrants { .. } | Self::ShowPrivileges => "SHOW",
        }
    }
}

fn list(names: &[Name]) -> String {
    names.iter().map(|name| ident(&name.name)).collect::<Vec<_>>().join(", ")
}

fn word(kind: GranteeKind) -> &'static str {
    match kind {
        GranteeKind::User => "USER",
        GranteeKind::Role => "ROLE",
    }
}

impl fmt::Display for GrantOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(name) => write!(f, "SOURCE {name}"),
            Self::Sink(name) => write!(f, "SINK {name}"),
            Self::Credential(name) => write!(f, "CREDENTIAL {name}"),
            Self::Schema(name) => write!(f, "SCHEMA {}", ident(&name.name)),
            Self::Cluster => f.write_str("CLUSTER"),
        }
    }
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Privileges { privileges, on } => {
                let words: Vec<&str> = privileges.iter().map(|privilege| privilege.as_str()).collect();
                write!(f, "{} ON {on}", words.join(", "))
            }
            Self::System(privilege) => f.write_str(privilege.as_str()),
            Self::Roles(roles) => f.write_str(&list(roles)),
        }
    }
}

/// Passwords are printed as `********`.
impl fmt::Display for AccessStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { kind, if_not_exists, name, password } => {
                let clause = if *if_not_exists { "IF NOT EXISTS " } else { "" };
                let tail = password.as_ref().map_or(String::new(), |_| format!(" PASSWORD '{MASK}'"));
                write!(f, "CREATE {} {clause}{}{tail}", word(*kind), ident(&name.name))
            }
            Self::AlterUser { name, password } => {
                let password = password.as_ref().map_or("NULL".to_owned(), |_| format!("'{MASK}'"));
                write!(f, "ALTER USER {} PASSWORD {password}", ident(&name.name))
            }
            Self::Drop { kind, if_exists, name } => {
                let clause = if *if_exists { "IF EXISTS " } else { "" };
                write!(f, "DROP {} {clause}{}", word(*kind), ident(&name.name))
            }
            Self::Grant { granted, to, option } => {
                let tail = if *option { " WITH GRANT OPTION" } else { "" };
                write!(f, "GRANT {granted} TO {}{tail}", list(to))
            }
            Self::Revoke { granted, from, option_only, cascade } => {
                let head = if *option_only { "GRANT OPTION FOR " } else { "" };
                let tail = if *cascade { " CASCADE" } else { "" };
                write!(f, "REVOKE {head}{granted} FROM {}{tail}", list(from))
            }
            Self::Show(GranteeKind::User) => f.write_str("SHOW USERS"),
            Self::Show(GranteeKind::Role) => f.write_str("SHOW ROLES"),
            Self::ShowGrants { of: None } => f.write_str("SHOW GRANTS"),
            Self::ShowGrants { of: Some(name) } => write!(f, "SHOW GRANTS FOR {}", ident(&name.name)),
            Self::ShowPrivileges => f.write_str("SHOW PRIVILEGES"),
        }
    }
}
