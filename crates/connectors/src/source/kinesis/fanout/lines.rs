//! The connections of subscriptions, and what becomes of those that nobody reads.
//!
//! Subscriptions share HTTP/2 connections, and what arrived and was not read counts against the window of its whole connection:
//! a few readers that must wait (backpressure) would hold up all others. So a line that was not listened to for a while is
//! closed, which gives its memory and its part of the window back; its reader subscribes again at its place.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use aws_smithy_types::body::{Error, SdkBody};
use bytes::Bytes;
use http_body::{Body as _, Frame};
use tokio::time::Instant;

/// How long a line may hold what nobody reads.
const UNREAD_MAX: Duration = Duration::from_secs(5);
/// How often it is looked at.
const TICK: Duration = Duration::from_secs(1);

struct State {
    /// `None` once it is over or closed.
    body: Option<SdkBody>,
    /// Set while nobody listens.
    unread_since: Option<Instant>,
    closed: bool,
}

/// The body of one subscription.
pub(super) struct Line(Mutex<State>);

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes next; `None` at the end.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut state = self.state();
        let Some(body) = state.body.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            state.body = None;
        }
        polled
    }

    /// Says whether somebody listens from now on.
    pub(super) fn listened(&self, listened: bool) {
        let mut state = self.state();
        state.unread_since =
            if listened { None } else { state.unread_since.or_else(|| Some(Instant::now())) };
    }

    /// True if it was closed because nobody listened.
    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    fn close_if_unread(&self) {
        let mut state = self.state();
        if state.unread_since.is_some_and(|since| since.elapsed() >= UNREAD_MAX) {
            let body = state.body.take();
            state.closed |= body.is_some();
            drop(state);
            // Only here does the connection learn of it.
            drop(body);
        }
    }
}

/// The lines of one source.
#[derive(Default)]
pub(super) struct Lines(Mutex<Open>);

#[derive(Default)]
struct Open {
    lines: Vec<Weak<Line>>,
    watched: bool,
}

impl Lines {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes care of another line.
    pub(super) fn add(self: &Arc<Self>, body: SdkBody) -> Arc<Line> {
        let line = Arc::new(Line(Mutex::new(State { body: Some(body), unread_since: None, closed: false })));
        let mut open = self.open();
        open.lines.push(Arc::downgrade(&line));
        if !std::mem::replace(&mut open.watched, true) {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
        line
    }
}

/// Ends with the last line.
async fn watch(lines: Weak<Lines>) {
    loop {
        tokio::time::sleep(TICK).await;
        let Some(lines) = lines.upgrade() else { return };
        let alive: Vec<Arc<Line>> = {
            let mut open = lines.open();
            open.lines.retain(|line| line.strong_count() > 0);
            open.watched = !open.lines.is_empty();
            if !open.watched {
                return;
            }
            open.lines.iter().filter_map(Weak::upgrade).collect()
        };
        for line in alive {
            line.close_if_unread();
        }
    }
}
