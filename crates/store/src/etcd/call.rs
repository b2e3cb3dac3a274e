//! One call to etcd: its deadline, whether it may be made again, and what its failure means to the caller. The only place
//! that knows etcd's error texts.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use etcd_client::Error as EtcdError;
use tokio::time::Instant;
use tonic::{Code, ConnectError};

use crate::{Error, ErrorKind, Result};

/// Makes calls to one etcd cluster.
#[derive(Clone)]
pub(super) struct Caller {
    endpoints: Arc<str>,
    call_timeout: Duration,
}

/// A failed call.
pub(super) struct Failure {
    /// What the caller of the store gets.
    pub error: Error,
    /// The server's own words.
    text: String,
}

impl Failure {
    /// The asked revision is compacted away.
    pub fn is_compacted(&self) -> bool {
        self.text.contains("has been compacted")
    }

    /// The lease has ended.
    pub fn is_lease_gone(&self) -> bool {
        self.text.contains("lease not found")
    }
}

/// How far a failed attempt got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// No server saw it.
    NotSent,
    /// It is not known whether a server did it.
    Unknown,
    /// A server refused it and did nothing.
    Refused,
}

impl Caller {
    pub fn new(endpoints: &[String], call_timeout: Duration) -> Self {
        let shown: Vec<String> = endpoints.iter().map(|endpoint| model::mask_url(endpoint)).collect();
        Self { endpoints: shown.join(",").into(), call_timeout }
    }

    /// A call that may be made any number of times.
    pub async fn read<T, F: Future<Output = Result<T, EtcdError>>>(
        &self,
        what: &str,
        attempt: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let again = |reach: Reach| reach != Reach::Refused;
        self.call(what, self.call_timeout, again, attempt).await
    }

    /// A call that must not be made again once a server may have seen it.
    pub async fn write<T, F: Future<Output = Result<T, EtcdError>>>(
        &self,
        what: &str,
        attempt: impl FnMut() -> F,
    ) -> Result<T> {
        let again = |reach: Reach| reach == Reach::NotSent;
        match self.call(what, self.call_timeout, again, attempt).await {
            Ok(answer) => Ok(answer),
            Err(failure) => Err(failure.error),
        }
    }

    /// The first call on a connection: it says who we are.
    pub async fn first_call<T, F: Future<Output = Result<T, EtcdError>>>(
        &self,
        timeout: Duration,
        attempt: impl FnMut() -> F,
    ) -> Result<T> {
        // A server that is starting is worth waiting for; a refused certificate or password is not.
        let again = |reach: Reach| reach != Reach::Refused;
        self.call("connect", timeout, again, attempt).await.map_err(|failure| failure.error)
    }

    async fn call<T, F: Future<Output = Result<T, EtcdError>>>(
        &self,
        what: &str,
        timeout: Duration,
        again: impl Fn(Reach) -> bool,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + timeout;
        let mut last: Option<Failure> = None;
        for n in 0.. {
            let error = match tokio::time::timeout_at(deadline, attempt()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => break,
            };
            let (failure, reach) = self.understand(what, error);
            let pause = pause(n);
            if !again(reach) || Instant::now() + pause >= deadline {
                return Err(failure);
            }
            last = Some(failure);
            tokio::time::sleep(pause).await;
        }
        let text = last.map_or_else(String::new, |failure| failure.text);
        let seconds = timeout.as_secs_f64();
        let because = if text.is_empty() { String::new() } else { format!(": {text}") };
        let context =
            format!("etcd at {} did not answer `{what}` within {seconds} s{because}", self.endpoints);
        Err(Failure { error: Error::new(ErrorKind::Unavailable, context).ambiguous(), text })
    }

    fn understand(&self, what: &str, error: EtcdError) -> (Failure, Reach) {
        let text = deepest(&error);
        let (kind, reach) = match &error {
            EtcdError::GRpcStatus(status) => judge_status(status),
            EtcdError::InvalidArgs(_) | EtcdError::InvalidUri(_) => (ErrorKind::Config, Reach::Refused),
            EtcdError::LeaseKeepAliveError(_) if text.contains("lease not found") => {
                (ErrorKind::Unavailable, Reach::Refused)
            }
            EtcdError::TransportError(_) => (ErrorKind::Unavailable, Reach::NotSent),
            _ => (ErrorKind::Unavailable, Reach::Unknown),
        };
        let (kind, reach) =
            if is_certificate(&text) { (ErrorKind::Config, Reach::Refused) } else { (kind, reach) };
        let context = match (kind, reach) {
            (ErrorKind::Denied, _) => format!("etcd at {} refused `{what}`: {text}", self.endpoints),
            (_, Reach::NotSent) => format!("no etcd answers at {}: {text}", self.endpoints),
            _ => format!("etcd at {} failed `{what}`: {text}", self.endpoints),
        };
        let mut error = Error::new(kind, context).caused_by(error);
        error.ambiguous = reach == Reach::Unknown;
        (Failure { error, text }, reach)
    }
}

/// What a status means. Texts are those of etcd's `rpctypes/error.go`.
fn judge_status(status: &tonic::Status) -> (ErrorKind, Reach) {
    let message = status.message();
    let denied = ["authentication failed", "user name is empty", "user name not found", "invalid auth token"];
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => (ErrorKind::Denied, Reach::Refused),
        _ if denied.iter().any(|text| message.contains(text)) => (ErrorKind::Denied, Reach::Refused),
        Code::ResourceExhausted if message.contains("space exceeded") => (ErrorKind::Full, Reach::Refused),
        Code::ResourceExhausted | Code::NotFound | Code::OutOfRange => {
            (ErrorKind::Unavailable, Reach::Refused)
        }
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => {
            (ErrorKind::Config, Reach::Refused)
        }
        _ if was_not_sent(status) => (ErrorKind::Unavailable, Reach::NotSent),
        _ => (ErrorKind::Unavailable, Reach::Unknown),
    }
}

/// True if there was no connection to send the call on.
fn was_not_sent(status: &tonic::Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn is_certificate(text: &str) -> bool {
    text.contains("certificate") || text.contains("CertificateUnknown") || text.contains("corrupt message")
}

/// The plainest words for what happened: the server's message, or the innermost cause.
fn deepest(error: &EtcdError) -> String {
    let outer: &dyn StdError = match error {
        EtcdError::GRpcStatus(status) if status.source().is_none() => {
            return status.message().trim_start_matches("etcdserver: ").to_owned();
        }
        EtcdError::GRpcStatus(status) => status,
        EtcdError::TransportError(transport) => transport,
        other => return other.to_string(),
    };
    let mut innermost = outer;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// How long to wait after attempt `n` failed: 50 ms, doubling to 1 s, half of it by chance.
pub(super) fn pause(n: u32) -> Duration {
    let ceiling = Duration::from_millis(50).saturating_mul(1 << n.min(5)).min(Duration::from_secs(1));
    ceiling.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}
