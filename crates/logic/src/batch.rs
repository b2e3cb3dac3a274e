//! When a batch is cut: it is full by rows or by bytes, its first row has waited long enough for company, or nothing more is
//! coming. Used by the outbox of every sink writer.

use std::time::Duration;

/// How large one request may be, and how long its first row waits for company.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows, at most.
    pub rows: usize,
    /// Bytes, at most; a single larger row goes alone.
    pub bytes: u64,
    /// How long the first row waits.
    pub linger: Duration,
}

/// A batch while it is being filled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fill {
    rows: usize,
    bytes: u64,
}

impl Fill {
    /// Takes a row in if it fits; the first row always does.
    pub fn take(&mut self, bytes: u32, limits: &Limits) -> bool {
        let more = self.bytes + u64::from(bytes);
        if self.rows > 0 && (self.rows >= limits.rows || more > limits.bytes) {
            return false;
        }
        self.rows += 1;
        self.bytes = more;
        true
    }

    /// True without a row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

impl Limits {
    /// Whether so many rows and bytes fill a batch, so that nobody needs to wait.
    #[must_use]
    pub fn filled_by(&self, rows: usize, bytes: u64) -> bool {
        rows >= self.rows || bytes >= self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { rows: 3, bytes: 100, linger: Duration::ZERO };

    #[test]
    fn a_batch_is_full_by_rows_or_by_bytes() {
        let mut fill = Fill::default();
        assert!(fill.take(10, &LIMITS) && fill.take(10, &LIMITS) && fill.take(80, &LIMITS));
        assert!(!fill.take(0, &LIMITS), "three rows are enough");
        let mut fill = Fill::default();
        assert!(fill.take(60, &LIMITS) && !fill.take(41, &LIMITS) && fill.take(40, &LIMITS));
    }

    #[test]
    fn a_row_larger_than_the_limit_goes_alone() {
        let mut fill = Fill::default();
        assert!(fill.take(1000, &LIMITS));
        assert!(!fill.take(1, &LIMITS));
    }
}
