//! Why the coordinator did not do what it was asked. The kind says what the caller should do.

/// Result of a coordinator call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// Ask the leader; if none is known, ask again shortly.
    NotLeader,
    /// Choose another name, or say `IF NOT EXISTS`.
    Exists,
    /// Name something that is there.
    Missing,
    /// Something else still needs it: drop that first, or say `CASCADE`.
    InUse,
    /// It cannot be done in the present state (a reset needs a paused sink).
    State,
    /// The store did not answer, or too many changed the same thing at once: ask again later.
    Unavailable,
    /// The outcome is unknown: look before asking again.
    Unknown,
    /// The settings are wrong (a port in use, a newer schema): wait for a human.
    Config,
}

/// What went wrong: lowercase, no period, names the thing.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What the caller should do.
    pub kind: ErrorKind,
    /// In plain words.
    pub message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with its context.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// With the error that caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// This coordinator does not lead (any more).
    #[must_use]
    pub fn not_leader() -> Self {
        Self::new(ErrorKind::NotLeader, "this coordinator does not lead")
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let kind = match error.kind {
            _ if error.ambiguous => ErrorKind::Unknown,
            store::ErrorKind::Config | store::ErrorKind::Corrupt => ErrorKind::Config,
            store::ErrorKind::Unavailable | store::ErrorKind::Denied | store::ErrorKind::Full => {
                ErrorKind::Unavailable
            }
        };
        Self::new(kind, error.context.clone()).because(error)
    }
}
