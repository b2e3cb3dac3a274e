//! Records that follow one another, and their rows: decoded once for all sinks that read together, with the columns that any of
//! them wants; each sink then evaluates its own `SELECT … WHERE`.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use arrow::record_batch::RecordBatch;
use formats::{Decoder, FormatError};
use model::{Cursor, RawRecord, SourceSpec, SplitId};

use crate::budget::Reservation;

/// The columns that someone wants of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wants {
    /// These, in this order.
    Some(Arc<[String]>),
    /// Every column of the source.
    All,
}

impl Default for Wants {
    fn default() -> Self {
        Self::Some(Arc::new([]))
    }
}

impl Wants {
    /// What is enough for all of them.
    pub(super) fn union<'a>(mut all: impl Iterator<Item = &'a Self>) -> Self {
        let Some(first) = all.next() else { return Self::default() };
        all.fold(first.clone(), |wants, other| match (&wants, other) {
            _ if wants.are_enough_for(other) => wants,
            (Self::Some(some), Self::Some(more)) => {
                let mut names: Vec<String> = some.iter().chain(more.iter()).cloned().collect();
                names.sort_unstable();
                names.dedup();
                Self::Some(names.into())
            }
            _ => Self::All,
        })
    }

    fn are_enough_for(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Some(_), Self::All) => false,
            (Self::Some(have), Self::Some(want)) => want.iter().all(|name| have.contains(name)),
        }
    }

    /// A decoder of these columns.
    pub(crate) fn decoder(&self, spec: &SourceSpec) -> Result<Box<dyn Decoder>, FormatError> {
        let wanted = match self {
            Self::All => None,
            Self::Some(names) => Some(&**names),
        };
        formats::decoder(spec, wanted)
    }
}

/// The rows of a piece.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) rows: RecordBatch,
    /// Cursor and size of each row.
    pub(crate) cursors: Vec<Cursor>,
    pub(crate) sizes: Vec<u32>,
    /// Records that became no row: their index, and why.
    pub(crate) malformed: Vec<(usize, String)>,
    /// Values that did not fit their column, and the first record that has one.
    pub(crate) nulls: u64,
    pub(crate) null_at: Option<usize>,
}

/// See the module. Rows that are made for several sinks cost memory once, and so does the piece.
pub(crate) struct Piece {
    pub(crate) records: Vec<RawRecord>,
    pub(crate) bytes: u64,
    pub(crate) reservation: Arc<Reservation>,
    /// When the read that brought it began and ended, if anybody wants to know.
    pub(crate) read: Option<(SystemTime, SystemTime)>,
    /// Not a lock of threads: who comes second waits for the rows of the first.
    made: tokio::sync::Mutex<Vec<(Wants, Arc<Rows>)>>,
}

impl Piece {
    pub(super) fn new(
        records: Vec<RawRecord>,
        bytes: u64,
        reservation: Arc<Reservation>,
        read: Option<(SystemTime, SystemTime)>,
    ) -> Arc<Self> {
        Arc::new(Self { records, bytes, reservation, read, made: tokio::sync::Mutex::default() })
    }

    /// Without its first records.
    pub(super) fn rest(&self, skip: usize) -> Arc<Self> {
        let records = self.records[skip..].to_vec();
        let bytes = records.iter().map(|record| record.size() as u64).sum();
        Self::new(records, bytes, Arc::clone(&self.reservation), self.read)
    }

    /// Everyone who was there has taken its rows.
    pub(super) fn forget_rows(&self) {
        if let Ok(mut made) = self.made.try_lock() {
            made.clear();
        }
    }

    /// Rows with at least the columns that `mine` names; those that do not exist yet are made with all of `wants`.
    pub(super) async fn rows(
        &self,
        (mine, wants): (&Wants, &Wants),
        (spec, split): (&SourceSpec, &SplitId),
        decoders: &Decoders,
    ) -> Result<Arc<Rows>, FormatError> {
        let mut made = self.made.lock().await;
        let enough = |made: &[(Wants, Arc<Rows>)]| {
            // A value that does not fit is a matter of those who want its column: they count for themselves.
            let fit =
                made.iter().find(|(has, rows)| has.are_enough_for(mine) && (rows.nulls == 0 || has == mine));
            fit.map(|(_, rows)| Arc::clone(rows))
        };
        for wants in [wants, mine] {
            if let Some(rows) = enough(&made) {
                return Ok(rows);
            }
            if made.iter().all(|(has, _)| has != wants) {
                let rows = decoders.decode(wants, spec, |decoder| decode(decoder, &self.records, split))?;
                made.push((wants.clone(), Arc::new(rows)));
            }
        }
        let mine = made.iter().find(|(has, _)| has == mine);
        Ok(Arc::clone(&mine.or(made.last()).expect("made just now").1))
    }
}

/// The decoder of a reading, made anew when its members want something else.
#[derive(Default)]
pub(super) struct Decoders {
    last: Mutex<Option<(Wants, Box<dyn Decoder>)>>,
    /// Records decoded so far.
    pub(super) decoded: AtomicU64,
}

impl Decoders {
    fn decode(
        &self,
        wants: &Wants,
        spec: &SourceSpec,
        decode: impl FnOnce(&mut dyn Decoder) -> Rows,
    ) -> Result<Rows, FormatError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut decoder = match last.filter(|(had, _)| had == wants) {
            Some((_, decoder)) => decoder,
            None => wants.decoder(spec)?,
        };
        let rows = decode(decoder.as_mut());
        self.decoded.fetch_add((rows.cursors.len() + rows.malformed.len()) as u64, Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((wants.clone(), decoder));
        Ok(rows)
    }
}

fn decode(decoder: &mut dyn Decoder, records: &[RawRecord], split: &SplitId) -> Rows {
    let (mut cursors, mut sizes) = (Vec::with_capacity(records.len()), Vec::with_capacity(records.len()));
    let (mut malformed, mut null_at) = (Vec::new(), None);
    let nulls = decoder.bad_values();
    for (index, record) in records.iter().enumerate() {
        if let Err(error) = decoder.decode(record, split) {
            malformed.push((index, error.message));
            continue;
        }
        if null_at.is_none() && decoder.bad_values() > nulls {
            null_at = Some(index);
        }
        cursors.push(record.cursor.clone());
        sizes.push(u32::try_from(record.payload.len() + record.key.len()).unwrap_or(u32::MAX));
    }
    let rows = decoder.finish();
    Rows { rows, cursors, sizes, malformed, nulls: decoder.bad_values() - nulls, null_at }
}
