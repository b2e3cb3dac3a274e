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

    /// Whether these constants can work together; the first relation that does not hold, in words.
    ///
    /// # Errors
    /// The names and values of both sides, and what would go wrong.
    pub fn check(&self) -> Result<(), String> {
        let span = |d: Duration| {
            if d.subsec_millis() == 0 { format!("{} s", d.as_secs()) } else { format!("{d:?}") }
        };
        let positive = [
            ("heartbeat", self.heartbeat),
            ("leader_keep_alive", self.leader_keep_alive),
            ("write_attempt_timeout", self.write_attempt_timeout),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| value.is_zero()) {
            return Err(format!("`{name}` must be more than nothing"));
        }
        let two_beats = "2 × `heartbeat`";
        let two_keeps = "2 × `leader_keep_alive`";
        let breath = "`write_attempt_timeout` + `late_write_margin`";
        let relations = [
            (
                two_beats,
                self.heartbeat * 2,
                "`fence_after`",
                self.fence_after,
                "one lost answer would end every run",
            ),
            (
                "`fence_after`",
                self.fence_after,
                "`session_timeout`",
                self.session_timeout,
                "a worker would be given up before it has ended its runs",
            ),
            (
                two_keeps,
                self.leader_keep_alive * 2,
                "`leader_lease`",
                self.leader_lease,
                "one slow answer of the store would depose the leader",
            ),
            (
                "`leader_lease`",
                self.leader_lease,
                "`fence_after`",
                self.fence_after,
                "a change of leader would end every run",
            ),
            (
                breath,
                self.last_breath(),
                "`handoff_deadline`",
                self.handoff_deadline,
                "a planned handoff could not wait for an unclear request",
            ),
        ];
        for (less, small, more, large, why) in relations {
            if small > large {
                return Err(format!(
                    "{less} ({}) must not exceed {more} ({}): {why}",
                    span(small),
                    span(large)
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(Timing::default().check(), Ok(()));
    }

    #[test]
    fn each_relation_that_is_broken_is_named_with_both_values() {
        let broken = |change: fn(&mut Timing)| {
            let mut timing = Timing::default();
            change(&mut timing);
            timing.check().unwrap_err()
        };
        type Change = fn(&mut Timing);
        let cases: [(Change, &str); 7] = [
            (|t| t.heartbeat = Duration::ZERO, "`heartbeat` must be more than nothing"),
            (
                |t| t.heartbeat = Duration::from_secs(3),
                "2 × `heartbeat` (6 s) must not exceed `fence_after` (5 s)",
            ),
            (
                |t| t.session_timeout = Duration::from_secs(4),
                "`fence_after` (5 s) must not exceed `session_timeout` (4 s)",
            ),
            (
                |t| t.leader_keep_alive = Duration::from_millis(1500),
                "2 × `leader_keep_alive` (3 s) must not exceed `leader_lease` (2 s)",
            ),
            (
                |t| t.leader_lease = Duration::from_millis(5500),
                "`leader_lease` (5.5s) must not exceed `fence_after` (5 s)",
            ),
            (|t| t.write_attempt_timeout = Duration::ZERO, "`write_attempt_timeout` must be more"),
            (
                |t| t.handoff_deadline = Duration::from_secs(5),
                "`write_attempt_timeout` + `late_write_margin` (6 s) must not exceed `handoff_deadline` (5 s)",
            ),
        ];
        for (change, words) in cases {
            let error = broken(change);
            assert!(error.starts_with(words), "{error}");
        }
    }
}
