//! The story of a run: who did what when. Every line also goes into a hash, so that two runs of one seed can be compared in
//! one look.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::place::Place;

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Line {
    /// Since the beginning, in true time.
    pub at: Duration,
    /// Who.
    pub place: Place,
    /// What.
    pub what: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.to_string();
        write!(f, "{:>9.3} {place:<7} {}", self.at.as_secs_f64(), self.what)
    }
}

/// The lines of a run and their hash.
#[derive(Debug)]
pub struct Trace {
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    lines: Vec<Line>,
    hash: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self { kept: Mutex::new(Kept { lines: Vec::new(), hash: 0xcbf2_9ce4_8422_2325 }) }
    }
}

impl Trace {
    /// Adds a line.
    pub fn note(&self, at: Duration, place: Place, what: String) {
        let line = Line { at, place, what };
        let mut kept = self.kept();
        for byte in line.to_string().bytes() {
            kept.hash = (kept.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        kept.lines.push(line);
    }

    /// The hash of all lines so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.kept().hash
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept().lines.len()
    }

    /// Whether nothing happened yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lines, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.kept().lines.clone()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
