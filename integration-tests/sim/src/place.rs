//! Where something runs.

use std::fmt;

/// One machine of the simulated world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// The world itself: faults, resharding, the end.
    World,
    /// The metadata store.
    Store,
    /// Kinesis.
    Kinesis,
    /// The destination that keeps the ledger.
    Ledger,
    /// Whoever types statements.
    User,
    /// A coordinator.
    Coordinator(u8),
    /// A worker.
    Worker(u8),
}

impl Place {
    /// Whether records are written there.
    #[must_use]
    pub fn is_destination(self) -> bool {
        matches!(self, Self::Ledger | Self::Kinesis)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::World => f.write_str("world"),
            Self::Store => f.write_str("store"),
            Self::Kinesis => f.write_str("kinesis"),
            Self::Ledger => f.write_str("ledger"),
            Self::User => f.write_str("user"),
            Self::Coordinator(n) => write!(f, "c{n}"),
            Self::Worker(n) => write!(f, "w{n}"),
        }
    }
}
