//! Destinations that can be written to.

pub mod blackhole;
pub mod file;
pub mod kafka;
pub mod kinesis;
pub mod memory;

use model::{Encode, Format, FormatClause, Options, SinkSpec};

/// The sink with `FORMAT PLAIN ENCODE JSON` if its statement had no `FORMAT`.
fn with_json(spec: &SinkSpec) -> SinkSpec {
    let mut spec = spec.clone();
    spec.format.get_or_insert_with(|| FormatClause {
        format: Format::Plain,
        encode: Encode::Json,
        options: Options::default(),
        key_encode: None,
    });
    spec
}
