//! The options of a sink's `ENCODE JSON ( … )`.

use model::Options;

use crate::FormatError;

/// `timestamptz.handling.mode`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TimestamptzMode {
    /// `2018-01-26T18:30:09.453000Z`
    UtcString,
    /// `2018-01-26 18:30:09.453000`
    UtcWithoutSuffix,
    /// Milliseconds since 1970, a number.
    Milli,
    /// Microseconds since 1970, a number.
    Micro,
}

/// `time.handling.mode`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TimeMode {
    /// Milliseconds since midnight, the fraction of the second dropped.
    MilliFloor,
    /// Milliseconds since midnight.
    Milli,
    /// `00:00:01.123456`
    String,
}

/// How values are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Modes {
    pub(super) timestamptz: TimestamptzMode,
    pub(super) time: TimeMode,
    /// jsonb as the value itself, not as a string that holds its text.
    pub(super) jsonb_dynamic: bool,
    /// Wrap key and value with their schema.
    pub(super) schemas: bool,
}

impl Modes {
    /// As the options say.
    pub(super) fn read(options: &Options) -> Result<Self, FormatError> {
        let timestamptz = match options.get("timestamptz.handling.mode") {
            None | Some("utc_string") => TimestamptzMode::UtcString,
            Some("utc_without_suffix") => TimestamptzMode::UtcWithoutSuffix,
            Some("milli") => TimestamptzMode::Milli,
            Some("micro") => TimestamptzMode::Micro,
            Some(other) => return Err(unrecognized("timestamptz.handling.mode", other)),
        };
        let time = match options.get("time.handling.mode") {
            None | Some("milli_floor") => TimeMode::MilliFloor,
            Some("milli") => TimeMode::Milli,
            Some("string") => TimeMode::String,
            Some(other) => return Err(unrecognized("time.handling.mode", other)),
        };
        let jsonb_dynamic = match options.get("jsonb.handling.mode") {
            None | Some("string") => false,
            Some("dynamic") => true,
            Some(other) => return Err(unrecognized("jsonb.handling.mode", other)),
        };
        let schemas = boolean(options, "schemas.enable").map_err(|found| {
            FormatError::new(format!("schemas.enable is expected to be `true` or `false`, got {found}"))
        })?;
        let force = "force_append_only";
        for name in [force, "ignore_delete"] {
            boolean(options, name)
                .map_err(|_| FormatError::new(format!("`{name}` must be true or false")))?;
        }
        if options.get(force).is_some() && options.get("ignore_delete").is_some() {
            return Err(FormatError::new(
                "`force_append_only` and `ignore_delete` are the same option, only one of them can be specified",
            ));
        }
        Ok(Self { timestamptz, time, jsonb_dynamic, schemas: schemas.unwrap_or(false) })
    }
}

fn unrecognized(name: &str, value: &str) -> FormatError {
    FormatError::new(format!("unrecognized {name} value {value}"))
}

fn boolean<'a>(options: &'a Options, name: &str) -> Result<Option<bool>, &'a str> {
    match options.get(name) {
        None => Ok(None),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
        Some(other) => Err(other),
    }
}
