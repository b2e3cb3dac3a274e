//! The options of a memory sink.

use connector::{OptionDef, OptionError, OptionKind, Reader};
use model::Options;

/// Every option of the sink.
pub(super) const OPTIONS: &[OptionDef] = &[OptionDef::new("name", OptionKind::Text)];

/// A sink's options.
#[derive(Clone, Debug)]
pub(super) struct Config {
    /// Which memory; the sink's own name by default.
    pub(super) name: Option<String>,
}

impl Config {
    /// Reads the options.
    pub(super) fn read(options: &Options) -> Result<Self, OptionError> {
        Ok(Self { name: Reader::new(options, OPTIONS)?.text("name")? })
    }
}
