//! Deliberate defects: each one breaks a rule or an invariant in the place where it is kept, and the simulation must find it
//! (`make mutants`). They exist only in a build with `--cfg mutants`; in the product [`on`] is the constant `false`.

/// Whether this build has them.
pub const BUILT: bool = cfg!(mutants);

// Nothing of them is in the product, whatever the environment says.
#[cfg(not(mutants))]
const _: () = assert!(!BUILT && !on("no_fence"));

/// Whether the defect of this name is switched on.
#[cfg(not(mutants))]
#[must_use]
#[inline(always)]
pub const fn on(_name: &str) -> bool {
    false
}

/// Whether the defect of this name is switched on: `SHARDWRIGHT_MUTANT` names it.
#[cfg(mutants)]
#[must_use]
pub fn on(name: &str) -> bool {
    use std::sync::LazyLock;
    static CHOSEN: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("SHARDWRIGHT_MUTANT").ok());
    CHOSEN.as_deref() == Some(name)
}
