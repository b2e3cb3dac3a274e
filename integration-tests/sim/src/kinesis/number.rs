//! Sequence numbers: 56 decimal digits, compared as numbers, each of one shard, rising with gaps.

use std::{fmt, str::FromStr};

/// The place of a record in its shard. Also the place before which a shard begins and after which it ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Number {
    /// When the shard was opened, in ms since 1970: so a child's numbers are above its parent's, and a stream made again
    /// shares none with its ancestor.
    pub(super) born: u64,
    pub(super) count: u64,
    pub(super) shard: u32,
}

impl Number {
    /// The smallest number above this one.
    pub(super) fn next(self) -> Self {
        Self { count: self.count + 1, ..self }
    }

    /// The greatest number below this one. No record has number 0, so nothing is between.
    pub(super) fn before(self) -> Self {
        Self { count: self.count.saturating_sub(1), ..self }
    }

    /// For the story: where in which shard.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}#{}", self.shard, self.count)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "49{:013}{:029}{:012}", self.born, self.count, self.shard)
    }
}

/// The text is no sequence number of this service.
#[derive(Debug)]
pub struct NotANumber;

impl FromStr for Number {
    type Err = NotANumber;

    fn from_str(text: &str) -> Result<Self, NotANumber> {
        if text.len() != 56 || !text.starts_with("49") || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotANumber);
        }
        let part = |digits: &str| digits.parse::<u64>().map_err(|_| NotANumber);
        let shard = u32::try_from(part(&text[44..])?).map_err(|_| NotANumber)?;
        Ok(Self { born: part(&text[2..15])?, count: part(&text[15..44])?, shard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_56_digits_and_reads_back_in_its_order() {
        let one = Number { born: 1_790_812_800_000, count: 17, shard: 3 };
        assert_eq!(one.to_string().len(), 56);
        assert_eq!(one.to_string().parse::<Number>().unwrap(), one);
        assert!(one.next().to_string() > one.to_string());
        assert!("17".parse::<Number>().is_err());
    }
}
