//! Which versions of the wire a process speaks. A release speaks its own protocol and the one before, so that coordinators,
//! workers and tools of two neighbouring minor versions understand each other while a cluster is upgraded; anything further
//! apart is refused with a clear line, by whichever side sees it first.
//!
//! Raise [`Protocols::OURS`] when a message changes its meaning, or a new one must be understood; a field that may be ignored
//! does not count.

use std::fmt;

use crate::v1;

/// From … to, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protocols {
    from: u32,
    to: u32,
}

impl Protocols {
    /// What this release speaks. 1: before releases said so. 2: leaderships and epochs have a generation everywhere.
    pub const OURS: Self = Self { from: 1, to: 2 };

    /// What another one says that it speaks; who says nothing speaks the first.
    #[must_use]
    pub fn said(from: u32, to: u32) -> Self {
        let from = from.max(1);
        Self { from, to: to.max(from) }
    }

    /// The oldest.
    #[must_use]
    pub fn from(self) -> u32 {
        self.from
    }

    /// The newest.
    #[must_use]
    pub fn to(self) -> u32 {
        self.to
    }

    /// The newest protocol that both speak, or why they must not talk: `us` and `them` are names with releases, for people.
    ///
    /// # Errors
    /// There is none.
    pub fn agree(self, them: Self, (us, their): (&str, &str)) -> Result<u32, String> {
        let newest = self.to.min(them.to);
        if newest >= self.from.max(them.from) {
            return Ok(newest);
        }
        let older = if self.to < them.to { us } else { their };
        Err(format!(
            "{their} speaks protocol {them}, {us} speaks {self}: their releases may be one minor version apart; upgrade {older}"
        ))
    }

    /// The question of a tool.
    #[must_use]
    pub fn ask(self) -> v1::AgreeRequest {
        v1::AgreeRequest { protocol_from: self.from, protocol_to: self.to }
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            write!(f, "{}", self.to)
        } else {
            write!(f, "{} to {}", self.from, self.to)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(ours: (u32, u32), theirs: (u32, u32)) -> Result<u32, String> {
        let (ours, theirs) = (Protocols::said(ours.0, ours.1), Protocols::said(theirs.0, theirs.1));
        ours.agree(theirs, ("this one", "worker `w`"))
    }

    #[test]
    fn neighbours_agree_on_the_newest_that_both_speak() {
        assert_eq!(agreed((1, 2), (1, 2)), Ok(2));
        assert_eq!(agreed((1, 2), (2, 3)), Ok(2));
        assert_eq!(agreed((1, 2), (0, 0)), Ok(1), "who says nothing speaks the first");
        assert_eq!(agreed((2, 3), (1, 2)), Ok(2));
    }

    #[test]
    fn what_is_further_apart_is_refused_and_the_older_one_is_named() {
        let newer = agreed((1, 2), (3, 4)).unwrap_err();
        assert!(newer.contains("worker `w` speaks protocol 3 to 4, this one speaks 1 to 2"), "{newer}");
        assert!(newer.ends_with("upgrade this one"), "{newer}");
        let older = agreed((3, 4), (0, 0)).unwrap_err();
        assert!(older.contains("speaks protocol 1, ") && older.ends_with("upgrade worker `w`"), "{older}");
    }
}
