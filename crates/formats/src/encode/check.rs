//! Whether the clause of a sink can be carried out. The texts are part of the SQL surface.

use model::{Encode, SinkSpec, SqlType};

use super::modes::Modes;
use crate::FormatError;

/// Checks `FORMAT … ENCODE … KEY ENCODE …` of a sink against its columns and its key. A sink without the clause takes rows
/// and passes.
///
/// # Errors
/// The text that users read.
pub fn check_sink(spec: &SinkSpec) -> Result<(), FormatError> {
    for name in &spec.primary_key {
        if !spec.columns.iter().any(|c| c.name == *name) {
            return Err(FormatError::new(format!(
                "Sink primary key column not found: {name}. Please use ',' as the delimiter for different primary key \
                 columns."
            )));
        }
    }
    let Some(clause) = &spec.format else { return Ok(()) };
    match clause.encode {
        Encode::Text => return Err(FormatError::new("ENCODE TEXT is only valid as key encode.")),
        Encode::Bytes => {
            payload_column(spec)?;
        }
        Encode::Json => {
            for column in &spec.columns {
                if let Some(map) = find_map(&column.kind) {
                    return Err(FormatError::new(format!(
                        "unsupported data type {map} of column `{}`: JSON sinks cannot write it",
                        column.name
                    )));
                }
            }
        }
    }
    Modes::read(&clause.options)?;
    check_key(spec, clause.key_encode)
}

/// The column that is the message of `ENCODE BYTES`: the only one, or the only one outside of the key.
pub(super) fn payload_column(spec: &SinkSpec) -> Result<usize, FormatError> {
    let rest: Vec<usize> = (0..spec.columns.len())
        .filter(|i| spec.columns.len() == 1 || !spec.primary_key.contains(&spec.columns[*i].name))
        .collect();
    match rest.as_slice() {
        [column] if spec.columns[*column].kind == SqlType::Bytea => Ok(*column),
        _ => Err(FormatError::new("ENCODE BYTES only accepts one BYTEA type column besides the primary key")),
    }
}

fn check_key(spec: &SinkSpec, encode: Option<Encode>) -> Result<(), FormatError> {
    let encode = match encode {
        None => return Ok(()),
        Some(Encode::Json) => {
            return Err(FormatError::new("sink key encode unsupported: JSON, only TEXT and BYTES supported"));
        }
        Some(Encode::Bytes) if spec.connector != "kafka" => {
            return Err(FormatError::new(format!(
                "key encode bytes only works with kafka connector, but found {}",
                spec.connector
            )));
        }
        Some(encode) => encode,
    };
    let word = if encode == Encode::Text { "TEXT" } else { "BYTES" };
    let [name] = spec.primary_key.as_slice() else {
        let count = spec.primary_key.len();
        return Err(FormatError::new(format!(
            "KEY ENCODE {word} expects only one primary key, but got {count}"
        )));
    };
    let kind = spec.columns.iter().find(|c| c.name == *name).map_or(&SqlType::Varchar, |c| &c.kind);
    let (fits, accepted) = if encode == Encode::Text {
        let fits = matches!(
            kind,
            SqlType::Varchar | SqlType::Boolean | SqlType::Smallint | SqlType::Integer | SqlType::Bigint
        );
        (fits, "varchar, bool, small int, int, big int")
    } else {
        (*kind == SqlType::Bytea, "bytea")
    };
    if fits {
        return Ok(());
    }
    Err(FormatError::new(format!(
        "The key encode is {word}, but the primary key column {name} has type {kind}. The key encode {word} requires the \
         primary key column to be of type {accepted}"
    )))
}

fn find_map(kind: &SqlType) -> Option<&SqlType> {
    match kind {
        SqlType::Map(..) => Some(kind),
        SqlType::List(item) => find_map(item),
        SqlType::Struct(fields) => fields.iter().find_map(|f| find_map(&f.kind)),
        _ => None,
    }
}
