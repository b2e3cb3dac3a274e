//! What a row holds and when it arrived: functions of its number, of the options and of the moment when the source was created,
//! with no state and no randomness between. Whoever reads a place again finds the same there (I1, I10).
//!
//! The bytes must stay what they are from release to release: a checkpoint may stand in the middle of them. A test keeps some.

use std::io::Write;

use bytes::Bytes;
use connector::{Error, ErrorKind, Result};
use model::{Cursor, Position, RawRecord, StartFrom, Timestamp};

use super::config::{Config, Field, Kind};

/// What random texts are made of: as many as five bits can say.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Letters that one random number is enough for.
const LETTERS_OF_NUMBER: usize = 12;

/// The rows of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    /// The first of them; the others follow as far apart as there are splits.
    first: u64,
    /// How many there are.
    pub len: u64,
}

/// All rows of a source.
pub(super) struct Rows {
    columns: Vec<Drawn>,
    rate: u64,
    splits: u64,
    /// How many there are.
    len: u64,
    /// When the first of them arrived; 0 while the source is not stored yet.
    began: Timestamp,
}

/// A column, with what does not change from row to row.
struct Drawn {
    /// Its name as JSON writes it, with the colon.
    label: Vec<u8>,
    kind: Kind,
    seed: u64,
}

impl Rows {
    /// The rows that these options make.
    pub(super) fn new(config: Config, began: Timestamp) -> Self {
        let lasts = config.fields.iter().filter_map(|field| match field.kind {
            // One less than there are, since all numbers of a BIGINT are one too many.
            Kind::Sequence { start, end } => Some(end.abs_diff(start)),
            _ => None,
        });
        let len = lasts.min().unwrap_or(u64::MAX).saturating_add(1);
        let Config { rate, splits, fields } = config;
        let columns = fields.into_iter().map(Drawn::new).collect();
        Self { columns, rate, splits, len, began }
    }

    /// A number that stands for all that places and arrivals rest on: the pace, the splits, how many rows there are.
    pub(super) fn identity(&self) -> u64 {
        [self.rate, self.splits, self.len].into_iter().fold(0, |hash, number| scramble(hash ^ number))
    }

    /// How many splits there are.
    pub(super) fn splits(&self) -> u64 {
        self.splits
    }

    /// The rows of split `index`, if there is one.
    pub(super) fn lane(&self, index: u64) -> Option<Lane> {
        let len = self.len.saturating_sub(index).div_ceil(self.splits);
        (index < self.splits).then_some(Lane { first: index, len })
    }

    /// Whether all rows of a lane have arrived.
    pub(super) fn is_complete(&self, lane: Lane, now: Timestamp) -> bool {
        let last = lane.len.checked_sub(1);
        self.began.0 > 0 && last.is_none_or(|last| self.arrival(lane, last) <= now)
    }

    /// The row at place `n` of a lane.
    fn number(&self, lane: Lane, n: u64) -> u64 {
        n.saturating_mul(self.splits).saturating_add(lane.first)
    }

    /// When the row at place `n` of a lane arrived.
    pub(super) fn arrival(&self, lane: Lane, n: u64) -> Timestamp {
        let after = u128::from(self.number(lane, n)) * 1000 / u128::from(self.rate);
        Timestamp(self.began.0.saturating_add(i64::try_from(after).unwrap_or(i64::MAX)))
    }

    /// The place in a lane where `position` continues.
    pub(super) fn place(&self, lane: Lane, position: &Position) -> Result<u64> {
        match position {
            Position::Start(StartFrom::Horizon) => Ok(0),
            Position::Start(StartFrom::At(at)) => Ok(self.first_since(lane, *at)),
            Position::Start(StartFrom::AtCursor(cursor)) => number(cursor),
            Position::After(cursor) => number(cursor).map(|n| n.saturating_add(1)),
            Position::End => Err(Error::new(ErrorKind::Bug, "a split that has ended is not read again")),
        }
    }

    fn first_since(&self, lane: Lane, at: Timestamp) -> u64 {
        let elapsed = u64::try_from(at.0.saturating_sub(self.began.0)).unwrap_or(0);
        let row = (u128::from(elapsed) * u128::from(self.rate)).div_ceil(1000);
        let n = row.saturating_sub(lane.first.into()).div_ceil(self.splits.into());
        u64::try_from(n).unwrap_or(u64::MAX)
    }

    /// The record at place `n` of a lane.
    pub(super) fn record(&self, lane: Lane, n: u64) -> RawRecord {
        let row = self.number(lane, n);
        let mut payload = Vec::with_capacity(64);
        for (index, column) in self.columns.iter().enumerate() {
            payload.push(if index == 0 { b'{' } else { b',' });
            payload.extend_from_slice(&column.label);
            column.write(row, &mut payload);
        }
        payload.push(b'}');
        RawRecord {
            cursor: Cursor::new(n.to_string()),
            key: Bytes::from(row.to_string()),
            payload: Bytes::from(payload),
            arrived_at: self.arrival(lane, n),
        }
    }
}

impl Drawn {
    fn new(field: Field) -> Self {
        let mut label = serde_json::to_vec(&field.name).unwrap_or_default();
        label.push(b':');
        let seed = field.seed.unwrap_or_else(|| hash(0, field.name.as_bytes()));
        Self { label, kind: field.kind, seed }
    }

    /// Writes the value of a row as JSON.
    fn write(&self, row: u64, out: &mut Vec<u8>) {
        let random = scramble(self.seed ^ scramble(row));
        // What is written to memory does not fail.
        let written = match self.kind {
            Kind::Sequence { start, .. } => write!(out, "{}", start.saturating_add_unsigned(row)),
            Kind::Whole { min, max } => {
                write!(out, "{}", min.saturating_add_unsigned(below(random, min.abs_diff(max))))
            }
            Kind::Fraction { min, max, single: false } => write!(out, "{}", between(random, min, max)),
            #[allow(clippy::cast_possible_truncation, reason = "a REAL has no more digits")]
            Kind::Fraction { min, max, single: true } => write!(out, "{}", between(random, min, max) as f32),
            Kind::Truth => write!(out, "{}", random & 1 == 1),
            Kind::Text { length } => {
                out.push(b'"');
                letters(random, length.into(), out);
                out.push(b'"');
                Ok(())
            }
        };
        debug_assert!(written.is_ok());
    }
}

/// One of the numbers from 0 to `most`, both inclusive.
fn below(random: u64, most: u64) -> u64 {
    let spread = (u128::from(random) * (u128::from(most) + 1)) >> 64;
    u64::try_from(spread).unwrap_or(most)
}

#[allow(clippy::cast_precision_loss, reason = "53 bits are exact")]
fn between(random: u64, min: f64, max: f64) -> f64 {
    let part = (random >> 11) as f64 / (1_u64 << 53) as f64;
    (max - min).mul_add(part, min).clamp(min, max)
}

fn letters(random: u64, length: usize, out: &mut Vec<u8>) {
    let mut bits = random;
    for place in 0..length {
        if place > 0 && place % LETTERS_OF_NUMBER == 0 {
            bits = scramble(random ^ place as u64);
        }
        out.push(LETTERS[(bits & 31) as usize]);
        bits >>= 5;
    }
}

/// A number that looks like chance but follows from `x` (the finalizer of SplitMix64, Steele et al. 2014).
fn scramble(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn hash(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(scramble(seed), |hash, byte| scramble(hash ^ u64::from(*byte)))
}

fn number(cursor: &Cursor) -> Result<u64> {
    let text = cursor.as_str();
    text.parse().map_err(|_| Error::new(ErrorKind::Bug, format!("`{text}` is no place of a datagen split")))
}

#[cfg(test)]
mod tests {
    use model::{Column, SqlType};

    use super::*;

    const BEGAN: i64 = 1_700_000_000_000;

    fn rows(pairs: &[(&str, &str)]) -> Rows {
        let column = |name: &str, kind| Column { name: name.into(), kind };
        let columns = [
            column("id", SqlType::Bigint),
            column("dice", SqlType::Smallint),
            column("share", SqlType::Double),
            column("part", SqlType::Real),
            column("a \"b\"", SqlType::Varchar),
            column("ok", SqlType::Boolean),
        ];
        let given = [
            ("fields.id.kind", "sequence"),
            ("fields.id.start", "1"),
            ("fields.dice.min", "1"),
            ("fields.dice.max", "6"),
            ("fields.share.max", "1"),
            ("fields.part.min", "-1"),
            ("fields.part.max", "1"),
            ("fields.a \"b\".length", "14"),
        ];
        let options = given.iter().chain(pairs).copied().collect();
        Rows::new(Config::read(&options, &columns).unwrap(), Timestamp(BEGAN))
    }

    fn payload(rows: &Rows, lane: Lane, n: u64) -> serde_json::Value {
        serde_json::from_slice(&rows.record(lane, n).payload).unwrap()
    }

    #[test]
    fn the_bytes_are_those_of_earlier_releases() {
        let rows = rows(&[]);
        let lane = rows.lane(0).unwrap();
        let text = |n| String::from_utf8(rows.record(lane, n).payload.to_vec()).unwrap();
        assert_eq!(
            text(0),
            r#"{"id":1,"dice":2,"share":0.6931868757082423,"part":-0.88713765,"a \"b\"":"tmopmgw4axi6rz","ok":false}"#
        );
        assert_eq!(
            text(1_000_000_007),
            r#"{"id":1000000008,"dice":2,"share":0.7118749022229524,"part":-0.99395114,"a \"b\"":"nc75je63xdpspa","ok":true}"#
        );
        assert_eq!(rows.identity(), 14_233_180_215_408_513_170);
    }

    #[test]
    fn values_keep_to_their_bounds_and_use_them() {
        let rows = rows(&[]);
        let lane = rows.lane(0).unwrap();
        let (mut dice, mut truths) = (std::collections::BTreeSet::new(), [0; 2]);
        for n in 0..1000 {
            let row = payload(&rows, lane, n);
            assert_eq!(row["id"], n + 1);
            dice.insert(row["dice"].as_i64().unwrap());
            truths[usize::from(row["ok"].as_bool().unwrap())] += 1;
            assert!((0.0..=1.0).contains(&row["share"].as_f64().unwrap()), "{row}");
            assert!((-1.0..=1.0).contains(&row["part"].as_f64().unwrap()), "{row}");
            assert_eq!(row["a \"b\""].as_str().unwrap().len(), 14);
        }
        assert_eq!(dice, (1..=6).collect());
        assert!(truths.iter().all(|seen| *seen > 400), "{truths:?}");
    }

    #[test]
    fn the_splits_share_the_rows_and_none_is_missing_or_twice() {
        let rows = rows(&[("fields.id.end", "10"), ("datagen.split.num", "3")]);
        let lanes: Vec<Lane> = (0..3).map(|index| rows.lane(index).unwrap()).collect();
        assert_eq!(lanes.iter().map(|lane| lane.len).collect::<Vec<_>>(), [4, 3, 3]);
        assert_eq!(rows.lane(3), None);
        let ids =
            lanes.iter().flat_map(|lane| (0..lane.len).map(|n| payload(&rows, *lane, n)["id"].as_i64()));
        let mut ids: Vec<i64> = ids.flatten().collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=10).collect::<Vec<_>>());
        let keys = [rows.record(lanes[1], 0).key, rows.record(lanes[1], 1).key];
        assert_eq!(keys, ["1", "4"], "the number of the row");
    }

    #[test]
    fn rows_arrive_at_the_rate_of_all_splits_together() {
        let rows =
            rows(&[("datagen.rows.per.second", "3"), ("datagen.split.num", "2"), ("fields.id.end", "4")]);
        let lanes = [rows.lane(0).unwrap(), rows.lane(1).unwrap()];
        let at = |lane: usize, n| rows.arrival(lanes[lane], n).0 - BEGAN;
        assert_eq!([at(0, 0), at(1, 0), at(0, 1), at(1, 1)], [0, 333, 666, 1000]);
        assert!(!rows.is_complete(lanes[1], Timestamp(BEGAN + 999)));
        assert!(rows.is_complete(lanes[1], Timestamp(BEGAN + 1000)));
    }

    #[test]
    fn a_moment_is_the_first_row_that_arrived_then_or_later() {
        let rows = rows(&[("datagen.rows.per.second", "7"), ("datagen.split.num", "3")]);
        for lane in (0..3).map(|index| rows.lane(index).unwrap()) {
            for millis in 0..3000 {
                let at = Timestamp(BEGAN + millis);
                let place = rows.place(lane, &Position::Start(StartFrom::At(at))).unwrap();
                assert!(rows.arrival(lane, place) >= at, "{lane:?} at {millis}");
                assert!(place == 0 || rows.arrival(lane, place - 1) < at, "{lane:?} at {millis}");
            }
        }
        let lane = rows.lane(0).unwrap();
        assert_eq!(rows.place(lane, &Position::Start(StartFrom::At(Timestamp(0)))).unwrap(), 0);
    }

    #[test]
    fn another_pace_or_number_is_another_stream_and_other_values_are_not() {
        let plain = rows(&[]).identity();
        for (name, value) in
            [("datagen.rows.per.second", "11"), ("datagen.split.num", "2"), ("fields.id.end", "9")]
        {
            assert_ne!(rows(&[(name, value)]).identity(), plain, "{name}");
        }
        for (name, value) in
            [("datagen.rows.per.second", "10"), ("validate", "false"), ("fields.dice.seed", "1")]
        {
            assert_eq!(rows(&[(name, value)]).identity(), plain, "{name}");
        }
    }

    #[test]
    fn the_longest_sequence_does_not_overflow() {
        let whole = [("fields.id.start", "-9223372036854775808"), ("fields.id.end", "9223372036854775807")];
        let rows = rows(&whole);
        let lane = rows.lane(0).unwrap();
        assert_eq!(lane.len, u64::MAX);
        assert_eq!(payload(&rows, lane, u64::MAX - 1)["id"], i64::MAX - 1);
        assert!(rows.arrival(lane, u64::MAX - 1).0 > 0);
    }
}
