//! The loop of one split: waits until rows are due, hands out those that are. It is a clock and a number: there is no task and no
//! thread, and a reader that nobody asks does nothing.
//!
//! Cancel safe: the place moves when an answer is made, with no await between.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use connector::{Polled, Result, SplitReader};
use model::Timestamp;
use tokio::time::Instant;

use super::{
    Clock,
    rows::{Lane, Rows},
};

/// Most records of an answer.
const RECORDS_MAX: usize = 1000;
/// Bytes from which on an answer is full.
const BYTES_MAX: usize = 512 << 10;
/// Least time between two answers of who has caught up: rows that come close together come together.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest time without an answer.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Reads one split.
pub(super) struct Reader {
    rows: Arc<Rows>,
    lane: Lane,
    /// The place of the next row.
    next: u64,
    clock: Clock,
    /// Between which moments the next answer is given; none while it is behind.
    pause: Option<(Instant, Instant)>,
}

impl Reader {
    /// A reader that begins at place `next` of its lane.
    pub(super) fn new(rows: Arc<Rows>, lane: Lane, next: u64, clock: Clock) -> Self {
        Self { rows, lane, next, clock, pause: None }
    }

    fn ended(&self) -> bool {
        self.next >= self.lane.len
    }

    /// Until the next row is due, but neither shorter nor longer than the pause.
    async fn wait(&self) {
        let Some((earliest, latest)) = self.pause.filter(|_| !self.ended()) else { return };
        let due = self.rows.arrival(self.lane, self.next).0.saturating_sub((self.clock)().0);
        let due = Duration::from_millis(u64::try_from(due).unwrap_or(0)).min(PAUSE_MAX);
        tokio::time::sleep_until((Instant::now() + due).clamp(earliest, latest)).await;
    }

    /// What is due now, as far as it fits into an answer, and whether more is.
    fn answer(&mut self) -> (Vec<model::RawRecord>, bool) {
        let now = (self.clock)();
        let (mut records, mut bytes) = (Vec::new(), 0);
        while !self.ended() && self.rows.arrival(self.lane, self.next) <= now {
            if records.len() >= RECORDS_MAX || bytes >= BYTES_MAX {
                return (records, true);
            }
            let record = self.rows.record(self.lane, self.next);
            bytes += record.size();
            records.push(record);
            self.next += 1;
        }
        (records, false)
    }
}

#[async_trait]
impl SplitReader for Reader {
    async fn ready(&mut self) {
        self.wait().await;
    }

    async fn next(&mut self) -> Result<Polled> {
        self.wait().await;
        if self.ended() {
            return Ok(Polled::End);
        }
        let (records, behind) = self.answer();
        let now = Instant::now();
        self.pause = (!behind).then(|| (now + PAUSE_MIN, now + PAUSE_MAX));
        let Some(last) = records.last() else { return Ok(Polled::Idle { lag: Duration::ZERO }) };
        let lag = (self.clock)().0.saturating_sub(last.arrived_at.0);
        let lag = Duration::from_millis(u64::try_from(lag).unwrap_or(0));
        Ok(Polled::Records { records, lag: Some(lag) })
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

#[cfg(test)]
mod tests {
    use connector::{Registry, Source};
    use model::{
        Column, Creation, Cursor, Encode, Format, FormatClause, ObjectId, OnError, Position, RawRecord,
        SourceSpec, SqlType, Start, StartFrom,
    };

    use super::{super::Datagen, *};

    const BEGAN: i64 = 1_700_000_000_000;

    fn spec(pairs: &[(&str, &str)], created_at: i64) -> SourceSpec {
        let column = |name: &str, kind| Column { name: name.into(), kind };
        SourceSpec {
            id: ObjectId::from_parts(1, 1),
            name: "numbers".into(),
            connector: "datagen".into(),
            options: [("fields.id.kind", "sequence")].iter().chain(pairs).copied().collect(),
            columns: vec![column("id", SqlType::Bigint), column("text", SqlType::Varchar)],
            include: vec![],
            primary_key: vec![],
            format: FormatClause {
                format: Format::Plain,
                encode: Encode::Json,
                options: [("", ""); 0].into_iter().collect(),
                key_encode: None,
            },
            on_error: OnError::Fail,
            start: Start::all(StartFrom::Horizon),
            creation: Creation(0),
            created_at: Timestamp(created_at),
            revision: 1,
        }
    }

    /// A source whose clock is that of the test, `age` ms after it was created.
    fn source(pairs: &[(&str, &str)], age: i64) -> Datagen {
        let began = Instant::now();
        let clock = move || {
            let since = i64::try_from(began.elapsed().as_millis()).unwrap();
            Timestamp(BEGAN + age + since)
        };
        super::super::build(&spec(pairs, BEGAN), Arc::new(clock)).unwrap()
    }

    async fn open(source: &Datagen, split: usize, from: &Position) -> Box<dyn SplitReader> {
        let splits = source.discover().await.unwrap().splits;
        source.open(&splits[split].id, from).await.unwrap()
    }

    /// What a reader brings until its split ends.
    async fn rest(reader: &mut dyn SplitReader) -> Vec<RawRecord> {
        let mut got = Vec::new();
        loop {
            reader.ready().await;
            match reader.next().await.unwrap() {
                Polled::Records { records, .. } => {
                    assert!(!records.is_empty() && records.len() <= RECORDS_MAX);
                    got.extend(records);
                }
                Polled::Idle { lag } => assert_eq!(lag, Duration::ZERO),
                Polled::End => return got,
            }
        }
    }

    fn whole(records: &[RawRecord]) -> Vec<(String, &[u8], &[u8], i64)> {
        records.iter().map(|r| (r.cursor.to_string(), &r.key[..], &r.payload[..], r.arrived_at.0)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_opens_anywhere_reads_the_same_again() {
        let options =
            [("fields.id.end", "99"), ("datagen.split.num", "2"), ("datagen.rows.per.second", "500")];
        for split in [0, 1] {
            let first = source(&options, 0);
            let all = rest(&mut *open(&first, split, &Position::Start(StartFrom::Horizon)).await).await;
            assert_eq!(all.len(), 50);
            // Another process, much later.
            let second = source(&options, 86_400_000);
            for (place, record) in all.iter().enumerate() {
                let after = Position::After(record.cursor.clone());
                let again = rest(&mut *open(&second, split, &after).await).await;
                assert_eq!(whole(&again), whole(&all[place + 1..]));
                let at = Position::Start(StartFrom::AtCursor(record.cursor.clone()));
                assert_eq!(rest(&mut *open(&second, split, &at).await).await.len(), all.len() - place);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rows_come_when_they_are_due_and_not_before() {
        let source = source(&[("fields.id.end", "19"), ("datagen.rows.per.second", "4")], 0);
        let mut reader = open(&source, 0, &Position::Start(StartFrom::Horizon)).await;
        let began = Instant::now();
        let mut polls = 0;
        let mut got = 0;
        while got < 20 {
            reader.ready().await;
            polls += 1;
            if let Polled::Records { records, lag } = reader.next().await.unwrap() {
                got += records.len();
                assert!(lag.unwrap() < Duration::from_millis(25), "{lag:?}");
                let due = u128::from(u64::try_from(got - 1).unwrap()) * 250;
                assert!(began.elapsed().as_millis() >= due, "row {got} after {:?}", began.elapsed());
            }
        }
        assert_eq!(began.elapsed().as_millis() / 100, 47);
        assert!(polls <= 40, "{polls} polls for 20 rows");
        assert!(matches!(reader.next().await, Ok(Polled::End)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_caught_up_is_asked_at_most_fifty_times_a_second_and_at_least_once() {
        for (rate, most) in [("1000000", 50), ("1", 2)] {
            let source = source(&[("datagen.rows.per.second", rate), ("datagen.split.num", "1000")], 0);
            let mut reader = open(&source, 999, &Position::Start(StartFrom::Horizon)).await;
            let began = Instant::now();
            let mut polls = 0;
            while began.elapsed() < Duration::from_secs(10) {
                reader.ready().await;
                reader.next().await.unwrap();
                polls += 1;
            }
            assert!((10..=10 * most + 2).contains(&polls), "{rate}: {polls} polls in 10 s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_behind_reads_without_a_pause_in_answers_of_bounded_size() {
        let hour = 3_600_000;
        let source = source(&[("fields.id.end", "4999"), ("fields.text.length", "1000")], hour);
        let mut reader = open(&source, 0, &Position::Start(StartFrom::Horizon)).await;
        let began = Instant::now();
        reader.ready().await;
        let Polled::Records { records, lag } = reader.next().await.unwrap() else { panic!("no records") };
        let bytes: usize = records.iter().map(RawRecord::size).sum();
        assert!((BYTES_MAX..BYTES_MAX + 2000).contains(&bytes), "{bytes} bytes");
        assert!(lag.unwrap() > Duration::from_secs(3500), "{lag:?}");
        assert_eq!(records.len() + rest(&mut *reader).await.len(), 5000);
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_next_loses_nothing() {
        let source = source(&[("fields.id.end", "29"), ("datagen.rows.per.second", "100")], 0);
        let mut reader = open(&source, 0, &Position::Start(StartFrom::Horizon)).await;
        let (mut got, mut patience) = (Vec::new(), 0);
        loop {
            patience += 1;
            let within = Duration::from_millis(patience % 40);
            match tokio::time::timeout(within, reader.next()).await {
                Ok(Ok(Polled::Records { records, .. })) => got.extend(records),
                Ok(Ok(Polled::End)) => break,
                _ => {}
            }
        }
        let cursors: Vec<String> = got.iter().map(|record| record.cursor.to_string()).collect();
        assert_eq!(cursors, (0..30).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_final_and_the_listing_shows_it_closed() {
        let source = source(
            &[("fields.id.end", "1"), ("datagen.split.num", "3"), ("datagen.rows.per.second", "1")],
            0,
        );
        let closed = async || -> Vec<bool> {
            source.discover().await.unwrap().splits.iter().map(|split| split.closed).collect()
        };
        assert_eq!(
            closed().await,
            [true, false, true],
            "one has its only row, one waits for it, one has none"
        );
        for (split, rows) in [(0, 1), (1, 1), (2, 0)] {
            let mut reader = open(&source, split, &Position::Start(StartFrom::Horizon)).await;
            assert_eq!(rest(&mut *reader).await.len(), rows);
            assert!(matches!(reader.next().await, Ok(Polled::End)));
            let after = Position::After(Cursor::new("7"));
            assert!(
                rest(&mut *open(&source, split, &after).await).await.is_empty(),
                "a place behind the end"
            );
        }
        assert_eq!(closed().await, [true; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_split_of_other_options_is_gone_and_cannot_be_read() {
        let source = source(&[], 0);
        let other = super::tests::source(&[("datagen.rows.per.second", "20")], 0);
        let (ours, theirs) = (source.discover().await.unwrap(), other.discover().await.unwrap());
        assert_ne!(ours.creation, theirs.creation);
        assert!(ours.creation.0 > 0, "0 is a stream that nobody has seen");
        assert!(!source.is_gone(&ours.splits[0].id).await.unwrap());
        let stranger = &theirs.splits[0].id;
        assert!(source.is_gone(stranger).await.unwrap());
        assert!(source.open(stranger, &Position::Start(StartFrom::Horizon)).await.is_err());
        let nonsense = Position::After(Cursor::new("49:1"));
        assert!(source.open(&ours.splits[0].id, &nonsense).await.is_err());
    }

    #[tokio::test]
    async fn it_is_made_from_the_registry_before_the_source_is_stored() {
        let mut registry = Registry::new();
        super::super::register(&mut registry);
        let source = registry.build_source(&spec(&[("fields.id.end", "4")], 0)).unwrap();
        assert_eq!(source.start().await.unwrap(), Start::all(StartFrom::Horizon));
        let listing = source.discover().await.unwrap();
        assert!(!listing.splits[0].closed, "nobody knows yet when it begins");
        assert_eq!(listing.creation, listing.splits[0].id.creation());
    }
}
