//! The audit log: one event for each call of the admin API, to the `audit` target of the log. Who, by what, from where, which
//! statements on which objects, what came of it, how long it took. Never a text that a caller sent, never a secret (I9).
//! A call that was passed on is told by the coordinator that answered it.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{Stream, stream::BoxStream};
use sql::Statement;
use tokio::time::Instant;
use tonic::{Code, Status};

/// How much of a name that somebody claims is told.
const NAME_CHARS_MAX: usize = 128;

/// How many statements of one call are told.
const STATEMENTS_MAX: usize = 32;

/// One call, told when it is over.
#[derive(Debug)]
pub(crate) struct Audit {
    call: &'static str,
    begun: Instant,
    user: String,
    how: &'static str,
    from: Option<SocketAddr>,
    passed_on_by: String,
    statements: Vec<String>,
    told: bool,
}

impl Audit {
    /// A call that begins.
    pub fn begin(call: &'static str, from: Option<SocketAddr>, passed_on_by: &str) -> Self {
        Self {
            call,
            begun: Instant::now(),
            user: String::new(),
            how: "",
            from,
            passed_on_by: passed_on_by.chars().take(NAME_CHARS_MAX).collect(),
            statements: Vec::new(),
            told: false,
        }
    }

    /// Who it is, or says it is.
    pub fn user(&mut self, user: &str, how: &'static str) {
        (self.user, self.how) = (user.chars().take(NAME_CHARS_MAX).collect(), how);
    }

    /// What it carries out: the kind, and the names of the objects.
    pub fn statement(&mut self, statement: &Statement) {
        if self.statements.len() < STATEMENTS_MAX {
            self.statements.push(statement.summary());
        }
    }

    /// What a typed call names.
    pub fn object(&mut self, name: &str) {
        if name.is_empty() {
            return;
        }
        self.statements.push(name.chars().take(NAME_CHARS_MAX).collect());
    }

    /// Answered by another coordinator, which tells it.
    pub fn left_to_another(mut self) {
        self.told = true;
    }

    /// It is over.
    pub fn end(mut self, outcome: Result<(), &Status>) {
        self.tell(outcome.err());
    }

    fn tell(&mut self, status: Option<&Status>) {
        use proto::StatusExt;
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let status_code = status.map_or(Code::Ok, Status::code);
        let code = format!("{status_code:?}");
        let reason = status.and_then(|status| status.reason()).unwrap_or_default();
        let (user, how, call) = (self.user.as_str(), self.how, self.call);
        let passed_on_by = self.passed_on_by.as_str();
        let from = self.from.map(|from| from.to_string()).unwrap_or_default();
        let statements = self.statements.join("; ");
        let duration_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        // As texts, which the log escapes: what would look like another line of it, or another field, does not.
        if matches!(status_code, Code::Unauthenticated | Code::PermissionDenied) {
            tracing::warn!(target: "audit", call, user, how, from, passed_on_by, statements, code, reason, duration_ms, "refused");
        } else {
            tracing::info!(target: "audit", call, user, how, from, passed_on_by, statements, code, reason, duration_ms, "answered");
        }
    }
}

/// A call whose caller went away before it was over.
impl Drop for Audit {
    fn drop(&mut self) {
        self.tell(Some(&Status::cancelled("the caller went away")));
    }
}

/// Rows that tell their call when they end.
pub(crate) struct Told<T> {
    rows: BoxStream<'static, Result<T, Status>>,
    audit: Option<Audit>,
}

impl<T> Told<T> {
    /// Of these rows.
    pub fn new(rows: BoxStream<'static, Result<T, Status>>, audit: Audit) -> Self {
        Self { rows, audit: Some(audit) }
    }
}

impl<T> Stream for Told<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.rows.as_mut().poll_next(context);
        let ended = match &next {
            Poll::Ready(None) => Some(Ok(())),
            Poll::Ready(Some(Err(status))) => Some(Err(status)),
            _ => None,
        };
        if let Some(ended) = ended
            && let Some(audit) = self.audit.take()
        {
            audit.end(ended);
        }
        next
    }
}
