//! Intervals: ISO 8601 (`P1Y2M3DT4H5M6.7S`) and PostgreSQL's words (`1 year 2 mons 3 days 04:05:06.7`).

use arrow::datatypes::IntervalMonthDayNano;

/// What a unit counts.
#[derive(Clone, Copy)]
enum Unit {
    Months(i64),
    Days(i64),
    Micros(i64),
}

const SECOND: i64 = 1_000_000;

/// Reads either spelling.
pub(in crate::decode) fn interval(text: &str) -> Option<IntervalMonthDayNano> {
    let text = text.trim();
    let total = match text.strip_prefix(['P', 'p']) {
        Some(rest) => iso(rest)?,
        None => words(text)?,
    };
    Some(IntervalMonthDayNano {
        months: i32::try_from(total.months).ok()?,
        days: i32::try_from(total.days).ok()?,
        nanoseconds: total.micros.checked_mul(1000)?,
    })
}

#[derive(Default)]
struct Total {
    months: i64,
    days: i64,
    micros: i64,
}

impl Total {
    /// Adds `millionths` millionths of a unit. Months and days come whole.
    fn add(&mut self, millionths: i64, unit: Unit) -> Option<()> {
        let whole = || (millionths % SECOND == 0).then_some(millionths / SECOND);
        match unit {
            Unit::Months(n) => self.months = self.months.checked_add(whole()?.checked_mul(n)?)?,
            Unit::Days(n) => self.days = self.days.checked_add(whole()?.checked_mul(n)?)?,
            Unit::Micros(n) => {
                let micros = i128::from(millionths) * i128::from(n) / i128::from(SECOND);
                self.micros = self.micros.checked_add(i64::try_from(micros).ok()?)?;
            }
        }
        Some(())
    }
}

fn iso(mut rest: &str) -> Option<Total> {
    let mut total = Total::default();
    let (mut clock, mut any) = (false, false);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(['T', 't']) {
            if clock {
                return None;
            }
            (clock, rest) = (true, after);
            continue;
        }
        let at = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let unit = match (rest.as_bytes()[at].to_ascii_uppercase(), clock) {
            (b'Y', false) => Unit::Months(12),
            (b'M', false) => Unit::Months(1),
            (b'W', false) => Unit::Days(7),
            (b'D', false) => Unit::Days(1),
            (b'H', true) => Unit::Micros(3600 * SECOND),
            (b'M', true) => Unit::Micros(60 * SECOND),
            (b'S', true) => Unit::Micros(SECOND),
            _ => return None,
        };
        total.add(millionths(&rest[..at])?, unit)?;
        any = true;
        rest = &rest[at + 1..];
    }
    any.then_some(total)
}

fn words(text: &str) -> Option<Total> {
    let mut total = Total::default();
    let mut any = false;
    let mut parts = text.split_ascii_whitespace();
    while let Some(part) = parts.next() {
        any = true;
        if part.contains(':') {
            total.micros = total.micros.checked_add(clock(part)?)?;
            continue;
        }
        // `4 hours` and `4hours` are the same.
        let unit_at = part.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(part.len());
        let (number, glued) = part.split_at(unit_at);
        let unit = if glued.is_empty() { parts.next()? } else { glued };
        total.add(millionths(number)?, unit_of(unit)?)?;
    }
    any.then_some(total)
}

fn unit_of(word: &str) -> Option<Unit> {
    let word = word.to_ascii_lowercase();
    Some(match word.as_str() {
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Months(12),
        "mon" | "mons" | "month" | "months" => Unit::Months(1),
        "w" | "week" | "weeks" => Unit::Days(7),
        "d" | "day" | "days" => Unit::Days(1),
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Micros(3600 * SECOND),
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Micros(60 * SECOND),
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Micros(SECOND),
        "ms" | "millisecond" | "milliseconds" => Unit::Micros(1000),
        "us" | "microsecond" | "microseconds" => Unit::Micros(1),
        _ => return None,
    })
}

/// `[-]HH:MM[:SS[.f]]`, in microseconds. Hours may be many.
fn clock(text: &str) -> Option<i64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = text.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
    let unsigned =
        |part: &str| part.starts_with(|c: char| c.is_ascii_digit()).then(|| millionths(part)).flatten();
    let whole = |part: &str| unsigned(part).filter(|n| n % SECOND == 0).map(|n| n / SECOND);
    let (hours, minutes, seconds) = (whole(hours)?, whole(minutes)?, unsigned(seconds)?);
    if parts.next().is_some() || minutes > 59 || seconds >= 60 * SECOND {
        return None;
    }
    let total =
        hours.checked_mul(3600)?.checked_add(minutes * 60)?.checked_mul(SECOND)?.checked_add(seconds)?;
    Some(sign * total)
}

/// A decimal in millionths, rounded half away from zero.
fn millionths(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty()
        || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part =
        fraction.bytes().chain(std::iter::repeat(b'0')).take(6).fold(0, |n, b| n * 10 + i64::from(b - b'0'));
    let up = i64::from(fraction.as_bytes().get(6).is_some_and(|b| *b >= b'5'));
    let total = whole.checked_mul(SECOND)?.checked_add(part + up)?;
    Some(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_mean_the_same() {
        let of = |months, days, micros: i64| {
            Some(IntervalMonthDayNano { months, days, nanoseconds: micros * 1000 })
        };
        for (text, expected) in [
            ("P1Y1M2DT0H0M1S", of(13, 2, SECOND)),
            ("1 year 1 mon 2 days 00:00:01", of(13, 2, SECOND)),
            ("05:01:00.1234567", of(0, 0, 18_060_123_457)),
            ("4 hour", of(0, 0, 14_400_000_000)),
            ("-1 hour", of(0, 0, -3_600_000_000)),
            ("P0Y0M0DT-1H0M0S", of(0, 0, -3_600_000_000)),
            ("-00:00:01.5", of(0, 0, -1_500_000)),
            ("0 second", of(0, 0, 0)),
            ("1.5 hours", of(0, 0, 5_400_000_000)),
            ("2w", of(0, 14, 0)),
            ("PT0.1234S", of(0, 0, 123_400)),
        ] {
            assert_eq!(interval(text), expected, "{text}");
        }
        for bad in [
            "",
            "P",
            "PT",
            "P1S",
            "PT1Y",
            "1",
            "1 parsec",
            "00:60:00",
            "1.5 mon",
            "P1",
            "9999999999 years",
            "--1 hour",
        ] {
            assert_eq!(interval(bad), None, "{bad}");
        }
    }
}
