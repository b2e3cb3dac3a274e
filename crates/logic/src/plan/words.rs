//! Durations as people read them.

use std::time::Duration;

/// `4.2 s`
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
