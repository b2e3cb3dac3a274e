//! Bytes to columns and back. Pure: no I/O, no clock.
//!
//! A [`Decoder`] turns the records of a source into a `RecordBatch`; a [`MessageEncoder`] turns the rows of a sink into
//! messages. The worker owns decoders (one per run), the writers of sinks that take bytes own encoders. The statement
//! binder calls [`check_source`] and [`check_sink`], so that a worker never meets a clause that it cannot carry out.

mod calendar;
mod decode;
mod encode;
mod json;
pub mod kpl;

pub use decode::{Decoder, Malformed, OPTIONS_SOURCE, check_source, decoder};
pub use encode::{Encoded, Message, MessageEncoder, OPTIONS_SINK, Refused, check_sink};

/// A `FORMAT … ENCODE …` clause that cannot be carried out. The text is part of the SQL surface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FormatError(pub String);

impl FormatError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}
