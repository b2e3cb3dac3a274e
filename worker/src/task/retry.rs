//! How long a run waits after a failure, by what the failure asks for. There is no limit of attempts: an outage is waited for.

use std::time::Duration;

use connector::ErrorKind;
use logic::backoff::Backoff;

/// The waits of one part of a run.
#[derive(Debug)]
pub(crate) struct Retry {
    throttled: Backoff,
    unavailable: Backoff,
    human: Backoff,
    troubled: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            throttled: Backoff::new(Duration::from_millis(100), Duration::from_secs(2)),
            unavailable: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
            human: Backoff::new(Duration::from_secs(5), Duration::from_secs(30)),
            troubled: false,
        }
    }
}

impl Retry {
    /// After another failure of this kind.
    pub(crate) fn failed(&mut self, kind: ErrorKind) -> Duration {
        self.troubled = true;
        let chance = rand::random::<f64>();
        match kind {
            ErrorKind::Throttled => self.throttled.failed(chance),
            ErrorKind::Unavailable => self.unavailable.failed(chance),
            // Somebody has to change something first: ask rarely, and never at once.
            _ => self.human.failed(0.5 + chance / 2.0),
        }
    }

    /// It worked. True if it did not before.
    pub(crate) fn worked(&mut self) -> bool {
        if self.troubled {
            *self = Self::default();
            return true;
        }
        false
    }
}
