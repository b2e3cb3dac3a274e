//! One error for all connectors. The kind says what the *caller* should do, not where the error came from.

use std::{borrow::Cow, fmt, time::Instant};

/// Result of a connector call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorKind {
    /// An option is wrong or the thing it names does not exist: wait for a human, try again slowly.
    Config,
    /// Credentials are wrong or do not suffice: wait for a human, try again slowly.
    Denied,
    /// Too much was asked: ask less, later. Uses up no attempt.
    Throttled,
    /// Nobody answered, or the answer was "not now": ask again, later. Uses up no attempt.
    Unavailable,
    /// The destination looked at the data and refused it: `on_error` decides.
    Rejected,
    /// A newer epoch is at work: stop.
    Fenced,
    /// A promise was broken, by us or by the other side: start the run again.
    Bug,
}

impl ErrorKind {
    /// The word in metrics and in `status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Denied => "denied",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Rejected => "rejected",
            Self::Fenced => "fenced",
            Self::Bug => "bug",
        }
    }
}

/// What went wrong in a connector.
pub struct Error {
    kind: ErrorKind,
    context: String,
    code: Option<Cow<'static, str>>,
    ambiguous: Option<Instant>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with its context in plain words: lowercase, no period, names the thing. Never a secret.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), code: None, ambiguous: None, source: None }
    }

    /// With the other side's own code (`ProvisionedThroughputExceededException`): a label of metrics.
    #[must_use]
    pub fn code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The request may have been carried out, or may still be: it was started at `since` and nobody said how it ended (P12).
    #[must_use]
    pub fn ambiguous_since(mut self, since: Instant) -> Self {
        self.ambiguous = Some(since);
        self
    }

    /// With the error that caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The other side's own code.
    #[must_use]
    pub fn vendor_code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// When the attempt was started whose outcome is unknown.
    #[must_use]
    pub fn ambiguous(&self) -> Option<Instant> {
        self.ambiguous
    }

    /// True when asking again later may help and nobody has to change anything first.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorKind::Throttled | ErrorKind::Unavailable)
    }
}

/// One line: the context, then the chain of causes.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        let mut cause = self.source.as_deref().map(|e| e as &dyn std::error::Error);
        while let Some(e) = cause {
            let text = e.to_string();
            if !self.context.contains(&text) {
                write!(f, ": {text}")?;
            }
            cause = e.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind.as_str())?;
        if let Some(code) = &self.code {
            write!(f, " ({code})")?;
        }
        if self.ambiguous.is_some() {
            f.write_str(" [outcome unknown]")?;
        }
        write!(f, ": {self}")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}
