//! Errors of a metadata store.

/// Result of a store call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// Nobody answered within the deadline: ask again later.
    Unavailable,
    /// User or password refused: wait for a human.
    Denied,
    /// The settings are wrong (no endpoint, bad certificate): wait for a human.
    Config,
    /// The data in the store is not ours or not readable; the message names the key.
    Corrupt,
    /// The disk is full or the store's quota is used up.
    Full,
}

/// What went wrong in a store.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct Error {
    /// What the caller should do.
    pub kind: ErrorKind,
    /// In plain words: lowercase, no period, names the thing. Never a secret.
    pub context: String,
    /// True if the write may have been applied nevertheless.
    pub ambiguous: bool,
    #[source]
    pub(crate) source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error whose write, if it was one, was not applied.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), ambiguous: false, source: None }
    }

    /// With what caused it.
    #[must_use]
    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, of a write that may have been applied.
    #[must_use]
    pub(crate) fn ambiguous(mut self) -> Self {
        self.ambiguous = true;
        self
    }
}
