//! Errors to statuses: the reason is the SQLSTATE (or an upper-case word where there is none), the facts say which object,
//! option, line and column, and the hint is the way out.

use sql::Code as Sql;
use tonic::{Code, Status};

use crate::error::{Error, ErrorKind};

use super::auth::Denied;

/// What a statement may be refused with.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// With an SQLSTATE.
    Statement(Box<sql::Error>),
    /// What the coordinator itself says.
    Coordinator(Error),
    /// Who asks is not known (any more).
    Login(Denied),
}

impl From<sql::Error> for Refusal {
    fn from(error: sql::Error) -> Self {
        Self::Statement(Box::new(error))
    }
}

/// Errors of the catalog have an SQLSTATE; the others are the coordinator's.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let code = match error.kind {
            ErrorKind::Exists => Sql::DuplicateObject,
            ErrorKind::Missing => Sql::UndefinedObject,
            ErrorKind::InUse => Sql::InUse,
            ErrorKind::State => Sql::State,
            ErrorKind::NotLeader | ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Config => {
                return Self::Coordinator(error);
            }
        };
        sql::Error::new(code, error).into()
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        refusal.at_statement(None)
    }
}

impl Refusal {
    /// With the line of the text that it is about; secrets in it are masked.
    pub fn within(self, text: &str) -> Self {
        match self {
            Self::Statement(error) => Self::Statement(Box::new(error.within(text))),
            other => other,
        }
    }

    /// The status; `statement` is the 0-based number of the statement in the text.
    pub fn at_statement(&self, statement: Option<u32>) -> Status {
        let number = statement.map(|n| n.to_string());
        let mut facts: Vec<(&str, &str)> = Vec::new();
        if let Some(number) = &number {
            facts.push(("statement", number));
        }
        match self {
            Self::Login(denied) => denied.status(),
            Self::Coordinator(error) => {
                let (code, reason) = match error.kind {
                    ErrorKind::NotLeader => (Code::Unavailable, "NO_LEADER"),
                    ErrorKind::Unknown => (Code::Unknown, "UNKNOWN_OUTCOME"),
                    ErrorKind::Config => (Code::FailedPrecondition, "CONFIG"),
                    _ => (Code::Unavailable, "STORE_UNAVAILABLE"),
                };
                if error.kind == ErrorKind::Unknown {
                    facts.push(("hint", "look whether it was carried out before asking again"));
                }
                proto::refusal(code, reason, error.to_string(), &facts)
            }
            Self::Statement(error) => {
                let (line, column) = (error.line.map(|n| n.to_string()), error.column.map(|n| n.to_string()));
                for (name, value) in
                    [("line", &line), ("column", &column), ("hint", &error.hint), ("option", &error.option)]
                {
                    facts.extend(value.as_deref().map(|value| (name, value)));
                }
                let object = object_of(&error.message);
                facts.extend(object.map(|object| ("object", object)));
                proto::refusal(status_code(error.code), error.code.sqlstate(), &error.message, &facts)
            }
        }
    }
}

/// The name between the first quotes of a catalog error.
fn object_of(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once(" \"")?;
    rest.split_once('"').map(|(name, _)| name)
}

fn status_code(code: Sql) -> Code {
    match code {
        Sql::Connector => Code::Unavailable,
        Sql::UndefinedObject => Code::NotFound,
        Sql::DuplicateObject => Code::AlreadyExists,
        Sql::InUse | Sql::State => Code::FailedPrecondition,
        Sql::Denied => Code::PermissionDenied,
        Sql::Unsupported => Code::Unimplemented,
        _ => Code::InvalidArgument,
    }
}
