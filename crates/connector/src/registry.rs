//! Which connectors there are. Filled in `main`, so tests fill it with fakes.

use std::{collections::BTreeMap, sync::Arc};

use model::{Encode, Format, IncludeKind, Options, SinkSpec, SourceSpec};

use crate::{BatchLimits, KeyRule, OptionDef, OptionError, Sink, SinkCommon, Source};

/// A kind of source: what `CREATE SOURCE … WITH (connector = 'name')` may say, and how one is made.
#[derive(Clone)]
pub struct SourceKind {
    /// The value of `connector`.
    pub name: &'static str,
    /// Its options.
    pub options: &'static [OptionDef],
    /// What it can decode.
    pub formats: &'static [(Format, Encode)],
    /// The metadata columns it has, each with its default name.
    pub include: &'static [(IncludeKind, &'static str)],
    /// Checks the options and makes the source. No I/O: connections are made at the first call.
    pub build: BuildSource,
}

/// Checks the options and makes the source. It may hold what all sources of its kind share. No I/O.
pub type BuildSource = Arc<dyn Fn(&SourceSpec) -> Result<Arc<dyn Source>, OptionError> + Send + Sync>;

/// Checks the options (the connector's own, second argument) and makes the sink. It may hold what all sinks of its kind
/// share. No I/O.
pub type BuildSink = Arc<dyn Fn(&SinkSpec, &Options) -> Result<Arc<dyn Sink>, OptionError> + Send + Sync>;

/// Who may write the rows of a kind of sink: see [`model::Distribution`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DistributionKind {
    /// Whoever reads a split.
    Split,
    /// Partitions by key.
    Key,
}

impl DistributionKind {
    /// Rows may be written by whoever has them.
    pub const ALL: &'static [Self] = &[Self::Split, Self::Key];
}

/// A kind of sink: what `CREATE SINK … WITH (connector = 'name')` may say, and how one is made.
#[derive(Clone)]
pub struct SinkKind {
    /// The value of `connector`.
    pub name: &'static str,
    /// Its own options, without those common to all sinks.
    pub options: &'static [OptionDef],
    /// What it can encode.
    pub formats: &'static [(Format, Encode)],
    /// True when a `FORMAT` clause must be given.
    pub format_required: bool,
    /// Whether it needs `primary_key`.
    pub key: KeyRule,
    /// How large one write may be.
    pub limits: BatchLimits,
    /// Who may write its rows; the first is the default.
    pub distributions: &'static [DistributionKind],
    /// Checks the options (the connector's own, second argument) and makes the sink. No I/O.
    pub build: BuildSink,
}

/// Connectors by name.
#[derive(Clone, Default)]
pub struct Registry {
    sources: BTreeMap<&'static str, SourceKind>,
    sinks: BTreeMap<&'static str, SinkKind>,
}

impl Registry {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind of source; a later one of the same name replaces it.
    pub fn add_source(&mut self, kind: SourceKind) -> &mut Self {
        self.sources.insert(kind.name, kind);
        self
    }

    /// Adds a kind of sink; a later one of the same name replaces it.
    pub fn add_sink(&mut self, kind: SinkKind) -> &mut Self {
        self.sinks.insert(kind.name, kind);
        self
    }

    /// The kind of source `name`, or the error that users read.
    pub fn source(&self, name: &str) -> Result<&SourceKind, OptionError> {
        self.sources.get(name).ok_or_else(|| {
            let known: Vec<String> = self.sources.keys().map(|k| format!("\"{k}\"")).collect();
            OptionError::config(format!(
                "connector \"{name}\" is not supported, accept [{}]",
                known.join(", ")
            ))
        })
    }

    /// The kind of sink `name`, or the error that users read.
    pub fn sink(&self, name: &str) -> Result<&SinkKind, OptionError> {
        self.sinks.get(name).ok_or_else(|| {
            let near = crate::nearest(name, self.sinks.keys().copied());
            let hint = near.map_or_else(
                || format!("\nHint: accept [{}]", self.sinks.keys().copied().collect::<Vec<_>>().join(", ")),
                |near| format!("\nHint: did you mean `{near}`?"),
            );
            OptionError::config(format!("unsupported sink type {name}{hint}"))
        })
    }

    /// Makes the source of a spec. `dead_letter.*` is the worker's and is not shown to the connector.
    pub fn build_source(&self, spec: &SourceSpec) -> Result<Arc<dyn Source>, OptionError> {
        let kind = self.source(&spec.connector)?;
        let mut own = spec.clone();
        own.options = spec.options.iter().filter(|(name, _)| !name.starts_with("dead_letter.")).collect();
        (kind.build)(&own)
    }

    /// Makes the sink of a spec and reads its common options.
    pub fn build_sink(&self, spec: &SinkSpec) -> Result<(Arc<dyn Sink>, SinkCommon), OptionError> {
        let kind = self.sink(&spec.connector)?;
        let (common, own) = SinkCommon::read(&spec.options, kind.limits)?;
        Ok(((kind.build)(spec, &own)?, common))
    }

    /// The names of all kinds of sources and of all kinds of sinks, sorted.
    #[must_use]
    pub fn names(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        (self.sources.keys().copied().collect(), self.sinks.keys().copied().collect())
    }
}
