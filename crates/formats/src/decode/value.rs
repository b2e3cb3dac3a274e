//! One JSON value into one cell: which values a column takes (the table of PLAIN JSON decoding), and what becomes of others.
//!
//! Every function here leaves exactly one row more in its column, or an error; after an error the whole record is taken back.

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    Malformed,
    column::{Cells, Column, Offsets},
    fields::{Members, Target},
    text::{self, TimestamptzMode},
};
use crate::json::{RawText, Scanner, Style, Token, compact, write_jsonb};

/// How values are read, and how many did not fit.
pub(super) struct Rules {
    timestamptz: TimestamptzMode,
    /// Values that became NULL.
    pub(super) bad_values: u64,
    /// What [`can_be_written`] writes.
    pub(super) scratch: Vec<u8>,
}

impl Rules {
    /// Nothing counted yet.
    pub(super) fn new(timestamptz: TimestamptzMode) -> Self {
        Self { timestamptz, bad_values: 0, scratch: Vec::new() }
    }
}

/// Reads the object before which the scanner stands: row `row` of `columns`.
pub(super) fn read_members(
    members: &mut Members,
    columns: &mut [Column],
    row: usize,
    scanner: &mut Scanner<'_>,
    rules: &mut Rules,
) -> Result<(), Malformed> {
    scanner.enter()?;
    members.begin();
    let mut first = true;
    while let Some(name) = scanner.member(&mut first)? {
        let target =
            name.get().map_or(Target::Skip, |name| members.find(&name, |index| columns[index].len() > row));
        match target {
            Target::Skip => {
                scanner.skip()?;
            }
            Target::Column { index, .. } => {
                let column = &mut columns[index];
                if column.len() > row {
                    // The same member again: the last one counts.
                    column.truncate(row);
                }
                read(column, scanner, rules)?;
            }
        }
    }
    for column in columns {
        if column.len() == row {
            column.push_null();
        }
    }
    Ok(())
}

fn read(column: &mut Column, scanner: &mut Scanner<'_>, rules: &mut Rules) -> Result<(), Malformed> {
    let row = column.len();
    let token = scanner.token()?;
    let fits = match (token, &mut column.cells) {
        (Token::Null, _) => {
            column.push_null();
            return Ok(());
        }
        (Token::Object, Cells::Struct(members, children)) => {
            read_members(members, children, row, scanner, rules)?;
            true
        }
        (Token::Text(text), Cells::Struct(members, children)) => {
            struct_in_text(text, members, children, row, rules)
        }
        (Token::Object, Cells::Map(offsets, keys, values)) => {
            read_entries(offsets, keys, values, scanner, rules)?
        }
        (Token::Array, Cells::List(offsets, items)) => {
            scanner.enter()?;
            let mut first = true;
            while scanner.item(&mut first)? {
                read(items, scanner, rules)?;
            }
            offsets.end(items.len());
            true
        }
        (Token::Array | Token::Object, Cells::Varchar(cells)) => {
            compact(scanner.skip()?, &mut cells.bytes);
            cells.end();
            true
        }
        (Token::Array | Token::Object, Cells::Jsonb(cells)) => {
            let json = scanner.skip()?;
            compact(json, &mut cells.bytes);
            cells.end();
            can_be_written(json, &mut rules.scratch)
        }
        (Token::Array | Token::Object, _) => {
            scanner.skip()?;
            false
        }
        (scalar, cells) => read_scalar(cells, scalar, rules.timestamptz),
    };
    if fits {
        column.valid();
    } else {
        column.truncate(row);
        column.push_null();
        rules.bad_values += 1;
    }
    Ok(())
}

/// Whether this JSON, which is well formed, is a jsonb: it is no jsonb if a string in it is no text (half a surrogate pair).
/// Found here it is one value that is NULL; found by an encoder it would fail the row.
pub(super) fn can_be_written(json: &str, scratch: &mut Vec<u8>) -> bool {
    if !json.contains("\\u") {
        return true;
    }
    scratch.clear();
    write_jsonb(json, Style::Compact, scratch).is_ok()
}

/// A struct whose object came as a string. A string that holds something else does not fit.
fn struct_in_text(
    text: RawText<'_>,
    members: &mut Members,
    children: &mut [Column],
    row: usize,
    rules: &mut Rules,
) -> bool {
    let Some(text) = text.get() else { return false };
    let mut scanner = Scanner::new(&text);
    scanner.token() == Ok(Token::Object)
        && read_members(members, children, row, &mut scanner, rules).is_ok()
        && scanner.end().is_ok()
}

/// The entries of a map; false if a name is no key of this map.
fn read_entries(
    offsets: &mut Offsets,
    keys: &mut Column,
    values: &mut Column,
    scanner: &mut Scanner<'_>,
    rules: &mut Rules,
) -> Result<bool, Malformed> {
    scanner.enter()?;
    let (mut first, mut fits) = (true, true);
    while let Some(name) = scanner.member(&mut first)? {
        if fits && read_scalar(&mut keys.cells, Token::Text(name), rules.timestamptz) {
            keys.valid();
            read(values, scanner, rules)?;
        } else {
            fits = false;
            scanner.skip()?;
        }
    }
    offsets.end(keys.len());
    Ok(fits)
}

/// Pushes a cell without its validity; false (and perhaps half a text) if the value does not fit.
fn read_scalar(cells: &mut Cells, token: Token<'_>, timestamptz: TimestamptzMode) -> bool {
    match cells {
        Cells::Boolean(cells) => match token {
            Token::Boolean(value) => {
                cells.append(value);
                true
            }
            _ => false,
        },
        Cells::Smallint(cells) => push(cells, integer(token).and_then(|n| i16::try_from(n).ok())),
        Cells::Integer(cells) => push(cells, integer(token).and_then(|n| i32::try_from(n).ok())),
        Cells::Bigint(cells) => push(cells, integer(token)),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the nearest real is meant; one that is too large is none"
        )]
        Cells::Real(cells) => {
            let real = double(token).map(|x| (x, x as f32));
            push(cells, real.filter(|(x, real)| real.is_finite() || !x.is_finite()).map(|(_, real)| real))
        }
        Cells::Double(cells) => push(cells, double(token)),
        Cells::Numeric(cells) => {
            let fits = match token {
                Token::Number(text) => text::numeric(text, &mut cells.bytes),
                Token::Text(raw) => raw.get().is_some_and(|text| text::numeric(&text, &mut cells.bytes)),
                _ => false,
            };
            if fits {
                cells.end();
            }
            fits
        }
        Cells::Varchar(cells) => {
            let fits = write_scalar(token, false, &mut cells.bytes);
            cells.end();
            fits
        }
        Cells::Jsonb(cells) => {
            let text = !matches!(token, Token::Text(text) if text.get().is_none());
            let fits = text && write_scalar(token, true, &mut cells.bytes);
            cells.end();
            fits
        }
        Cells::Bytea(cells) => match string(token).and_then(|text| text::bytea(&text)) {
            Some(bytes) => {
                cells.push(&Bytes::from(bytes));
                true
            }
            None => false,
        },
        Cells::Date(cells) => push(cells, moment(token, text::date, |n| i32::try_from(n).ok())),
        Cells::Time(cells) => push(cells, moment(token, text::time, text::time_of_micros)),
        Cells::Timestamp(cells) => push(cells, moment(token, text::timestamp, text::guess_micros)),
        Cells::Timestamptz(cells) => {
            push(cells, moment(token, |t| timestamptz.text(t), |n| timestamptz.number(n)))
        }
        Cells::Interval(cells) => push(cells, string(token).and_then(|text| text::interval(&text))),
        Cells::Struct(..) | Cells::List(..) | Cells::Map(..) => false,
    }
}

fn push<T>(cells: &mut Vec<T>, value: Option<T>) -> bool {
    let fits = value.is_some();
    cells.extend(value);
    fits
}

fn string(token: Token<'_>) -> Option<Cow<'_, str>> {
    match token {
        Token::Text(raw) => raw.get(),
        _ => None,
    }
}

fn integer(token: Token<'_>) -> Option<i64> {
    match token {
        Token::Number(text) => text::integer(text),
        other => text::integer(&string(other)?),
    }
}

fn double(token: Token<'_>) -> Option<f64> {
    match token {
        Token::Number(text) => text::double(text),
        other => text::double(&string(other)?),
    }
}

/// A date or time: text in one way, an integral number in another.
fn moment<T>(
    token: Token<'_>,
    of_text: impl Fn(&str) -> Option<T>,
    of_number: impl Fn(i64) -> Option<T>,
) -> Option<T> {
    match token {
        Token::Number(number) => of_number(text::integer(number)?),
        other => of_text(&string(other)?),
    }
}

/// The text of a scalar; a string as its JSON text or as the text meant.
fn write_scalar(token: Token<'_>, as_json: bool, out: &mut Vec<u8>) -> bool {
    match token {
        Token::Text(text) if as_json => {
            out.push(b'"');
            out.extend_from_slice(text.raw.as_bytes());
            out.push(b'"');
        }
        Token::Text(text) => return text.append_to(out),
        Token::Number(text) => out.extend_from_slice(text.as_bytes()),
        Token::Boolean(true) => out.extend_from_slice(b"true"),
        Token::Boolean(false) => out.extend_from_slice(b"false"),
        _ => return false,
    }
    true
}
