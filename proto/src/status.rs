//! Error statuses: each carries `google.rpc.ErrorInfo`, so that a tool need not read prose.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// `ErrorInfo.domain` of every error.
pub const DOMAIN: &str = "shardwright";

/// A status whose `ErrorInfo` has this reason (an SQLSTATE or an upper-case word) and these facts.
#[must_use]
pub fn refusal(code: Code, reason: &str, message: impl Into<String>, facts: &[(&str, &str)]) -> Status {
    let facts: HashMap<String, String> =
        facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, facts))
}

/// Reading what [`refusal`] wrote.
pub trait StatusExt {
    /// The reason, if the status carries one.
    fn reason(&self) -> Option<String>;
    /// One of the facts.
    fn fact(&self, name: &str) -> Option<String>;
}

impl StatusExt for Status {
    fn reason(&self) -> Option<String> {
        self.get_details_error_info().map(|info| info.reason)
    }

    fn fact(&self, name: &str) -> Option<String> {
        self.get_details_error_info().and_then(|mut info| info.metadata.remove(name))
    }
}
