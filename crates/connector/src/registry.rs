//! Which connectors there are. Filled in `main`, so tests fill it with fakes.

use std::{collections::BTreeMap, sync::Arc};

use model::{CREDENTIAL, CredentialSpec, Encode, Format, IncludeKind, Options, SinkSpec, SourceSpec};

use crate::{
    BatchLimits, CredentialKind, Credentials, KeyRule, OptionDef, OptionError, Sink, SinkCommon, Source,
};

/// The options under this are those of the dead-letter sink.
const DEAD_LETTER: &str = "dead_letter.";

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

/// Connectors by name, and the credentials that their objects may name.
#[derive(Clone, Default)]
pub struct Registry {
    sources: BTreeMap<&'static str, SourceKind>,
    sinks: BTreeMap<&'static str, SinkKind>,
    kinds: BTreeMap<&'static str, CredentialKind>,
    credentials: Arc<Credentials>,
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

    /// Adds a kind of credential; a later one of the same name replaces it.
    pub fn add_credential(&mut self, kind: CredentialKind) -> &mut Self {
        self.kinds.insert(kind.name, kind);
        self
    }

    /// The same connectors, with these credentials.
    #[must_use]
    pub fn with_credentials(&self, credentials: Arc<Credentials>) -> Self {
        Self { credentials, ..self.clone() }
    }

    /// The kind of credential `name`, or the error that users read.
    pub fn credential(&self, name: &str) -> Result<&CredentialKind, OptionError> {
        self.kinds.get(name).ok_or_else(|| {
            let known = self.kinds.keys().copied().collect::<Vec<_>>().join(", ");
            let text = format!("unsupported credential type \"{name}\"");
            OptionError::config(match crate::nearest(name, self.kinds.keys().copied()) {
                Some(near) => format!("{text}\nHint: did you mean `{near}`?"),
                None => format!("{text}\nHint: accept [{known}]"),
            })
        })
    }

    /// Whether one of the credentials is this object.
    #[must_use]
    pub fn has_credential(&self, id: model::ObjectId) -> bool {
        self.credentials.values().any(|spec| spec.id == id)
    }

    /// Every kind of credential, sorted by name.
    pub fn credentials(&self) -> impl Iterator<Item = &CredentialKind> {
        self.kinds.values()
    }

    /// The kind of the credential of this name, if there is one.
    #[must_use]
    pub fn kind_of(&self, credential: &str) -> Option<&CredentialKind> {
        self.kinds.get(self.credentials.get(credential)?.kind.as_str())
    }

    /// The options that a credential stands for, checked.
    pub fn expand(&self, spec: &CredentialSpec) -> Result<Options, OptionError> {
        self.credential(&spec.kind)?.expand(spec)
    }

    /// The source with the options of the credentials that it names in their place: what a worker gets.
    pub fn expanded_source(&self, spec: &SourceSpec) -> Result<SourceSpec, OptionError> {
        let own = self.resolved(&spec.connector, self.source(&spec.connector)?.options, &spec.options)?;
        Ok(SourceSpec { options: self.with_dead_letters(own)?, ..spec.clone() })
    }

    /// As [`Registry::expanded_source`], of a sink.
    pub fn expanded_sink(&self, spec: &SinkSpec) -> Result<SinkSpec, OptionError> {
        let own = self.resolved(&spec.connector, self.sink(&spec.connector)?.options, &spec.options)?;
        Ok(SinkSpec { options: self.with_dead_letters(own)?, ..spec.clone() })
    }

    /// The options of an object of this connector, `credential` replaced by what it stands for.
    fn resolved(&self, connector: &str, defs: &[OptionDef], own: &Options) -> Result<Options, OptionError> {
        let Some(name) = own.get(CREDENTIAL) else { return Ok(own.clone()) };
        let spec = self
            .credentials
            .get(name)
            .ok_or_else(|| OptionError::config(format!("credential \"{name}\" does not exist")))?;
        self.credential(&spec.kind)?.merged(connector, defs, (own, spec))
    }

    fn with_dead_letters(&self, mut options: Options) -> Result<Options, OptionError> {
        let target = options.under(DEAD_LETTER);
        let (Some(connector), Some(_)) = (target.get("connector"), target.get(CREDENTIAL)) else {
            return Ok(options);
        };
        let own: Options = target.iter().filter(|(name, _)| *name != "connector").collect();
        let resolved = self.resolved(connector, self.sink(connector)?.options, &own)?;
        options.remove(&format!("{DEAD_LETTER}{CREDENTIAL}"));
        for (name, value) in resolved.iter() {
            options.insert(format!("{DEAD_LETTER}{name}"), value);
        }
        Ok(options)
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
        own.options = spec.options.iter().filter(|(name, _)| !name.starts_with(DEAD_LETTER)).collect();
        own.options = self.resolved(&spec.connector, kind.options, &own.options)?;
        (kind.build)(&own)
    }

    /// Makes the sink of a spec and reads its common options.
    pub fn build_sink(&self, spec: &SinkSpec) -> Result<(Arc<dyn Sink>, SinkCommon), OptionError> {
        let kind = self.sink(&spec.connector)?;
        let (common, own) = SinkCommon::read(&spec.options, kind.limits)?;
        let own = self.resolved(&spec.connector, kind.options, &own)?;
        Ok(((kind.build)(spec, &own)?, common))
    }

    /// The names of all kinds of sources and of all kinds of sinks, sorted.
    #[must_use]
    pub fn names(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        (self.sources.keys().copied().collect(), self.sinks.keys().copied().collect())
    }
}
