//! Days, and the calendar that people write (proleptic Gregorian).

use chrono::{Datelike, NaiveDate};

/// Days from 0000-12-31 to 1970-01-01: a date of JSON counts 0001-01-01 as 1.
pub(crate) const EPOCH_FROM_CE: i32 = 719_163;
/// Microseconds of a day.
pub(crate) const DAY_MICROS: i64 = 86_400_000_000;

/// Days since 1970-01-01, if there is such a day.
pub(crate) fn days_of(year: i32, month: u32, day: u32) -> Option<i32> {
    Some(NaiveDate::from_ymd_opt(year, month, day)?.num_days_from_ce() - EPOCH_FROM_CE)
}

/// Year, month and day of a day counted since 1970-01-01, if the calendar reaches that far.
pub(crate) fn date_of(days: i32) -> Option<(i32, u32, u32)> {
    let date = NaiveDate::from_num_days_from_ce_opt(days.checked_add(EPOCH_FROM_CE)?)?;
    Some((date.year(), date.month(), date.day()))
}
