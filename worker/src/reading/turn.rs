//! One member's turn to read on for all members of a reading (I8: memory before the read).
//!
//! ```text
//! (open) ─▶ ready (pace) ─▶ reserve (budget) ─▶ a place among the reads ─▶ next ─▶ settle ─▶ into the window
//! ```
//!
//! Cancel safe up to the answer, and between the answer and the window nothing waits.

use std::{
    iter::once,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use connector::{Error, ErrorKind, Polled, Result, SplitReader};
use futures::FutureExt as _;
use model::{Position, RawRecord};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Board, Member, News, Piece, SPLIT_BYTES, What};
use crate::{
    budget::Reservation,
    task::{Failure, Retry, Trouble},
    trace,
};

/// Records after which a piece ends: enough to be cheap, few enough to keep everyone busy.
const PIECE_RECORDS: usize = 2048;
/// Bytes after which it does: they are free again when all of the piece is acked.
const PIECE_BYTES: u64 = 1 << 20;
/// A read that has waited so long for memory takes that of those who are behind.
const SHORT_AFTER: Duration = Duration::from_secs(1);
/// A read that lasts longer gives memory and place back until its answer begins to arrive: a service that is silent must not
/// keep the splits of others waiting.
const SILENT_AFTER: Duration = Duration::from_millis(1500);
/// The same while the service has not answered since.
const STILL_SILENT_AFTER: Duration = Duration::from_millis(100);
/// The least that is reserved for an answer.
const ANSWER_BYTES_MIN: u64 = 64 << 10;

/// What is needed to read on.
pub(super) struct Turn {
    from: Position,
    reader: Option<Box<dyn SplitReader>>,
    /// Bytes of the last answer.
    recent: u64,
    retry: Retry,
    not_before: Option<Instant>,
    /// The last read was given up, for now.
    silent: bool,
}

impl Turn {
    pub(super) fn new(from: Position) -> Self {
        Self { from, reader: None, recent: 0, retry: Retry::default(), not_before: None, silent: false }
    }

    /// Reads once. Returns with nothing if the member need not read, or if the answer is not there yet.
    pub(super) async fn read_on(&mut self, member: &Member, reading: u64) {
        if let Some(at) = self.not_before {
            sleep_until(at).await;
            self.not_before = None;
        }
        let board = &member.board;
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => match open(board, &self.from).await {
                Ok(reader) => self.reader.insert(reader),
                Err(error) => return member.append(reading, once(self.failed(&error))),
            },
        };
        reader.ready().await;
        // The pace may have made it wait for long.
        member.leave_behind(reading);
        if member.spared(reading) {
            return;
        }
        let estimate = ANSWER_BYTES_MIN.max(2 * self.recent).min(2 * SPLIT_BYTES);
        let mut reserve = pin!(board.commons.budget.reserve(estimate));
        let reservation = loop {
            tokio::select! { biased;
                reservation = &mut reserve => break reservation,
                () = sleep(SHORT_AFTER) => member.let_go(reading),
            }
        };
        let (polled, began) = {
            let _place = board.commons.reads.acquire().await;
            let began = trace::reading();
            (answer(reader.as_mut(), self.silent).await, began)
        };
        self.silent = polled.is_none();
        if let Some(polled) = polled {
            self.brought(polled, (reservation, began), |news| member.append(reading, news));
        }
    }

    fn brought(
        &mut self,
        polled: Result<Polled>,
        (reservation, began): (Reservation, Option<SystemTime>),
        append: impl FnOnce(Vec<News>),
    ) {
        let Some(reader) = &mut self.reader else { return };
        let (gap, horizon, now) = (reader.gap(), reader.horizon(), reader.now());
        let lag = match &polled {
            Ok(Polled::Records { lag, .. }) => *lag,
            Ok(Polled::Idle { lag }) => Some(*lag),
            _ => None,
        };
        let passed = if matches!(polled, Ok(Polled::Idle { .. })) { reader.passed() } else { None };
        let whats = match polled {
            Ok(Polled::Records { records, .. }) => {
                let pieces = self.pieces(records, reservation, began);
                pieces.into_iter().map(What::Records).collect()
            }
            Ok(Polled::Idle { .. }) => {
                self.recent /= 2;
                vec![What::Idle { passed }]
            }
            Ok(Polled::End) => vec![What::End],
            Err(error) => {
                let news = self.failed(&error);
                return append(vec![News { gap, ..news }]);
            }
        };
        self.retry.worked();
        let last = whats.len().saturating_sub(1);
        let mut gap = gap;
        let news = whats.into_iter().enumerate().map(|(index, what)| News {
            what,
            gap: gap.take(),
            horizon,
            lag: lag.filter(|_| index == last).map(|lag| (lag, now)),
        });
        append(news.collect());
    }

    fn pieces(
        &mut self,
        records: Vec<RawRecord>,
        mut reservation: Reservation,
        began: Option<SystemTime>,
    ) -> Vec<Arc<Piece>> {
        let read = began.map(|began| (began, SystemTime::now()));
        self.recent = records.iter().map(|record| record.size() as u64).sum();
        reservation.settle(self.recent);
        let mut pieces = Vec::new();
        let (mut open, mut bytes) = (Vec::new(), 0);
        let mut records = records.into_iter().peekable();
        while let Some(record) = records.next() {
            bytes += record.size() as u64;
            open.push(record);
            if open.len() >= PIECE_RECORDS || bytes >= PIECE_BYTES || records.peek().is_none() {
                let part = Arc::new(reservation.split(bytes));
                pieces.push(Piece::new(std::mem::take(&mut open), std::mem::take(&mut bytes), part, read));
            }
        }
        pieces
    }

    /// An outage is waited for; only a broken promise is final.
    fn failed(&mut self, error: &Error) -> News {
        let kind = error.kind();
        let (kind_name, text) = (kind.as_str(), error.to_string());
        let what = if matches!(kind, ErrorKind::Bug | ErrorKind::Fenced | ErrorKind::Rejected) {
            What::Failed(Failure { error: text, kind: kind_name })
        } else {
            let pause = self.retry.failed(kind);
            let retry_at = Instant::now() + pause;
            self.not_before = Some(retry_at);
            tracing::debug!(%error, ?pause, "the source makes the reader wait");
            What::Trouble(Trouble { error: text, kind: kind_name, retry_at })
        };
        News { what, gap: None, horizon: None, lag: None }
    }
}

/// What the next read brings; `None` if it may go on without memory and place.
async fn answer(reader: &mut dyn SplitReader, silent: bool) -> Option<Result<Polled>> {
    let patience = if silent { STILL_SILENT_AFTER } else { SILENT_AFTER };
    loop {
        if let Ok(polled) = timeout(patience, reader.next()).await {
            return Some(polled);
        }
        // One that is arriving needs both.
        reader.ready().now_or_never()?;
    }
}

async fn open(board: &Board, from: &Position) -> Result<Box<dyn SplitReader>> {
    let (split, registration) = &board.key;
    match (registration, board.source.registrar()) {
        (Some(name), Some(registrar)) => registrar.open(name, split, from).await,
        _ => board.source.open(split, from).await,
    }
}
