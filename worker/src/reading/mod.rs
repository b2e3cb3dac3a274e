//! Read once, deliver to many: the runs of one split whose positions are close share a **reading**, one `SplitReader` whose
//! records are read and decoded once. A service counts reads for all consumers together (docs/kinesis.md 3.4), so ten sinks
//! must not need ten times those of one. Called by the reading half of each run (`task::reader`), which is a [`Member`].
//!
//! ```text
//!                 no reading holds its position: a new one, alone
//!            ┌──────────────────────────────────────────────────────┐
//!            │    a reading holds it, between two records           ▼
//!  seeks ────┴────────────────────────────────────────────────▶  member ──▶ gone (stopped, fenced, failed: it is dropped)
//!    ▲                                                             │  │
//!    │ too much, or something for too long, waits for it           │  │ before it would read on: another reading has
//!    └───────────────────────── left behind ◀──────────────────────┘  │ read from exactly there
//!                                                                     └─▶ member of that one
//! ```
//!
//! * **Pull.** There is no task: a member that has taken everything takes its turn and reads on for all. A turn that is dropped
//!   loses nothing, because `SplitReader` is cancel safe and what it brought is in the [`window`] before the turn ends; the next
//!   member takes over. A reading lives as long as its members; with the last one its reader is closed. A run therefore polls its
//!   member or drops it: nobody else can read while a turn is held.
//! * **Each as if alone.** A member takes every item from its own place on: records, gaps, lag, troubles, the end. Checkpoint,
//!   acks, `on_error`, `SELECT … WHERE` are the run's. A failure of the source fails all of them, and would have failed each.
//! * **Nobody slows the others.** A member that is behind by more bytes than it may hold, or by [`BEHIND_MAX`], is left behind: it
//!   goes on with a reading of its own, from its own position, and comes back when it has caught up.
//! * **Meeting.** Cursors are in no order, so readings do not compare positions: whoever is about to read looks whether its exact
//!   position lies in the window of another reading. While a split has several, each keeps a little of what all have taken: of two that
//!   move along the same records, one's head comes to lie in what the other has just read. At equal heads the older one stays.
//! * **Memory** (I8). A piece is counted once in the budget until the last member's rows of it are acked; with each member, which
//!   stops taking at its soft limit; and what waits in a window is bounded by the same limit.

mod piece;
mod turn;
mod window;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use connector::{Gap, Source};
use formats::FormatError;
use model::{Cursor, Position, SourceSpec, SplitId, Timestamp};
use tokio::time::Instant;

use self::{
    piece::Decoders,
    turn::Turn,
    window::{Spot, Window},
};
use crate::{
    budget::{Account, Portion},
    task::{Commons, Failure, Trouble},
};

pub(crate) use piece::{Piece, Rows, Wants};

/// What a split may hold for one run between source and destination before it must wait, softly.
pub(crate) const SPLIT_BYTES: u64 = 4 << 20;
/// How long something may wait for one member while others would read on.
const BEHIND_MAX: Duration = Duration::from_secs(5);
/// What a window keeps of what all have taken, while another reading may come by.
const KEEP_BYTES: u64 = 1 << 20;

/// What a member is told.
#[derive(Clone)]
pub(crate) struct News {
    pub(crate) what: What,
    /// Records that may have been lost right before it.
    pub(crate) gap: Option<Gap>,
    /// Since when the stream holds its records, if an answer told.
    pub(crate) horizon: Option<Timestamp>,
    /// How far behind now the split is read with it, and when that was (the service's clock).
    pub(crate) lag: Option<(Duration, Timestamp)>,
}

/// See [`News`].
#[derive(Clone)]
pub(crate) enum What {
    /// Records, in the order of the split.
    Records(Arc<Piece>),
    /// Nothing new; perhaps a later position.
    Idle { passed: Option<Cursor> },
    /// The source makes everyone wait.
    Trouble(Trouble),
    /// The split has ended. Final.
    End,
    /// A broken promise of the source. Final.
    Failed(Failure),
}

/// What is read, and as whom: `None` unless the service must know each sink that reads.
type Key = (SplitId, Option<String>);

/// All readings of a source in this process.
#[derive(Default)]
pub(crate) struct Readings {
    boards: Mutex<BTreeMap<Key, Weak<Board>>>,
}

impl Readings {
    /// A run that goes on reading `split` at `at`, as `registration`.
    pub(crate) fn member(
        &self,
        source: &Arc<dyn Source>,
        (split, registration): Key,
        (at, wants): (Position, Wants),
        commons: &Arc<Commons>,
    ) -> Member {
        let account = Account::new(Arc::clone(&commons.budget), SPLIT_BYTES);
        let mut boards = self.boards.lock().unwrap_or_else(PoisonError::into_inner);
        // Splits come and go for ever.
        boards.retain(|_, board| board.strong_count() > 0);
        let key = (split, registration);
        let known = boards.get(&key).and_then(Weak::upgrade);
        let board = known.unwrap_or_else(|| {
            let board = Arc::new(Board {
                source: Arc::clone(source),
                key: key.clone(),
                commons: Arc::clone(commons),
                decoders: Decoders::default(),
                state: Mutex::default(),
            });
            boards.insert(key, Arc::downgrade(&board));
            board
        });
        let mut state = board.state();
        let mut member =
            Member { board: Arc::clone(&board), id: state.number(), at, wants, account, seat: None };
        member.seated(&mut state);
        drop(state);
        member
    }
}

/// One stream of answers.
struct Reading {
    id: u64,
    turn: tokio::sync::Mutex<Turn>,
}

/// The readings of one split.
struct Board {
    source: Arc<dyn Source>,
    key: Key,
    commons: Arc<Commons>,
    decoders: Decoders,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    numbers: u64,
    /// The oldest first.
    readings: Vec<(Arc<Reading>, Window)>,
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn window(&mut self, reading: u64) -> Option<&mut Window> {
        self.readings.iter_mut().find(|(known, _)| known.id == reading).map(|(_, window)| window)
    }

    /// Another reading that can spare this one a read from `at` on.
    fn elsewhere(&self, at: &Position, reading: u64) -> Option<(Arc<Reading>, Spot)> {
        let others = self.readings.iter().filter(|(other, _)| other.id != reading);
        others
            .filter_map(|(other, window)| Some((other, window, window.find(at)?)))
            .find(|(other, window, spot)| window.is_ahead_of(*spot) || other.id < reading)
            .map(|(other, _, spot)| (Arc::clone(other), spot))
    }

    fn leave(&mut self, reading: u64, member: u64) {
        if let Some(window) = self.window(reading) {
            window.leave(member);
        }
        self.readings.retain(|(_, window)| !window.is_empty());
    }

    fn trim(&mut self, keep: u64) {
        let keep = if self.readings.len() > 1 { keep } else { 0 };
        self.readings.iter_mut().for_each(|(_, window)| window.trim(keep));
    }
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a look at the board brought.
enum Look {
    News(Box<News>),
    /// It has taken all there is: somebody must read.
    Nothing(Arc<Reading>),
}

/// The place of one run among the readings of its split. Dropping it leaves.
pub(crate) struct Member {
    board: Arc<Board>,
    id: u64,
    at: Position,
    wants: Wants,
    account: Arc<Account>,
    seat: Option<Arc<Reading>>,
}

impl Member {
    /// What comes next in the split. Waits until the run has room for it. Cancel safe.
    pub(crate) async fn next(&mut self) -> News {
        loop {
            self.account.room().await;
            let reading = match self.look() {
                Look::News(news) => return *news,
                Look::Nothing(reading) => reading,
            };
            let mut turn = reading.turn.lock().await;
            // Another member may have read while this one waited for its turn.
            if let Look::News(news) = self.look() {
                return *news;
            }
            if self.sits_at(&reading) {
                turn.read_on(self, reading.id).await;
            }
        }
    }

    fn sits_at(&self, reading: &Arc<Reading>) -> bool {
        self.seat.as_ref().is_some_and(|seat| Arc::ptr_eq(seat, reading))
    }

    /// Takes the next item, after finding a seat where there is none.
    fn look(&mut self) -> Look {
        let board = Arc::clone(&self.board);
        let mut state = board.state();
        let reading = self.seated(&mut state);
        let taken = state.window(reading.id).and_then(|window| window.take(self.id, Instant::now()));
        let Some(news) = taken else {
            let Some((other, spot)) = state.elsewhere(&self.at, reading.id) else {
                return Look::Nothing(reading);
            };
            tracing::debug!(split = %board.key.0, from = reading.id, to = other.id, at = %self.at, "a run changes its reading");
            state.leave(reading.id, self.id);
            self.sit(&mut state, other, spot);
            drop(state);
            return self.look();
        };
        if let Some(end) = news.end() {
            self.at = end;
        }
        state.trim(self.keep());
        Look::News(Box::new(news))
    }

    /// Its reading: where it was, or where its position is, or a new one.
    fn seated(&mut self, state: &mut State) -> Arc<Reading> {
        if let Some(seat) = &self.seat
            && state.window(seat.id).is_some_and(|window| window.has(self.id))
        {
            return Arc::clone(seat);
        }
        let known = state
            .readings
            .iter()
            .find_map(|(reading, window)| window.find(&self.at).map(|spot| (Arc::clone(reading), spot)));
        if let Some((reading, spot)) = known {
            return self.sit(state, reading, spot);
        }
        let window = Window::new(self.at.clone());
        let spot = window.find(&self.at).expect("it begins there");
        let turn = tokio::sync::Mutex::new(Turn::new(self.at.clone()));
        let reading = Arc::new(Reading { id: state.number(), turn });
        state.readings.push((Arc::clone(&reading), window));
        self.sit(state, reading, spot)
    }

    fn sit(&mut self, state: &mut State, reading: Arc<Reading>, spot: Spot) -> Arc<Reading> {
        if let Some(window) = state.window(reading.id) {
            window.join(self.id, spot, self.wants.clone());
        }
        self.seat = Some(Arc::clone(&reading));
        reading
    }

    fn keep(&self) -> u64 {
        KEEP_BYTES.min(self.account.soft())
    }

    /// Its part of the memory that a piece holds, to be kept until the piece is acked.
    pub(crate) fn portion(&self, piece: &Piece) -> Portion {
        self.account.take(piece.bytes, Arc::clone(&piece.reservation))
    }

    /// The rows of a piece, with at least the columns that this run wants.
    pub(crate) async fn rows(&self, piece: &Piece, spec: &SourceSpec) -> Result<Arc<Rows>, FormatError> {
        let wants = {
            let mut state = self.board.state();
            let window = self.seat.as_ref().and_then(|seat| state.window(seat.id));
            window.map_or_else(|| self.wants.clone(), |window| window.wants())
        };
        // Who was left behind in the meantime is not among them.
        let wants = Wants::union([&wants, &self.wants].into_iter());
        piece.rows((&self.wants, &wants), (spec, &self.board.key.0), &self.board.decoders).await
    }

    /// Before a read: those who would make everyone wait go on by themselves.
    fn leave_behind(&self, reading: u64) {
        self.leave_behind_from(reading, self.account.soft());
    }

    /// While a read waits for memory nothing is kept for anyone who has not taken it.
    fn let_go(&self, reading: u64) {
        self.leave_behind_from(reading, 0);
        self.board.state().trim(0);
    }

    fn leave_behind_from(&self, reading: u64, bytes: u64) {
        let mut state = self.board.state();
        let Some(window) = state.window(reading) else { return };
        for member in window.behind(self.id, bytes, BEHIND_MAX, Instant::now()) {
            tracing::debug!(split = %self.board.key.0, reading, "a run is too far behind the others and reads by itself");
            window.leave(member);
        }
    }

    /// True if nothing of this reading has to be read now: this run was left behind, or another reading has read it.
    fn spared(&self, reading: u64) -> bool {
        let mut state = self.board.state();
        let left = !state.window(reading).is_some_and(|window| window.has(self.id));
        left || state.elsewhere(&self.at, reading).is_some()
    }

    /// What was read, for everyone.
    fn append(&self, reading: u64, news: impl IntoIterator<Item = News>) {
        let mut state = self.board.state();
        let Some(window) = state.window(reading) else { return };
        news.into_iter().for_each(|news| window.append(news));
        state.trim(self.keep());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(seat) = &self.seat {
            let mut state = self.board.state();
            state.leave(seat.id, self.id);
            state.trim(self.keep());
        }
    }
}
