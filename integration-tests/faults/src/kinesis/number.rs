//! Sequence numbers: decimal, up to 56 digits, compared as integers. Those of AWS, kinesis-local and ferrokinesis that end in
//! the hex digit 2 have 47 hex digits, of which 1–9 are when the shard was made and 29–37 a moment, both in seconds.

use std::cmp::Ordering;

const DIGITS: usize = 47;
const CREATED: std::ops::Range<usize> = 1..10;
const MOMENT: std::ops::Range<usize> = 29..38;

/// Compares two as integers.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn to_hex(decimal: &str) -> Option<String> {
    let mut limbs = [0_u32; 6];
    for digit in decimal.chars() {
        let mut carry = u64::from(digit.to_digit(10)?);
        for limb in limbs.iter_mut().rev() {
            let value = u64::from(*limb) * 10 + carry;
            *limb = (value & 0xffff_ffff) as u32;
            carry = value >> 32;
        }
        if carry > 0 {
            return None;
        }
    }
    let hex: String = limbs.iter().map(|limb| format!("{limb:08x}")).collect();
    let hex = hex.trim_start_matches('0');
    (hex.len() == DIGITS && hex.ends_with('2')).then(|| hex.to_owned())
}

fn to_decimal(hex: &str) -> String {
    let mut digits = vec![0_u8];
    for nibble in hex.chars().filter_map(|c| c.to_digit(16)) {
        let mut carry = nibble;
        for digit in digits.iter_mut().rev() {
            let value = u32::from(*digit) * 16 + carry;
            *digit = (value % 10) as u8;
            carry = value / 10;
        }
        while carry > 0 {
            digits.insert(0, (carry % 10) as u8);
            carry /= 10;
        }
    }
    digits.iter().map(|digit| char::from(b'0' + digit)).collect()
}

/// When the shard of this number was made, in ms since 1970.
pub(super) fn shard_made(number: &str) -> Option<i64> {
    let hex = to_hex(number)?;
    Some(i64::from_str_radix(&hex[CREATED], 16).ok()? * 1000)
}

/// A number after `number` and before any record that arrives from `moment` (ms since 1970) on; `number` itself if there is
/// none between.
pub(super) fn moved(number: &str, moment: u64) -> String {
    let Some(mut hex) = to_hex(number) else { return number.to_owned() };
    // A reader that goes on "after" it may be moved by a second, and clocks are cut off to whole seconds.
    let seconds = (moment / 1000).saturating_sub(2);
    let now = u64::from_str_radix(&hex[MOMENT], 16).unwrap_or(u64::MAX);
    if seconds > now {
        hex.replace_range(MOMENT, &format!("{seconds:09x}"));
    }
    to_decimal(&hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: &str = "49590338271490256608559692538361571095921575989136588898";

    #[test]
    fn numbers_compare_as_integers() {
        assert_eq!(compare("9", "10"), Ordering::Less);
        assert_eq!(compare("0010", "10"), Ordering::Equal);
        assert_eq!(compare(NUMBER, "12345"), Ordering::Greater);
    }

    #[test]
    fn a_number_of_aws_tells_when_its_shard_was_made() {
        assert_eq!(to_decimal(&to_hex(NUMBER).unwrap()), NUMBER);
        let made = shard_made(NUMBER).unwrap();
        // The number is from a page of the service's manual, written in 2018.
        assert!((1_500_000_000_000..1_600_000_000_000).contains(&made), "{made}");
        assert_eq!(shard_made("42"), None);
    }

    #[test]
    fn a_quiet_number_moves_and_never_back() {
        let later = moved(NUMBER, 1_800_000_000_000);
        assert_eq!(compare(NUMBER, &later), Ordering::Less);
        assert_eq!(moved(&later, 1_700_000_000_000), later);
        assert_eq!(moved("42", 1_800_000_000_000), "42");
    }
}
