//! Records to columns: which decoder a source needs, and whether its clause can be carried out.

mod bytes;
mod column;
mod fields;
mod include;
mod json;
mod text;
mod value;

use std::fmt;

use arrow::record_batch::RecordBatch;
use model::{Encode, IncludeKind, RawRecord, SourceSpec, SplitId, SqlType};

use crate::FormatError;

/// Names that the parentheses after `ENCODE` of a source may hold. Others are a notice, not an error.
pub const OPTIONS_SOURCE: &[&str] = &["timestamptz.handling.mode", "on_error"];

/// A record that is not what its source says. Nothing of it became a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong, in plain words.
    pub message: String,
}

impl Malformed {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Malformed {}

/// Turns records into rows, one row per record, in the order given.
pub trait Decoder: Send {
    /// Appends the row of `record`, `INCLUDE` columns too. A malformed record appends nothing.
    fn decode(&mut self, record: &RawRecord, split: &SplitId) -> Result<(), Malformed>;
    /// Rows appended since the last `finish`.
    fn len(&self) -> usize;
    /// True without such rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Values that did not fit their column and became NULL, since the decoder was made.
    fn bad_values(&self) -> u64 {
        0
    }
    /// Hands out the rows and starts anew.
    fn finish(&mut self) -> RecordBatch;
}

/// The decoder of a source. Its batches have the columns `wanted`, in that order, or all columns of the source. Columns that
/// nobody wants are skipped over in the record and never built.
///
/// # Errors
/// A clause that [`check_source`] refuses, or a wanted column that the source does not have.
pub fn decoder(spec: &SourceSpec, wanted: Option<&[String]>) -> Result<Box<dyn Decoder>, FormatError> {
    check_source(spec)?;
    let wanted = match wanted {
        Some(names) => names.to_vec(),
        None => spec.all_columns().map(|c| c.name.clone()).collect(),
    };
    Ok(match spec.format.encode {
        Encode::Bytes => Box::new(bytes::BytesDecoder::new(spec, &wanted)?),
        _ => Box::new(json::JsonDecoder::new(spec, &wanted)?),
    })
}

/// Whether the clause of a source can be carried out.
///
/// # Errors
/// The text that users read.
pub fn check_source(spec: &SourceSpec) -> Result<(), FormatError> {
    let payload = spec.include.iter().any(|i| i.kind == IncludeKind::Payload);
    match spec.format.encode {
        Encode::Bytes => {
            if spec.columns.len() != 1 || spec.columns[0].kind != SqlType::Bytea {
                return Err(FormatError::new("ENCODE BYTES only accepts one BYTEA type column"));
            }
            if payload {
                return Err(FormatError::new("INCLUDE payload is only allowed when using ENCODE JSON"));
            }
        }
        Encode::Json => {
            if spec.columns.is_empty() {
                return Err(FormatError::new(
                    "Schema definition is required, either from SQL or schema registry.",
                ));
            }
            text::TimestamptzMode::read(&spec.format.options)?;
        }
        Encode::Text => return Err(FormatError::new("ENCODE TEXT is only valid as key encode.")),
    }
    if spec.format.key_encode.is_some() {
        return Err(FormatError::new("key encode clause is not supported in source schema"));
    }
    Ok(())
}

fn unknown_column(spec: &SourceSpec, name: &str) -> FormatError {
    FormatError::new(format!("column \"{name}\" not found in source \"{}\"", spec.name))
}
