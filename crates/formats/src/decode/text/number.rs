//! Numbers.

/// Digits of a decimal.
const DIGITS_MAX: usize = 28;

/// A whole number; `5.0` and `1e3` are whole, too.
pub(in crate::decode) fn integer(text: &str) -> Option<i64> {
    /// Beyond it, a float no longer knows its units.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let number = double(text)?;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and within bounds")]
    (number.fract() == 0.0 && number.abs() < EXACT).then_some(number as i64)
}

/// A float; one that is too large is none.
pub(in crate::decode) fn double(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok().filter(|x: &f64| x.is_finite()),
    }
}

/// Appends the canonical text of a decimal: no exponent, no leading zeros, at most 28 digits (more are rounded away if they
/// follow the point, half away from zero). Trailing zeros stay. False, and nothing appended, if it is none.
pub(in crate::decode) fn numeric(text: &str, out: &mut Vec<u8>) -> bool {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") || is_canonical(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
        return true;
    }
    match Decimal::parse(text.as_bytes()).and_then(Decimal::rounded) {
        Some(decimal) => {
            decimal.write(out);
            true
        }
        None => false,
    }
}

/// The common case: there is nothing to change.
fn is_canonical(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let (whole, fraction) = match digits.iter().position(|b| *b == b'.') {
        Some(point) => (&digits[..point], Some(&digits[point + 1..])),
        None => (digits, None),
    };
    let all_digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    all_digits(whole)
        && fraction.is_none_or(all_digits)
        && whole.len() + fraction.map_or(0, <[u8]>::len) <= DIGITS_MAX
        && (whole[0] != b'0' || whole.len() == 1 && text[0] != b'-')
}

/// `digits` are those of a whole number without leading zeros, divided by ten to the power of `scale`.
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    scale: i64,
}

impl Decimal {
    fn parse(text: &[u8]) -> Option<Self> {
        let (negative, text) = match text.split_first()? {
            (b'-', rest) => (true, rest),
            (b'+', rest) => (false, rest),
            _ => (false, text),
        };
        let (mantissa, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
            Some(at) => (&text[..at], std::str::from_utf8(&text[at + 1..]).ok()?.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = match mantissa.iter().position(|b| *b == b'.') {
            Some(point) => (&mantissa[..point], &mantissa[point + 1..]),
            None => (mantissa, &[][..]),
        };
        let digits = [whole, fraction].concat();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let zeros = digits.iter().take_while(|b| **b == b'0').count();
        let scale = i64::try_from(fraction.len()).ok()? - i64::from(exponent);
        Some(Self { negative, digits: digits[zeros..].to_vec(), scale })
    }

    /// Within 28 digits; `None` if it is too large for them.
    fn rounded(mut self) -> Option<Self> {
        let most = i64::try_from(DIGITS_MAX).ok()?;
        if self.digits.is_empty() {
            self.scale = self.scale.clamp(0, most);
            return Some(self);
        }
        let length = i64::try_from(self.digits.len()).ok()?;
        if length - self.scale > most {
            return None;
        }
        while self.scale < 0 {
            self.digits.push(b'0');
            self.scale += 1;
        }
        let length = i64::try_from(self.digits.len()).ok()?;
        let cut = (length - most).max(self.scale - most).max(0);
        self.scale -= cut;
        let keep = length - cut;
        let up = keep >= 0 && self.digits[usize::try_from(keep).ok()?..].first().is_some_and(|d| *d >= b'5');
        self.digits.truncate(usize::try_from(keep.max(0)).ok()?);
        if up && !self.increment() {
            // All were nines: one digit more, one of which may have to go.
            self.digits.insert(0, b'1');
            if self.digits.len() > DIGITS_MAX {
                self.digits.pop();
                self.scale -= 1;
            }
        }
        (self.scale >= 0).then_some(self)
    }

    /// Adds one in the last place; false if every digit has become zero.
    fn increment(&mut self) -> bool {
        for digit in self.digits.iter_mut().rev() {
            if *digit != b'9' {
                *digit += 1;
                return true;
            }
            *digit = b'0';
        }
        false
    }

    fn write(&self, out: &mut Vec<u8>) {
        if self.negative && self.digits.iter().any(|d| *d != b'0') {
            out.push(b'-');
        }
        let scale = usize::try_from(self.scale).unwrap_or(0);
        let whole = self.digits.len().saturating_sub(scale);
        out.extend_from_slice(if whole == 0 { b"0" } else { &self.digits[..whole] });
        if scale > 0 {
            out.push(b'.');
            out.extend(std::iter::repeat_n(b'0', scale - (self.digits.len() - whole)));
            out.extend_from_slice(&self.digits[whole..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Option<String> {
        let mut out = Vec::new();
        numeric(text, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn decimals_have_one_text() {
        for (text, expected) in [
            ("1.50", "1.50"),
            ("0", "0"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("007", "7"),
            ("+5", "5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("1e3", "1000"),
            ("1.5e3", "1500"),
            ("1.5E-3", "0.0015"),
            ("-12e-1", "-1.2"),
            ("0.10", "0.10"),
            ("0e99", "0"),
            ("NaN", "NaN"),
            ("-Infinity", "-Infinity"),
            ("00.5", "0.5"),
            ("1234567890123456789012345678", "1234567890123456789012345678"),
            ("1.23456789012345678901234567890", "1.234567890123456789012345679"),
            ("0.99999999999999999999999999999", "1.000000000000000000000000000"),
            ("9.99999999999999999999999999999", "10.00000000000000000000000000"),
            ("1e-40", "0.0000000000000000000000000000"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(expected), "{text}");
        }
        for bad in [
            "",
            "-",
            ".",
            "1x",
            "e5",
            "1e",
            "12345678901234567890123456789",
            "1e28",
            "1e2147483647",
            "nan",
            " 1",
        ] {
            assert_eq!(canonical(bad), None, "{bad}");
        }
    }

    #[test]
    fn integers_are_whole_and_exact() {
        for (text, expected) in
            [("1", 1), ("-9223372036854775808", i64::MIN), ("5.0", 5), ("1e3", 1000), ("-0", 0)]
        {
            assert_eq!(integer(text), Some(expected), "{text}");
        }
        for bad in ["1.5", "9223372036854775808", "12345678901234567.5", "", "x", "NaN", "1e300"] {
            assert_eq!(integer(bad), None, "{bad}");
        }
    }

    #[test]
    fn doubles_are_finite_or_named() {
        assert_eq!(double("1e400"), None);
        assert_eq!(double("inf"), None);
        assert_eq!(double("Infinity"), Some(f64::INFINITY));
        assert!(double("NaN").unwrap().is_nan());
    }
}
