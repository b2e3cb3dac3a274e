//! Dates, times and timestamps. Fractions of a second beyond microseconds are cut off.

use model::Options;

use crate::{
    FormatError,
    calendar::{DAY_MICROS, days_of},
};

/// `timestamptz.handling.mode` of a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::decode) enum TimestamptzMode {
    GuessNumberUnit,
    Milli,
    Micro,
    UtcString,
    UtcWithoutSuffix,
}

impl TimestamptzMode {
    /// As the options say.
    pub(in crate::decode) fn read(options: &Options) -> Result<Self, FormatError> {
        Ok(match options.get("timestamptz.handling.mode") {
            None | Some("guess_number_unit") => Self::GuessNumberUnit,
            Some("milli") => Self::Milli,
            Some("micro") => Self::Micro,
            Some("utc_string") => Self::UtcString,
            Some("utc_without_suffix") => Self::UtcWithoutSuffix,
            Some(other) => {
                return Err(FormatError::new(format!(
                    "unrecognized timestamptz.handling.mode value {other}"
                )));
            }
        })
    }

    /// Microseconds since 1970 of a number.
    pub(in crate::decode) fn number(self, number: i64) -> Option<i64> {
        match self {
            Self::GuessNumberUnit => guess_micros(number),
            Self::Milli => number.checked_mul(1000),
            Self::Micro => Some(number),
            Self::UtcString | Self::UtcWithoutSuffix => None,
        }
    }

    /// Microseconds since 1970 of a text.
    pub(in crate::decode) fn text(self, text: &str) -> Option<i64> {
        match self {
            Self::UtcWithoutSuffix => timestamp(text),
            _ => zoned(text),
        }
    }
}

/// Microseconds of a number whose unit is guessed by its size: seconds, milliseconds, microseconds, nanoseconds.
pub(in crate::decode) fn guess_micros(number: i64) -> Option<i64> {
    match number.unsigned_abs() {
        0..100_000_000_000 => number.checked_mul(1_000_000),
        100_000_000_000..100_000_000_000_000 => number.checked_mul(1000),
        100_000_000_000_000..100_000_000_000_000_000 => Some(number),
        _ => Some(number.div_euclid(1000)),
    }
}

/// `YYYY-MM-DD`: days since 1970-01-01.
pub(in crate::decode) fn date(text: &str) -> Option<i32> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !(4..=6).contains(&year.len()) {
        return None;
    }
    days_of(i32::try_from(digits(year)?).ok()?, two(month)?, two(day)?)
}

/// `HH:MM:SS[.f]`: microseconds since midnight.
pub(in crate::decode) fn time(text: &str) -> Option<i64> {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, micros_of_fraction(fraction)?),
        None => (text, 0),
    };
    let mut parts = clock.split(':');
    let (hour, minute, second) = (two(parts.next()?)?, two(parts.next()?)?, two(parts.next()?)?);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(i64::from(hour * 3600 + minute * 60 + second) * 1_000_000 + fraction)
}

/// Microseconds since midnight, if the day has so many.
pub(in crate::decode) fn time_of_micros(number: i64) -> Option<i64> {
    (0..DAY_MICROS).contains(&number).then_some(number)
}

/// `YYYY-MM-DD HH:MM:SS[.f]`, or with `T`: microseconds since 1970.
pub(in crate::decode) fn timestamp(text: &str) -> Option<i64> {
    let (day, clock) = text.split_once(['T', ' '])?;
    i64::from(date(day)?).checked_mul(DAY_MICROS)?.checked_add(time(clock)?)
}

/// A timestamp that says its zone: `Z`, `+01`, `+0130`, `+01:30`.
fn zoned(text: &str) -> Option<i64> {
    let clock_at = text.find(['T', ' '])? + 1;
    let zone_at = clock_at + text[clock_at..].find(['Z', 'z', '+', '-'])?;
    let local = timestamp(text[..zone_at].trim_end())?;
    local.checked_sub(zone_micros(&text[zone_at..])?)
}

fn zone_micros(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes().first()? {
        b'Z' | b'z' => return (zone.len() == 1).then_some(0),
        b'-' => -1,
        _ => 1,
    };
    let (hours, minutes) = match &zone[1..] {
        hours if hours.len() == 2 => (hours, "00"),
        both if both.len() == 4 => both.split_at_checked(2)?,
        both => both.split_once(':')?,
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours < 24 && minutes < 60).then(|| sign * i64::from(hours * 3600 + minutes * 60) * 1_000_000)
}

fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn two(text: &str) -> Option<u32> {
    (text.len() == 2).then(|| digits(text)).flatten()
}

fn micros_of_fraction(text: &str) -> Option<i64> {
    let whole = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    whole.then(|| {
        text.bytes().chain(std::iter::repeat(b'0')).take(6).fold(0, |n, b| n * 10 + i64::from(b - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times() {
        assert_eq!(date("1970-01-01"), Some(0));
        assert_eq!(date("0001-01-01"), Some(-719_162));
        assert_eq!(date("2000-02-29"), Some(11_016));
        assert_eq!(time("01:00:01.123456"), Some(3_601_123_456));
        assert_eq!(time("23:59:59.9999999"), Some(DAY_MICROS - 1));
        assert_eq!(timestamp("2023-04-14 06:27:14.104742"), Some(1_681_453_634_104_742));
        assert_eq!(timestamp("1969-12-31T23:59:59.9995"), Some(-500));
        for bad in [
            "",
            "2001-02-29",
            "70-01-01",
            "1970-1-1",
            "1970-01-01 ",
            "+970-01-01",
            "1970-01-01-01",
            "1970/01/01",
            "é970-01-01",
        ] {
            assert_eq!(date(bad), None, "{bad}");
        }
        for bad in ["24:00:00", "1:00:00", "00:00", "00:00:60", "00:00:00.", "00:00:00.x", "00:00:00:00"] {
            assert_eq!(time(bad), None, "{bad}");
        }
        assert_eq!(timestamp("1970-01-01"), None);
        assert_eq!(timestamp("1970-01-01 00:00:00Z"), None);
    }

    #[test]
    fn zones_are_said() {
        let two_oclock = 1_712_800_800_654_321;
        for text in [
            "2024-04-11T02:00:00.654321Z",
            "2024-04-11 04:00:00.654321+02",
            "2024-04-10T20:30:00.654321-05:30",
            "2024-04-11T03:30:00.654321+0130",
        ] {
            assert_eq!(zoned(text), Some(two_oclock), "{text}");
        }
        for bad in [
            "2024-04-11 02:00:00",
            "2024-04-11 02:00:00Zx",
            "2024-04-11 02:00:00+1",
            "2024-04-11 02:00:00+25",
            "2024-04-11Z",
        ] {
            assert_eq!(zoned(bad), None, "{bad}");
        }
    }
}
