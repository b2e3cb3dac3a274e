//! The invariants of ARCHITECTURE.md as far as a snapshot of the world can tell: one predicate for proptests, the simulation and
//! the coordinator in production (which counts and logs, never panics).

use crate::plan::{Desired, Observed};

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// `I1`…
    pub id: &'static str,
    /// What is wrong, with names.
    pub message: String,
}

/// Looks at the world, and at how it differs from a previous one.
#[must_use]
pub fn check(
    _desired: &Desired,
    _observed: &Observed,
    _previous: Option<(&Desired, &Observed)>,
) -> Vec<Violation> {
    Vec::new()
}
