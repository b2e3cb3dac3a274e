//! Times, timestamps and intervals as JSON writes them.

use arrow::datatypes::IntervalMonthDayNano;

use super::{cell::write_integer, modes::TimeMode};
use crate::calendar::{DAY_MICROS, date_of};

const SECOND: i64 = 1_000_000;

/// Microseconds since midnight.
pub(super) fn write_time(micros: i64, mode: TimeMode, out: &mut Vec<u8>) {
    match mode {
        TimeMode::MilliFloor => write_integer(micros.div_euclid(SECOND) * 1000, out),
        TimeMode::Milli => write_integer(micros.div_euclid(1000), out),
        TimeMode::String => {
            out.push(b'"');
            write_clock(micros, out);
            out.push(b'"');
        }
    }
}

/// Microseconds since 1970 as date, `between`, time of day, and `end` (which has the closing quote).
pub(super) fn write_timestamp(micros: i64, between: u8, end: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let days = i32::try_from(micros.div_euclid(DAY_MICROS)).ok();
    let (year, month, day) = days
        .and_then(date_of)
        .ok_or_else(|| format!("timestamp {micros} (microseconds since 1970) is beyond the calendar"))?;
    out.push(b'"');
    match year {
        0..=9999 => write_digits(year.unsigned_abs(), 4, out),
        _ => {
            out.push(if year < 0 { b'-' } else { b'+' });
            write_digits(year.unsigned_abs(), if year < 0 { 4 } else { 5 }, out);
        }
    }
    out.push(b'-');
    write_digits(month, 2, out);
    out.push(b'-');
    write_digits(day, 2, out);
    out.push(between);
    write_clock(micros.rem_euclid(DAY_MICROS), out);
    out.extend_from_slice(end.as_bytes());
    Ok(())
}

/// `HH:MM:SS.ffffff`
fn write_clock(micros: i64, out: &mut Vec<u8>) {
    let part = |n: i64| u32::try_from(n).unwrap_or(0);
    let seconds = micros / SECOND;
    write_digits(part(seconds / 3600), 2, out);
    out.push(b':');
    write_digits(part(seconds / 60 % 60), 2, out);
    out.push(b':');
    write_digits(part(seconds % 60), 2, out);
    out.push(b'.');
    write_digits(part(micros % SECOND), 6, out);
}

/// At least `width` digits, zeros in front.
fn write_digits(number: u32, width: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number);
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits.len())));
    out.extend_from_slice(digits.as_bytes());
}

/// `P1Y1M2DT0H0M1.5S`: all parts present, each with its own sign, the fraction in microseconds without trailing zeros.
pub(super) fn write_interval(interval: IntervalMonthDayNano, out: &mut Vec<u8>) {
    let micros = (interval.nanoseconds + 500 * interval.nanoseconds.signum()) / 1000;
    let seconds = micros / SECOND;
    let whole = [
        (i64::from(interval.months / 12), "Y"),
        (i64::from(interval.months % 12), "M"),
        (i64::from(interval.days), "DT"),
        (seconds / 3600, "H"),
        (seconds / 60 % 60, "M"),
    ];
    out.extend_from_slice(b"\"P");
    for (number, unit) in whole {
        write_integer(number, out);
        out.extend_from_slice(unit.as_bytes());
    }
    let (second, fraction) = (seconds % 60, (micros % SECOND).unsigned_abs());
    if second == 0 && micros % SECOND < 0 {
        out.push(b'-');
    }
    write_integer(second, out);
    if fraction > 0 {
        let text = format!("{fraction:06}");
        out.push(b'.');
        out.extend_from_slice(text.trim_end_matches('0').as_bytes());
    }
    out.extend_from_slice(b"S\"");
}
