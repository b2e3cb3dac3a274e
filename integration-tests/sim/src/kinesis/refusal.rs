//! What the service says when it does not do what it was asked: its own codes and statuses.

use super::shard::shard_index;

/// An error answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The name of the exception.
    pub code: &'static str,
    /// HTTP.
    pub status: u16,
    /// For people.
    pub message: String,
    /// For the story, where the message is long and says nothing new.
    pub(super) told: Option<String>,
}

impl Refusal {
    fn new(code: &'static str, status: u16, message: impl Into<String>) -> Self {
        Self { code, status, message: message.into(), told: None }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new("ResourceNotFoundException", 400, message)
    }

    pub(super) fn no_stream(name: &str) -> Self {
        Self::not_found(format!("Stream {name} under account {} not found.", super::ACCOUNT))
    }

    pub(super) fn argument(message: impl Into<String>) -> Self {
        Self::new("InvalidArgumentException", 400, message)
    }

    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", 400, message)
    }

    pub(super) fn throughput(stream: &str, shard: &str) -> Self {
        let account = super::ACCOUNT;
        let message = format!("Rate exceeded for shard {shard} in stream {stream} under account {account}.");
        let told = shard_index(shard).map(|index| format!("{stream}/{index}"));
        Self { told, ..Self::new("ProvisionedThroughputExceededException", 400, message) }
    }

    pub(super) fn limit(message: impl Into<String>) -> Self {
        Self::new("LimitExceededException", 400, message)
    }

    pub(super) fn in_use(message: impl Into<String>) -> Self {
        Self::new("ResourceInUseException", 400, message)
    }

    pub(super) fn expired_iterator() -> Self {
        Self::new("ExpiredIteratorException", 400, "Iterator expired.")
    }

    pub(super) fn expired_token() -> Self {
        Self::new("ExpiredNextTokenException", 400, "The pagination token expired.")
    }

    pub(super) fn unreadable(message: impl Into<String>) -> Self {
        Self::new("SerializationException", 400, message)
    }

    pub(super) fn signature(message: impl Into<String>) -> Self {
        Self::new("InvalidSignatureException", 400, message)
    }

    pub(super) fn internal() -> Self {
        Self::new("InternalFailure", 500, "Internal service failure.")
    }

    pub(super) fn unavailable() -> Self {
        Self::new("ServiceUnavailable", 503, "Service is unavailable.")
    }

    pub(super) fn unknown_operation(name: &str) -> Self {
        Self::new("UnknownOperationException", 400, format!("{name} is not served here."))
    }
}
