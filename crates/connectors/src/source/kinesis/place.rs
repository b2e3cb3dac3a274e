//! Where a reader is in its shard: from a position to an iterator, from an answer to records with cursors.
//!
//! A plain record's cursor is its sequence number. Inside an aggregate the cursor is `number:sub`, counted from 0, except for
//! the last inner record, whose cursor is the number alone: once that one is delivered the whole aggregate is, and reading
//! continues after it without asking for it again. A position `number:sub` asks for the aggregate again and passes over what
//! was delivered.
//!
//! A subscription tells a continuation number also when no record comes. Such a cursor, `number:@moment`, names no record: it
//! says that everything up to `number` had been read at that moment (ms since 1970).

use std::cmp::Ordering;

use connector::{Error, ErrorKind, Result};
use formats::kpl;
use logic::mutant;
use model::{Cursor, Position, RawRecord, StartFrom, Timestamp};

use super::{client::Begin, get_records::Record};

/// A place in a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where the next iterator begins.
    pub from: Begin,
    /// In the record of this number, inner records up to this one were delivered.
    delivered: Option<(String, u64)>,
    /// Records before this moment are passed over until the first that is not: some servers begin earlier than asked.
    since: Option<Timestamp>,
    /// True for a place where something was read before: if it is gone, records are lost.
    pub resumed: bool,
    /// The record that an iterator made at this place must bring first. The service does not always refuse a number that it
    /// has trimmed: it may begin at its oldest record without a word (docs/kinesis.md S8), so the last record that was read is
    /// asked for once more.
    expected: Option<String>,
    /// The expected record was not there: its number, and the number of what came instead.
    missed: Option<(String, Option<String>)>,
    /// `from` names no record: all up to it had been read at this moment.
    passed: Option<Timestamp>,
    /// True until it was looked whether what came after such a position may have aged out.
    unproved: bool,
}

impl Place {
    /// The place that `position` means; `End` and a cursor of another connector are bugs.
    pub(crate) fn of(position: &Position) -> Result<Self> {
        let mut place = Self::oldest(None);
        match position {
            Position::Start(StartFrom::Horizon) => {}
            Position::Start(StartFrom::At(at)) => {
                place.from = Begin::At(*at);
                place.since = Some(*at);
            }
            Position::Start(StartFrom::AtCursor(cursor)) => {
                let (number, sub) = parts(cursor)?;
                place.from = Begin::AtNumber(number.clone());
                place.delivered = sub.and_then(|sub| sub.checked_sub(1)).map(|sub| (number, sub));
            }
            Position::After(cursor) => {
                place.resumed = true;
                if let Some((number, at)) = continuation(cursor) {
                    place.from = Begin::AfterNumber(number);
                    (place.passed, place.unproved) = (Some(at), true);
                    return Ok(place);
                }
                let (number, sub) = parts(cursor)?;
                place.from = match sub {
                    None => Begin::AfterNumber(number),
                    Some(sub) => {
                        place.delivered = Some((number.clone(), sub));
                        Begin::AtNumber(number)
                    }
                };
            }
            Position::End => {
                return Err(Error::new(ErrorKind::Bug, "a shard that has ended is not read again"));
            }
        }
        Ok(place)
    }

    fn oldest(since: Option<Timestamp>) -> Self {
        Self {
            from: Begin::Horizon,
            delivered: None,
            since,
            resumed: false,
            expected: None,
            missed: None,
            passed: None,
            unproved: false,
        }
    }

    /// The oldest record instead: the place is not there any more.
    pub(crate) fn give_up(&mut self) {
        *self = Self::oldest(self.since);
    }

    /// Where an iterator at this place begins. Where something was read before, with the last record of that: it is passed
    /// over, and proves that nothing after it is gone.
    pub(crate) fn begin(&mut self) -> Begin {
        match &self.from {
            Begin::AfterNumber(number) if self.resumed && self.passed.is_none() => {
                self.delivered = Some((number.clone(), u64::MAX));
                self.expected = Some(number.clone());
                Begin::AtNumber(number.clone())
            }
            Begin::AtNumber(number) if self.resumed => {
                self.expected = Some(number.clone());
                self.from.clone()
            }
            _ => self.from.clone(),
        }
    }

    /// True while the record that proves that nothing is gone has not come.
    pub(crate) fn expects(&self) -> bool {
        self.expected.is_some()
    }

    /// The shard has ended: what has not come by now is not there.
    pub(crate) fn end(&mut self) {
        if let Some(expected) = self.expected.take() {
            self.missed = Some((expected, None));
        }
    }

    /// Told once: the record that should have come first and did not, and what came instead.
    pub(crate) fn missed(&mut self) -> Option<(String, Option<String>)> {
        self.missed.take()
    }

    /// True for a record that was handed on before: subscriptions overlap, and some servers begin earlier than asked.
    pub(crate) fn is_behind(&self, number: &str) -> bool {
        match &self.from {
            Begin::AfterNumber(from) => match compare(number, from) {
                Ordering::Less => true,
                // Asked for once more on purpose.
                Ordering::Equal => self.expected.as_ref().is_none_or(|expected| expected != from),
                Ordering::Greater => false,
            },
            Begin::AtNumber(from) => compare(number, from) == Ordering::Less,
            Begin::Horizon | Begin::At(_) => false,
        }
    }

    /// Everything up to `number` was read at the moment `now` although no record came; the cursor of that, if it is news.
    pub(crate) fn pass(&mut self, number: &str, now: Timestamp) -> Option<Cursor> {
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        if let Some(expected) = &self.expected {
            // It may still come.
            if compare(number, expected) != Ordering::Greater {
                return None;
            }
            self.end();
        }
        let known = match &self.from {
            Begin::AfterNumber(from) => compare(number, from) != Ordering::Greater,
            Begin::AtNumber(from) => compare(number, from) == Ordering::Less,
            Begin::Horizon | Begin::At(_) => false,
        };
        if known && self.passed.is_none() {
            return None;
        }
        if !known {
            self.from = Begin::AfterNumber(number.to_owned());
        }
        (self.delivered, self.resumed, self.passed) = (None, true, Some(now));
        let Begin::AfterNumber(number) = &self.from else { return None };
        Some(Cursor::new(format!("{number}:@{}", now.0)))
    }

    /// Told once, and only of a position that names no record: it, and its moment, if that is before `horizon`.
    pub(crate) fn lapsed(&mut self, horizon: Option<Timestamp>) -> Option<(String, Timestamp)> {
        let horizon = horizon.filter(|_| std::mem::take(&mut self.unproved))?;
        match (&self.from, self.passed) {
            (Begin::AfterNumber(number), Some(at)) if at < horizon => Some((number.clone(), at)),
            _ => None,
        }
    }

    /// Opens the records of one answer and moves behind them.
    pub(crate) fn take(&mut self, records: Vec<Record>) -> Vec<RawRecord> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Vec::new() };
        if let Some(expected) = self.expected.take_if(|expected| *expected != first.sequence_number) {
            self.missed = Some((expected, Some(first.sequence_number.clone())));
        }
        self.expected = None;
        let newest = if mutant::on("renewal_from_wrong_cursor") { first } else { last };
        self.from = Begin::AfterNumber(newest.sequence_number.clone());
        (self.resumed, self.passed) = (true, None);
        let mut out = Vec::with_capacity(records.len());
        for record in records {
            if self.since.is_some_and(|since| record.arrived_at < since) {
                continue;
            }
            self.since = None;
            let delivered = match self.delivered.take() {
                Some((number, sub)) if number == record.sequence_number => Some(sub),
                _ => None,
            };
            push(&mut out, record, delivered);
        }
        out
    }
}

fn push(out: &mut Vec<RawRecord>, record: Record, delivered: Option<u64>) {
    let Record { sequence_number, key, data, arrived_at } = record;
    let Some(inner) = kpl::open(&data) else {
        if delivered.is_none() {
            out.push(RawRecord { cursor: Cursor::new(sequence_number), key, payload: data, arrived_at });
        }
        return;
    };
    let last = inner.len().saturating_sub(1);
    out.reserve(inner.len());
    for (sub, user) in inner.into_iter().enumerate() {
        if delivered.is_some_and(|delivered| sub as u64 <= delivered) {
            continue;
        }
        let cursor = if sub == last || mutant::on("kpl_cursor_without_sub") {
            Cursor::new(sequence_number.as_str())
        } else {
            Cursor::new(format!("{sequence_number}:{sub}"))
        };
        out.push(RawRecord { cursor, key: user.key, payload: user.data, arrived_at });
    }
}

/// Sequence numbers are numbers, of up to 56 digits.
fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn continuation(cursor: &Cursor) -> Option<(String, Timestamp)> {
    let (number, at) = cursor.as_str().split_once(":@")?;
    let well = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    Some((number.to_owned(), Timestamp(at.parse().ok()?))).filter(|_| well)
}

fn parts(cursor: &Cursor) -> Result<(String, Option<u64>)> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let wrong = || Error::new(ErrorKind::Bug, format!("`{cursor}` is not a cursor of a kinesis shard"));
    match cursor.as_str().split_once(':') {
        None if digits(cursor.as_str()) => Ok((cursor.as_str().to_owned(), None)),
        Some((number, sub)) if digits(number) => {
            Ok((number.to_owned(), Some(sub.parse().map_err(|_| wrong())?)))
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(number: &str, data: impl Into<Bytes>) -> Record {
        Record {
            sequence_number: number.into(),
            key: Bytes::from_static(b"outer"),
            data: data.into(),
            arrived_at: Timestamp(1000),
        }
    }

    fn aggregate(values: &[&'static str]) -> Bytes {
        let users: Vec<kpl::UserRecord> = values
            .iter()
            .map(|v| kpl::UserRecord {
                key: Bytes::from_static(b"k"),
                hash_key: None,
                data: Bytes::from_static(v.as_bytes()),
            })
            .collect();
        kpl::close(&users)
    }

    fn after(cursor: &str) -> Place {
        Place::of(&Position::After(Cursor::new(cursor))).unwrap()
    }

    fn read(place: &mut Place, records: Vec<Record>) -> Vec<(String, String)> {
        let text = |b: &Bytes| String::from_utf8(b.to_vec()).unwrap();
        place.take(records).iter().map(|r| (r.cursor.to_string(), text(&r.payload))).collect()
    }

    fn all() -> Vec<Record> {
        vec![record("5", "a"), record("6", aggregate(&["b", "c", "d"])), record("7", "e")]
    }

    #[test]
    fn every_cursor_continues_with_the_next_record() {
        let whole = read(&mut Place::of(&Position::Start(StartFrom::Horizon)).unwrap(), all());
        let cursors: Vec<&str> = whole.iter().map(|(c, _)| c.as_str()).collect();
        assert_eq!(cursors, ["5", "6:0", "6:1", "6", "7"]);
        for (i, cursor) in cursors.iter().enumerate() {
            let mut place = after(cursor);
            // What the service answers for the iterator that the place asks for.
            let begin = place.begin();
            let rest: Vec<Record> = all()
                .into_iter()
                .filter(|r| match &begin {
                    Begin::AtNumber(n) => r.sequence_number >= *n,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(read(&mut place, rest), whole[i + 1..], "after {cursor}");
            assert_eq!(place.missed(), None);
        }
    }

    /// S8: the service begins at its oldest record without a word.
    #[test]
    fn a_number_that_was_trimmed_in_silence_is_missed_once() {
        for cursor in ["5", "5:1"] {
            let mut place = after(cursor);
            place.begin();
            assert_eq!(read(&mut place, vec![]), []);
            assert_eq!(place.missed(), None, "nothing came yet");
            assert_eq!(read(&mut place, vec![record("7", "e")]), [("7".into(), "e".into())]);
            assert_eq!(place.missed(), Some(("5".into(), Some("7".into()))), "{cursor}");
            assert_eq!(read(&mut place, vec![record("8", "f")]).len(), 1);
            place.end();
            assert_eq!(place.missed(), None, "the next answer of the same iterator owes nothing");
        }
        let mut place = after("5");
        place.begin();
        place.end();
        assert_eq!(place.missed(), Some(("5".into(), None)));
    }

    #[test]
    fn a_start_that_nobody_had_read_from_is_never_missed() {
        let mut place = Place::of(&Position::Start(StartFrom::AtCursor(Cursor::new("5")))).unwrap();
        place.begin();
        read(&mut place, vec![record("7", "e")]);
        assert_eq!(place.missed(), None);
    }

    #[test]
    fn an_iterator_made_again_begins_after_what_was_read() {
        let mut place = after("6:1");
        assert_eq!(place.from, Begin::AtNumber("6".into()));
        read(&mut place, vec![record("6", aggregate(&["b", "c", "d"]))]);
        assert_eq!(place.from, Begin::AfterNumber("6".into()));
        assert_eq!(place.begin(), Begin::AtNumber("6".into()));
        let again = vec![record("6", aggregate(&["b", "c", "d"])), record("7", "e")];
        assert_eq!(read(&mut place, again), [("7".into(), "e".into())]);
    }

    #[test]
    fn a_later_record_is_not_passed_over_when_the_aggregate_is_gone() {
        assert_eq!(read(&mut after("6:1"), vec![record("7", "e")]), [("7".into(), "e".into())]);
    }

    #[test]
    fn a_moment_passes_over_leading_older_records_only() {
        let mut place = Place::of(&Position::Start(StartFrom::At(Timestamp(500)))).unwrap();
        let at = |number: &str, ms: i64| Record { arrived_at: Timestamp(ms), ..record(number, "x") };
        let cursors: Vec<String> = place
            .take(vec![at("1", 100), at("2", 600), at("3", 400)])
            .iter()
            .map(|r| r.cursor.to_string())
            .collect();
        assert_eq!(cursors, ["2", "3"]);
        assert_eq!(place.take(vec![at("4", 300)]).len(), 1);
    }

    #[test]
    fn a_continuation_number_is_a_place_that_expects_no_record() {
        let mut place = after("99");
        assert_eq!(place.pass("99", Timestamp(5)), None, "nothing new");
        assert_eq!(place.pass("100", Timestamp(6)), Some(Cursor::new("100:@6")));
        assert_eq!(place.pass("100", Timestamp(7)), Some(Cursor::new("100:@7")), "the moment is news");
        assert_eq!(place.pass("98", Timestamp(8)), Some(Cursor::new("100:@8")), "it never goes back");
        assert!(place.is_behind("99") && place.is_behind("100") && !place.is_behind("101"));
        let mut place = after("100:@8");
        assert_eq!(place.begin(), Begin::AfterNumber("100".into()));
        assert_eq!(read(&mut place, vec![record("130", "e")]), [("130".into(), "e".into())]);
        assert_eq!(place.missed(), None);
        assert_eq!(place.begin(), Begin::AtNumber("130".into()));
    }

    #[test]
    fn a_continuation_number_does_not_hide_that_a_record_is_missing() {
        let mut place = after("5:1");
        place.begin();
        assert_eq!(place.pass("5", Timestamp(1)), None, "the aggregate may still come");
        assert_eq!(
            read(&mut place.clone(), vec![record("5", aggregate(&["b", "c", "d"]))]),
            [("5".into(), "d".into())]
        );
        assert!(place.pass("9", Timestamp(2)).is_some());
        assert_eq!(place.missed(), Some(("5".into(), None)));
    }

    #[test]
    fn an_old_continuation_number_may_have_lost_something() {
        for (at, lapsed) in [(400, true), (600, false)] {
            let mut place = after(&format!("5:@{at}"));
            assert_eq!(place.lapsed(Some(Timestamp(500))).is_some(), lapsed);
            assert_eq!(place.lapsed(Some(Timestamp(500))), None, "once");
        }
        assert_eq!(after("5").lapsed(Some(Timestamp(500))), None);
    }

    #[test]
    fn what_was_handed_on_is_behind() {
        let mut place = after("99");
        assert!(place.is_behind("98") && place.is_behind("099") && !place.is_behind("100"));
        place.begin();
        assert!(!place.is_behind("99"), "asked for on purpose");
        read(&mut place, vec![record("99", "a")]);
        assert!(place.is_behind("99"));
        assert!(!after("99:1").is_behind("99"));
    }

    #[test]
    fn what_is_no_cursor_of_ours_is_refused() {
        for wrong in ["", "x", "1:", "1:x", ":1", "1:2:3", "1:@", "1:@x", ":@1"] {
            assert!(Place::of(&Position::After(Cursor::new(wrong))).is_err(), "{wrong}");
        }
        assert!(Place::of(&Position::End).is_err());
    }
}
