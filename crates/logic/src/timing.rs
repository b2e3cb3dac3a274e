//! The constants of the ownership protocol (docs/protocol.md). All clocks are monotonic and local; only durations cross the
//! wire.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long things take, or may take. The defaults are the protocol's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Timing {
    /// Worker to leader.
    pub heartbeat: Duration,
    /// A worker ends its runs so long after the *sending* of the newest heartbeat that was answered (P2).
    pub fence_after: Duration,
    /// The leader gives a worker up so long after it last heard of it.
    pub session_timeout: Duration,
    /// Lease of the leader key.
    pub leader_lease: Duration,
    /// How often that lease is prolonged.
    pub leader_keep_alive: Duration,
    /// One request to a destination.
    pub write_attempt_timeout: Duration,
    /// A request that its sender gave up may still land so long after.
    pub late_write_margin: Duration,
    /// How long a planned handoff may drain.
    pub handoff_deadline: Duration,
    /// How long the balancer holds back for a worker that stopped in order.
    pub rejoin_grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(1),
            fence_after: Duration::from_secs(5),
            session_timeout: Duration::from_secs(6),
            leader_lease: Duration::from_secs(2),
            leader_keep_alive: Duration::from_millis(500),
            write_attempt_timeout: Duration::from_secs(5),
            late_write_margin: Duration::from_secs(1),
            handoff_deadline: Duration::from_secs(10),
            rejoin_grace: Duration::from_secs(30),
        }
    }
}

impl Timing {
    /// How long after its start (or after its owner's stop) a request may land.
    #[must_use]
    pub fn last_breath(&self) -> Duration {
        self.write_attempt_timeout + self.late_write_margin
    }
}
