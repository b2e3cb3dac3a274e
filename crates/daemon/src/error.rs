//! Errors of starting a process: each is one line that names the thing and the way out.

/// Result of a daemon call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// A setting is wrong: tell the user, start nothing.
    Config,
    /// The system refused something (a port, a file): tell the user, start nothing.
    System,
}

/// What went wrong while a process was being set up.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct Error {
    /// What the caller should do.
    pub kind: ErrorKind,
    context: String,
}

impl Error {
    /// A wrong setting, in plain words; never a secret.
    pub fn config(context: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Config, context: context.into() }
    }

    /// A refusal by the system, in plain words.
    pub fn system(context: impl Into<String>) -> Self {
        Self { kind: ErrorKind::System, context: context.into() }
    }
}
