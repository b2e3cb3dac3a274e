//! The audit log: one event for each call of the admin API, to the `audit` target of the log. Who, by what, from where, which
//! statements on which objects, what came of it, how long it took. Never a text that a caller sent, never a secret (I9).
//! A call that is passed on is told twice: by who passed it on, who sees where it comes from, and by who answers it, who sees who
//! it is.

use std::{
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

/// Where a call comes from.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// The other end of its connection; the caller's address if it was passed on by a coordinator that is believed about it.
    pub from: String,
    /// Who passed it on, if somebody says to have done so.
    pub passed_on_by: String,
    /// Where it came from there, as that one says.
    pub said_from: String,
}

/// One call, told when it is over.
#[derive(Debug)]
pub(crate) struct Audit {
    call: &'static str,
    begun: Instant,
    user: String,
    how: &'static str,
    origin: Origin,
    statements: Vec<String>,
    told: bool,
}

impl Audit {
    /// A call that begins.
    pub fn begin(call: &'static str, mut origin: Origin) -> Self {
        origin.passed_on_by = origin.passed_on_by.chars().take(NAME_CHARS_MAX).collect();
        Self {
            call,
            begun: Instant::now(),
            user: String::new(),
            how: "",
            origin,
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

    /// Answered by another coordinator, which tells who it was and what came of it.
    pub fn left_to_another(mut self) {
        self.told = true;
        let (call, from, statements) = (self.call, self.origin.from.as_str(), self.statements.join("; "));
        tracing::info!(target: "audit", call, from, statements, "passed on");
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
        let Origin { from, passed_on_by, said_from } = &self.origin;
        let (from, passed_on_by, said_from) = (from.as_str(), passed_on_by.as_str(), said_from.as_str());
        let statements = self.statements.join("; ");
        let duration_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        // As texts, which the log escapes: what would look like another line of it, or another field, does not.
        if matches!(status_code, Code::Unauthenticated | Code::PermissionDenied) {
            tracing::warn!(target: "audit", call, user, how, from, passed_on_by, said_from, statements, code, reason, duration_ms, "refused");
        } else {
            tracing::info!(target: "audit", call, user, how, from, passed_on_by, said_from, statements, code, reason, duration_ms, "answered");
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
