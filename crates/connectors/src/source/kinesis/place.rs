//! Where a reader is in its shard: from a position to an iterator, from an answer to records with cursors.
//!
//! A plain record's cursor is its sequence number. Inside an aggregate the cursor is `number:sub`, counted from 0, except for
//! the last inner record, whose cursor is the number alone: once that one is delivered the whole aggregate is, and reading
//! continues after it without asking for it again. A position `number:sub` asks for the aggregate again and passes over what
//! was delivered.

use connector::{Error, ErrorKind, Result};
use formats::kpl;
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
}

impl Place {
    /// The place that `position` means; `End` and a cursor of another connector are bugs.
    pub(crate) fn of(position: &Position) -> Result<Self> {
        let mut place = Self { from: Begin::Horizon, delivered: None, since: None, resumed: false };
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

    /// The oldest record instead: the place is not there any more.
    pub(crate) fn give_up(&mut self) {
        *self = Self { from: Begin::Horizon, delivered: None, since: self.since, resumed: false };
    }

    /// Opens the records of one answer and moves behind them.
    pub(crate) fn take(&mut self, records: Vec<Record>) -> Vec<RawRecord> {
        let Some(last) = records.last() else { return Vec::new() };
        self.from = Begin::AfterNumber(last.sequence_number.clone());
        self.resumed = true;
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
        let cursor = if sub == last {
            Cursor::new(sequence_number.as_str())
        } else {
            Cursor::new(format!("{sequence_number}:{sub}"))
        };
        out.push(RawRecord { cursor, key: user.key, payload: user.data, arrived_at });
    }
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
            let rest: Vec<Record> = all()
                .into_iter()
                .filter(|r| match &place.from {
                    Begin::AfterNumber(n) => r.sequence_number > *n,
                    Begin::AtNumber(n) => r.sequence_number >= *n,
                    _ => true,
                })
                .collect();
            assert_eq!(read(&mut place, rest), whole[i + 1..], "after {cursor}");
        }
    }

    #[test]
    fn an_iterator_made_again_begins_after_what_was_read() {
        let mut place = after("6:1");
        assert_eq!(place.from, Begin::AtNumber("6".into()));
        read(&mut place, vec![record("6", aggregate(&["b", "c", "d"]))]);
        assert_eq!(place.from, Begin::AfterNumber("6".into()));
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
    fn what_is_no_cursor_of_ours_is_refused() {
        for wrong in ["", "x", "1:", "1:x", ":1", "1:2:3"] {
            assert!(Place::of(&Position::After(Cursor::new(wrong))).is_err(), "{wrong}");
        }
        assert!(Place::of(&Position::End).is_err());
    }
}
