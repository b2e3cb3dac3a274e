//! The two clocks: a monotonic one for every decision, and the wall's for what users read and the store keeps.

use std::time::Duration;

use logic::mutant;
use model::Timestamp;
use tokio::time::Instant;

/// Moments of one term as durations since its beginning, which is what the decisions take.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        let earlier = if mutant::on("term_remembers") { Duration::from_secs(60) } else { Duration::ZERO };
        Self { origin: Instant::now() - earlier }
    }

    /// Since it started.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// Milliseconds since 1970 by this machine's clock. Never compared with a moment of another machine to decide anything.
#[must_use]
pub fn wall_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// The same as a timestamp of the model.
#[must_use]
pub fn wall() -> Timestamp {
    Timestamp(wall_ms())
}
