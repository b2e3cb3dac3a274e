//! What one reading has brought and not all its members have taken yet, in the order of the split. Pure: no I/O, no clock; the
//! board asks it.
//!
//! ```text
//!   tail                                        head
//!     │ item │ item │ item │ item │ item │ item │
//!               ▲ next of a member that is behind  ▲ next of the others: whoever of them asks first reads on
//! ```
//!
//! Positions are told by their cursors, which are equal or not: a run may join wherever it would go on with exactly the record
//! that comes next here (I1: no gap, no repeat).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use connector::Gap;
use logic::mutant;
use model::Position;
use tokio::time::Instant;

use super::{
    News, What,
    piece::{Piece, Wants},
};

/// Items that are kept although everyone has taken them.
const KEPT_MAX: usize = 64;

/// A place in a window: the next item, and how many of its records come before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spot {
    serial: u64,
    skip: usize,
}

/// One thing that was brought.
struct Item {
    news: News,
    /// When the first member took it.
    taken_at: Option<Instant>,
    /// Bytes of all items up to and with this one, since the window was made.
    total: u64,
    /// A gap that was told at the position before it, by an item that is gone: a run that joins here is told too.
    gap_before: Option<Gap>,
}

/// How far one member is.
struct Mark {
    spot: Spot,
    wants: Wants,
    gap: Option<Gap>,
}

/// See the module.
pub(super) struct Window {
    tail: Position,
    head: Position,
    gap_at_head: Option<Gap>,
    /// Serial of the first item.
    first: u64,
    items: VecDeque<Item>,
    total: u64,
    marks: BTreeMap<u64, Mark>,
    /// Nothing comes after the last item.
    over: bool,
    wants: Wants,
}

impl Window {
    pub(super) fn new(at: Position) -> Self {
        Self {
            tail: at.clone(),
            head: at,
            gap_at_head: None,
            first: 0,
            items: VecDeque::new(),
            total: 0,
            marks: BTreeMap::new(),
            over: false,
            wants: Wants::default(),
        }
    }

    fn next_serial(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    fn item(&self, serial: u64) -> Option<&Item> {
        self.items.get(usize::try_from(serial.checked_sub(self.first)?).ok()?)
    }

    /// Bytes of all items before this one.
    fn total_before(&self, serial: u64) -> u64 {
        match serial.checked_sub(1).and_then(|before| self.item(before)) {
            Some(item) => item.total,
            None => self.items.front().map_or(self.total, |item| item.total - item.news.bytes()),
        }
    }

    /// Where a run at `position` would go on here; `None` if this window does not hold it, or will bring nothing more.
    pub(super) fn find(&self, position: &Position) -> Option<Spot> {
        if self.over {
            return None;
        }
        if *position == self.head {
            return Some(Spot { serial: self.next_serial(), skip: 0 });
        }
        if *position == self.tail {
            return Some(Spot { serial: self.first, skip: 0 });
        }
        let Position::After(cursor) = position else { return None };
        for (serial, item) in (self.first..).zip(&self.items) {
            let (index, of) = match &item.news.what {
                What::Records(piece) => {
                    let found = piece.records.iter().position(|record| record.cursor == *cursor);
                    (found, piece.records.len())
                }
                What::Idle { passed } => (passed.as_ref().filter(|passed| *passed == cursor).map(|_| 0), 1),
                What::Trouble(_) | What::End | What::Failed(_) => (None, 0),
            };
            let index = index.map(|at| if mutant::on("joins_past_a_record") { at + 1 } else { at });
            match index {
                Some(index) if index + 1 < of => return Some(Spot { serial, skip: index + 1 }),
                Some(_) => return Some(Spot { serial: serial + 1, skip: 0 }),
                None => {}
            }
        }
        None
    }

    /// True if something was already read from there on.
    pub(super) fn is_ahead_of(&self, spot: Spot) -> bool {
        spot.serial < self.next_serial()
    }

    pub(super) fn join(&mut self, member: u64, spot: Spot, wants: Wants) {
        let gap = match self.item(spot.serial) {
            _ if spot.skip > 0 => None,
            Some(item) => item.gap_before.clone(),
            None => self.gap_at_head.clone(),
        };
        self.marks.insert(member, Mark { spot, wants, gap });
        self.count_wants();
    }

    pub(super) fn leave(&mut self, member: u64) {
        if self.marks.remove(&member).is_some() {
            self.count_wants();
        }
    }

    fn count_wants(&mut self) {
        self.wants = Wants::union(self.marks.values().map(|mark| &mark.wants));
    }

    /// What all members together want of a record.
    pub(super) fn wants(&self) -> Wants {
        self.wants.clone()
    }

    pub(super) fn has(&self, member: u64) -> bool {
        self.marks.contains_key(&member)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The next item of a member; `None` when it has taken all there is. Who joined inside a piece gets the rest of it.
    pub(super) fn take(&mut self, member: u64, now: Instant) -> Option<News> {
        let spot = self.marks.get(&member)?.spot;
        let item = self.items.get_mut(usize::try_from(spot.serial.checked_sub(self.first)?).ok()?)?;
        item.taken_at.get_or_insert(now);
        let mut news = item.news.clone();
        let mark = self.marks.get_mut(&member)?;
        mark.spot = Spot { serial: spot.serial + 1, skip: 0 };
        if spot.skip > 0 {
            news.gap = None;
            if let What::Records(piece) = &mut news.what {
                *piece = piece.rest(spot.skip);
            }
        }
        news.gap = news.gap.or(mark.gap.take());
        Some(news)
    }

    /// What was read next.
    pub(super) fn append(&mut self, news: News) {
        self.total += news.bytes();
        let gap_before = self.gap_at_head.clone();
        match news.end() {
            Some(end) => (self.head, self.gap_at_head) = (end, None),
            None => self.gap_at_head = news.gap.clone().or(gap_before.clone()),
        }
        self.over |= matches!(news.what, What::End | What::Failed(_));
        self.items.push_back(Item { news, taken_at: None, total: self.total, gap_before });
    }

    /// The members that hold the others up, other than `but`: more than so many bytes wait for them, or something that another
    /// member has taken so long ago.
    pub(super) fn behind(&self, but: u64, bytes: u64, for_long: Duration, now: Instant) -> Vec<u64> {
        let late = |mark: &Mark| {
            let Some(item) = self.item(mark.spot.serial) else { return false };
            let unread = self.total - self.total_before(mark.spot.serial);
            unread > bytes || item.taken_at.is_some_and(|at| now.saturating_duration_since(at) > for_long)
        };
        let others = self.marks.iter().filter(|(member, mark)| **member != but && late(mark));
        others.map(|(member, _)| *member).collect()
    }

    /// Lets go of what every member has taken, but for the newest `keep` bytes.
    pub(super) fn trim(&mut self, keep: u64) {
        let taken = self.marks.values().map(|mark| mark.spot.serial).min().unwrap_or(self.next_serial());
        while self.first < taken {
            let Some(front) = self.items.front() else { break };
            let newer = self.total - front.total;
            if keep > 0 && newer < keep && self.items.len() <= KEPT_MAX {
                break;
            }
            self.tail = front.news.end().unwrap_or_else(|| self.tail.clone());
            self.items.pop_front();
            self.first += 1;
        }
        for item in self.items.iter().take(usize::try_from(taken - self.first).unwrap_or(0)) {
            if let What::Records(piece) = &item.news.what {
                piece.forget_rows();
            }
        }
    }
}

impl News {
    fn bytes(&self) -> u64 {
        if let What::Records(piece) = &self.what { piece.bytes } else { 0 }
    }

    /// The position after it, if it has one of its own.
    pub(super) fn end(&self) -> Option<Position> {
        match &self.what {
            What::Records(piece) => Some(piece.end()),
            What::Idle { passed } => passed.clone().map(Position::After),
            What::End => Some(Position::End),
            What::Trouble(_) | What::Failed(_) => None,
        }
    }
}

impl Piece {
    /// The position after its last record.
    pub(super) fn end(&self) -> Position {
        let last = self.records.last().expect("a piece has at least one record");
        Position::After(last.cursor.clone())
    }
}
