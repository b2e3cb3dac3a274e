//! Who may do what: one pure function, [`authorize`], from a deed (a statement or a call) and the rights of who asks to
//! "allowed" or a refusal in the words that users read (docs/sql.md, Users and privileges). The coordinator's admin room
//! asks it before every statement and every call; what lists shall leave out it asks [`Rights::sees`].
//!
//! Two matches without a wildcard, over statements and over calls, say what each demands: a new one without a rule does not
//! compile.

mod demand;
mod revoke;
mod rights;

use model::Privilege;

use crate::{Code, Error, ObjectName, Place, Result, Statement};

pub use revoke::{Revocation, Revoked, add};
pub use rights::{Grantees, Principal, Rights, Support};

/// What rights are about, by name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum On {
    /// A source.
    Source(String),
    /// A sink.
    Sink(String),
    /// A credential.
    Credential(String),
    /// The schema `public`.
    Schema,
    /// The cluster.
    Cluster,
}

impl std::fmt::Display for On {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Source(name) => write!(f, "source \"public.{name}\""),
            Self::Sink(name) => write!(f, "sink \"public.{name}\""),
            Self::Credential(name) => write!(f, "credential \"public.{name}\""),
            Self::Schema => f.write_str("schema \"public\""),
            Self::Cluster => f.write_str("the cluster"),
        }
    }
}

/// A typed call of the admin API, with what it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call<'a> {
    /// `Execute`: each statement is a deed of its own.
    Execute,
    /// `Status`: shows what the caller may see.
    Status,
    /// `ListWorkers`
    ListWorkers,
    /// `ListSplits`: shows what the caller may see.
    ListSplits {
        /// Empty: of all.
        source: &'a str,
        /// Empty: of all.
        sink: &'a str,
    },
    /// `DescribeSplit`
    DescribeSplit {
        /// Whose.
        source: &'a str,
    },
    /// `ListErrors`
    ListErrors {
        /// A source or a sink.
        name: &'a str,
    },
    /// `DrainWorker`
    DrainWorker,
    /// `Scale`
    Scale,
    /// `PauseSink`
    PauseSink {
        /// Which.
        sink: &'a str,
    },
    /// `ResumeSink`
    ResumeSink {
        /// Which.
        sink: &'a str,
    },
    /// `ResetPosition`
    ResetPosition {
        /// Of which.
        sink: &'a str,
    },
    /// `WatchEvents`
    WatchEvents,
    /// `RotateSecrets`
    RotateSecrets,
}

impl Call<'static> {
    /// Every call, naming nothing.
    pub const ALL: [Self; 13] = [
        Self::Execute,
        Self::Status,
        Self::ListWorkers,
        Self::ListSplits { source: "", sink: "" },
        Self::DescribeSplit { source: "" },
        Self::ListErrors { name: "" },
        Self::DrainWorker,
        Self::Scale,
        Self::PauseSink { sink: "" },
        Self::ResumeSink { sink: "" },
        Self::ResetPosition { sink: "" },
        Self::WatchEvents,
        Self::RotateSecrets,
    ];
}

impl Call<'_> {
    /// Its name on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Execute => "Execute",
            Self::Status => "Status",
            Self::ListWorkers => "ListWorkers",
            Self::ListSplits { .. } => "ListSplits",
            Self::DescribeSplit { .. } => "DescribeSplit",
            Self::ListErrors { .. } => "ListErrors",
            Self::DrainWorker => "DrainWorker",
            Self::Scale => "Scale",
            Self::PauseSink { .. } => "PauseSink",
            Self::ResumeSink { .. } => "ResumeSink",
            Self::ResetPosition { .. } => "ResetPosition",
            Self::WatchEvents => "WatchEvents",
            Self::RotateSecrets => "RotateSecrets",
        }
    }

    /// What it names, for whoever tells of it.
    #[must_use]
    pub fn object(&self) -> String {
        match self {
            Self::Execute
            | Self::Status
            | Self::ListWorkers
            | Self::DrainWorker
            | Self::Scale
            | Self::WatchEvents
            | Self::RotateSecrets => String::new(),
            Self::ListSplits { source, sink } => format!("{source} {sink}").trim().to_owned(),
            Self::DescribeSplit { source } => (*source).to_owned(),
            Self::ListErrors { name } => (*name).to_owned(),
            Self::PauseSink { sink } | Self::ResumeSink { sink } | Self::ResetPosition { sink } => {
                (*sink).to_owned()
            }
        }
    }
}

/// What else a statement touches besides what it names, looked up in the catalog.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Touched {
    /// Sinks that a `DROP SOURCE … CASCADE` drops too.
    pub dependents: Vec<String>,
    /// Credentials that a changed object already names: whoever may turn it elsewhere must be allowed to use them.
    pub credentials: Vec<String>,
    /// What an `OR REPLACE` takes the place of.
    pub replaces: Option<On>,
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub enum Deed<'a> {
    /// A statement.
    Statement(&'a Statement, &'a Touched),
    /// A call.
    Call(Call<'a>),
}

/// Whether `rights` allow the deed.
///
/// # Errors
/// `Permission denied`, naming the privilege that is missing. Whether the object is there is not said: who has no privilege
/// on it gets the same words either way.
pub fn authorize(deed: Deed<'_>, rights: &Rights) -> Result<()> {
    let demands = match deed {
        Deed::Statement(statement, touched) => demand::of_statement(statement, touched),
        Deed::Call(call) => demand::of_call(call),
    };
    demands.iter().try_for_each(|demand| rights.meet(demand))
}

/// A demand that must be met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Demand {
    /// The privilege on a thing.
    Right(Privilege, On, Place),
    /// The privilege on one of some things: only the catalog knows which of them a name means.
    Either(Privilege, Vec<On>, Place),
    /// To give the privilege to others, or to take it.
    Give(Privilege, On, Place),
    /// A privilege of the system.
    System(Privilege),
    /// To change a user or a role, or who has it.
    Manage(String, Place),
    /// To change a user's password.
    Password(String, Place),
    /// To see what was granted to a user or a role.
    Look(String, Place),
}

fn denied(what: &str, place: Place) -> Error {
    Error::new(Code::Denied, format!("{what} is required")).at(place)
}

impl Rights {
    fn meet(&self, demand: &Demand) -> Result<()> {
        let missing = |privilege: &Privilege, on: &On| format!("{} privilege on {on}", privilege.as_str());
        let hint = "who has no privilege on an object is not told whether it is there";
        match demand {
            Demand::Right(privilege, on, _) if self.has(*privilege, on) => Ok(()),
            Demand::Right(privilege, on, place) => {
                let error = denied(&missing(privilege, on), *place);
                Err(if self.sees(on) || matches!(on, On::Schema | On::Cluster) {
                    error
                } else {
                    error.hint(hint)
                })
            }
            Demand::Either(privilege, on, _) if on.iter().any(|on| self.has(*privilege, on)) => Ok(()),
            Demand::Either(privilege, on, place) => {
                let first = on.first().unwrap_or(&On::Cluster);
                Err(denied(&missing(privilege, first), *place).hint(hint))
            }
            Demand::Give(privilege, on, _) if self.may_give(*privilege, on) => Ok(()),
            Demand::Give(privilege, on, place) => {
                let error = denied(&missing(&Privilege::Admin, on), *place);
                Err(error.hint(format!("or {} WITH GRANT OPTION", missing(privilege, on))))
            }
            Demand::System(privilege) if self.has_system(*privilege) => Ok(()),
            Demand::System(privilege) => {
                Err(denied(&format!("{} privilege", privilege.as_str()), Place::default()))
            }
            Demand::Manage(name, place) => {
                let needed = match self.is_powerful(name) {
                    true => Privilege::SystemAdmin,
                    false => Privilege::SystemUserAdmin,
                };
                if self.has_system(needed) {
                    return Ok(());
                }
                Err(denied(&format!("{} privilege", needed.as_str()), *place))
            }
            Demand::Password(name, _) if self.may_change_own_password(name) => Ok(()),
            Demand::Password(name, place) => self.meet(&Demand::Manage(name.clone(), *place)),
            Demand::Look(name, _) if self.has_system(Privilege::SystemUserAdmin) || self.is_mine(name) => {
                Ok(())
            }
            Demand::Look(_, place) => {
                Err(denied(&format!("{} privilege", Privilege::SystemUserAdmin.as_str()), *place))
            }
        }
    }
}

/// The name of a relation of progress without its end: the source that it is about.
fn of_progress(name: &str) -> &str {
    name.strip_suffix("_progress").unwrap_or(name)
}

/// What a relation of this name may be about.
fn relation(name: &ObjectName) -> Vec<On> {
    vec![On::Source(of_progress(&name.name).to_owned()), On::Source(name.name.clone())]
}

#[cfg(test)]
mod tests;
