//! The sink that bad records go to (docs/sql.md, Bad records): its columns, and how it is made of the options under
//! `dead_letter.`. The binder and the coordinator make it to see whether it would work, the worker to write to it, all from here.

use std::sync::{Arc, LazyLock};

use connector::{KeyRule, OptionError, Registry, Sink, SinkCommon};
use model::{Column, Encode, Format, FormatClause, OnError, Options, SinkSpec, SourceSpec, SqlType};

/// The options under this are those of the dead-letter sink.
const PREFIX: &str = "dead_letter.";

static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let column = |name: &str, kind| Column { name: name.to_owned(), kind };
    vec![
        column("source", SqlType::Varchar),
        column("shard", SqlType::Varchar),
        column("seq", SqlType::Varchar),
        column("sub_seq", SqlType::Bigint),
        column("arrival", SqlType::Timestamptz),
        column("partition_key", SqlType::Varchar),
        column("data", SqlType::Bytea),
        column("data_bytes", SqlType::Bigint),
        column("data_truncated", SqlType::Boolean),
        column("error", SqlType::Varchar),
    ]
});

/// A dead-letter sink that could be made.
pub struct DeadLetterSink {
    /// What it was made of.
    pub spec: SinkSpec,
    /// Where the letters go; nothing was asked of it yet.
    pub sink: Arc<dyn Sink>,
    /// The options that every sink has.
    pub common: SinkCommon,
}

/// The columns of a dead letter: where the record came from, the record, how long its data were and whether they were cut, and
/// what was wrong with it.
#[must_use]
pub fn dead_letter_columns() -> &'static [Column] {
    &COLUMNS
}

/// The dead-letter sink that a source names, if its `on_error` asks for one.
///
/// # Errors
/// An unknown connector, an option that is unknown, wrong or missing.
pub fn source_dead_letters(
    registry: &Registry,
    spec: &SourceSpec,
) -> Result<Option<DeadLetterSink>, OptionError> {
    let mut options = spec.options.under(PREFIX);
    match options.remove("connector") {
        Some(connector) if spec.on_error == OnError::DeadLetter => {
            make(registry, owned_by(spec), &connector, options).map(Some)
        }
        _ => Ok(None),
    }
}

/// The dead-letter sink that a sink names, if its `on_error` asks for one.
///
/// # Errors
/// An unknown connector, an option that is unknown, wrong or missing.
pub fn sink_dead_letters(
    registry: &Registry,
    spec: &SinkSpec,
) -> Result<Option<DeadLetterSink>, OptionError> {
    let (common, _) = SinkCommon::read(&spec.options, registry.sink(&spec.connector)?.limits)?;
    match common.dead_letter {
        Some((connector, options)) => make(registry, spec.clone(), &connector, options).map(Some),
        None => Ok(None),
    }
}

/// What the dead letters of a source are written under.
fn owned_by(spec: &SourceSpec) -> SinkSpec {
    SinkSpec {
        id: spec.id,
        name: spec.name.clone(),
        source: spec.id,
        source_name: spec.name.clone(),
        query: None,
        columns: Vec::new(),
        connector: String::new(),
        options: Options::default(),
        primary_key: Vec::new(),
        format: None,
        on_error: OnError::Fail,
        distribution: model::Distribution::Split,
        paused: false,
        created_at: spec.created_at,
        revision: spec.revision,
        instance: 0,
    }
}

fn make(
    registry: &Registry,
    owner: SinkSpec,
    connector: &str,
    options: Options,
) -> Result<DeadLetterSink, OptionError> {
    if options.iter().any(|(name, _)| name == "on_error") {
        let text = "`dead_letter.on_error` has no meaning: a dead letter that is refused stops its split";
        return Err(OptionError::config(text));
    }
    let kind = registry.sink(connector)?;
    let json = kind.formats.contains(&(Format::Plain, Encode::Json));
    let keyed = matches!(kind.key, KeyRule::Required(_));
    let format = FormatClause {
        format: Format::Plain,
        encode: Encode::Json,
        options: Options::default(),
        key_encode: None,
    };
    let spec = SinkSpec {
        name: format!("{}_dead_letter", owner.name),
        query: None,
        columns: COLUMNS.clone(),
        connector: connector.to_owned(),
        options,
        primary_key: if keyed { vec!["shard".to_owned(), "seq".to_owned()] } else { Vec::new() },
        format: json.then_some(format),
        on_error: OnError::Fail,
        distribution: model::Distribution::Split,
        paused: false,
        ..owner
    };
    if spec.format.is_some() {
        formats::check_sink(&spec).map_err(|e| OptionError::config(e.to_string()))?;
    }
    let (sink, common) = registry.build_sink(&spec)?;
    Ok(DeadLetterSink { spec, sink, common })
}
