//! The row of a scenario: what its destinations held in the end, all together.

use std::fmt;

use crate::books::Account;

/// Counted over the destinations of one run, or over several runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Row {
    /// Records that were put and did not arrive, and of which nobody was told.
    pub lost: u64,
    /// Records out of the order of their key.
    pub out_of_order: u64,
    /// Repeats.
    pub duplicated: u64,
    /// Records that the service let go before they could be read, and of which the user was told.
    pub reported: u64,
}

impl Row {
    /// Of these books.
    #[must_use]
    pub fn of(accounts: &[Account]) -> Self {
        let rows = accounts.iter().map(|account| Self {
            lost: account.report.verdict.lost,
            out_of_order: account.report.verdict.out_of_order,
            duplicated: account.report.verdict.duplicated,
            reported: account.reported,
        });
        rows.fold(Self::default(), Self::plus)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            out_of_order: self.out_of_order + other.out_of_order,
            duplicated: self.duplicated + other.duplicated,
            reported: self.reported + other.reported,
        }
    }

    /// Reads a row back from the line that ends with it.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.split(" | ").skip(2).collect();
        let number = |at: usize, name: &str| cells.get(at)?.strip_prefix(name)?.trim().parse().ok();
        Some(Self {
            lost: number(0, "lost ")?,
            out_of_order: number(1, "out of order ")?,
            duplicated: number(2, "duplicated ")?,
            reported: number(3, "reported ")?,
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, out_of_order, duplicated, reported } = self;
        write!(f, "lost {lost} | out of order {out_of_order} | duplicated {duplicated} | reported {reported}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_back() {
        let row = Row { lost: 1, out_of_order: 2, duplicated: 3, reported: 4 };
        assert_eq!(Row::read(&format!("S01 | a title | {row}")), Some(row));
        assert_eq!(Row::read("trace 0123"), None);
    }
}
