//! `CREATE SINK` (docs/sql.md). The order is: options, columns, format, primary key, key encoding, then what the
//! formats and the connector say to the finished spec.

use std::sync::Arc;

use connector::{KeyRule, Reader, Registry, Sink, SinkCommon, SinkKind};
use model::{
    Column, Encode, Format, FormatClause, ObjectId, ObjectKind, Options, SinkSpec, SourceSpec, SqlType,
    Timestamp,
};

use super::{
    check_dead_letter, check_distinct, check_name,
    distribution::distribution,
    encode_options, options,
    source::{encode_name, format_name},
};
use crate::{
    Code, CreateSink, Encoding, Error, FormatSpec, OptionEntry, Projection, Result, SinkInput,
    sink_dead_letters,
};

/// A sink that may be created.
pub struct BoundSink {
    /// Without an identity: id, times and revision are the leader's to fill in.
    pub spec: SinkSpec,
    /// Made from the spec; nothing was asked of the outside yet.
    pub sink: Arc<dyn Sink>,
    /// The options that every sink has.
    pub common: SinkCommon,
    /// The compiled query, if it has one.
    pub projection: Option<Projection>,
    /// What the user should know though it works.
    pub notices: Vec<String>,
}

/// Options that are not the connector's and not in the common list of the contract: the binder's own.
struct Own {
    kind: Option<String>,
    primary_key: Option<String>,
    force_append_only: Option<String>,
    distribution: Option<String>,
}

/// Binds `CREATE SINK` to the source that it names.
///
/// # Errors
/// The first rule that does not hold, then what the formats and the connector refuse.
pub fn bind_sink(create: &CreateSink, registry: &Registry, source: &SourceSpec) -> Result<BoundSink> {
    check_name(ObjectKind::Sink, &create.name)?;
    let entries = create.options.as_slice();
    if entries.is_empty() {
        return Err(Error::new(Code::Bind, "sink properties not provided"));
    }
    let mut options = options::collect(entries)?;
    let connector = options
        .remove("connector")
        .ok_or_else(|| Error::new(Code::Config, "missing field 'connector'").hint(accepted(registry)))?;
    let kind = registry.sink(&connector).map_err(|e| {
        let place = options::entry(entries, "connector").map(|e| e.place).unwrap_or_default();
        Error::of_option(Code::Config, &e).at(place).option("connector")
    })?;
    options::refuse_unsupported(entries)?;
    let own = own(&mut options, entries)?;
    check_options(kind, &options, entries)?;
    let input: Vec<Column> = source.all_columns().cloned().collect();
    let (query, columns, projection) = columns(create, &input)?;
    let mut notices = Vec::new();
    let format = format_of(create.format.as_ref(), &own, kind, &mut notices)?;
    force_append_only(&own, format.as_ref(), entries, create.format.as_ref())?;
    check_distinct(columns.iter().map(|c| c.name.as_str()))?;
    check_named(&columns, format.as_ref())?;
    let primary_key = primary_key(own.primary_key.as_deref(), &columns, kind, entries)?;
    let distribution = distribution(own.distribution.as_deref(), kind, (&columns, &primary_key), entries)?;
    let key_encode = create.format.as_ref().and_then(|f| f.key_encode.as_ref());
    let mut format = format;
    if let (Some(key), Some(clause)) = (key_encode, &mut format) {
        clause.key_encode = Some(key_encoding(key, &primary_key, &columns, kind)?);
    }
    let mut spec = SinkSpec {
        id: ObjectId::from_parts(0, 0),
        name: create.name.name.clone(),
        source: source.id,
        source_name: source.name.clone(),
        query,
        columns,
        connector,
        options,
        primary_key,
        format,
        on_error: model::OnError::Fail,
        distribution,
        paused: false,
        created_at: Timestamp(0),
        revision: 0,
        instance: 0,
    };
    let (sink, common) = build(&spec, registry, entries)?;
    spec.on_error = common.on_error;
    Ok(BoundSink { spec, sink, common, projection, notices })
}

/// What the formats and the connector say to the finished spec.
pub(super) fn build(
    spec: &SinkSpec,
    registry: &Registry,
    entries: &[OptionEntry],
) -> Result<(Arc<dyn Sink>, SinkCommon)> {
    if spec.format.is_some() {
        formats::check_sink(spec).map_err(|e| Error::new(Code::Bind, e))?;
    }
    let built = registry.build_sink(spec).map_err(|e| options::refused(entries, Code::Config, &e))?;
    check_dead_letter(sink_dead_letters(registry, spec), entries)?;
    Ok(built)
}

fn accepted(registry: &Registry) -> String {
    format!("connector = one of {}", registry.names().1.join(", "))
}

/// Takes the binder's own options out of the list.
fn own(options: &mut Options, entries: &[OptionEntry]) -> Result<Own> {
    let place = |name: &str| options::entry(entries, name).map(|e| e.place).unwrap_or_default();
    if let Some(snapshot) = options.remove("snapshot")
        && options::boolean(&snapshot) != Some(true)
    {
        let error = Error::unsupported("snapshot = 'false' for a sink on a source").at(place("snapshot"));
        return Err(
            error.hint("a sink begins where its source began; `scan.startup.mode` of the source says where")
        );
    }
    Ok(Own {
        kind: options.remove("type"),
        primary_key: options.remove("primary_key"),
        force_append_only: options.remove("force_append_only"),
        distribution: options.remove("distribution"),
    })
}

/// Names and values of all options, before anything else is looked at.
fn check_options(kind: &SinkKind, options: &Options, entries: &[OptionEntry]) -> Result<()> {
    let refused = |e: connector::OptionError| options::refused(entries, Code::Config, &e);
    let (_, mut own) = SinkCommon::read(options, kind.limits).map_err(refused)?;
    // What it stands for is looked at when the sink is made.
    own.remove(model::CREDENTIAL);
    Reader::new(&own, kind.options).map(|_| ()).map_err(refused)
}

type Columns = (Option<String>, Vec<Column>, Option<Projection>);

fn columns(create: &CreateSink, input: &[Column]) -> Result<Columns> {
    match &create.input {
        SinkInput::From(_) => Ok((None, input.to_vec(), None)),
        SinkInput::Query { text, place, .. } => {
            let projection = Projection::compile(text, input).map_err(|e| e.at(*place))?;
            Ok((Some(text.clone()), projection.columns().to_vec(), Some(projection)))
        }
    }
}

/// The `FORMAT` clause, or what the legacy `type` means.
fn format_of(
    clause: Option<&FormatSpec>,
    own: &Own,
    kind: &SinkKind,
    notices: &mut Vec<String>,
) -> Result<Option<FormatClause>> {
    match (clause, own.kind.as_deref()) {
        (Some(_), Some(_)) => {
            let text = "`type` cannot be used together with FORMAT ... ENCODE ...";
            Err(Error::new(Code::Bind, text).option("type"))
        }
        (None, None) if kind.format_required => Err(Error::new(Code::Bind, "missing FORMAT ... ENCODE ...")
            .hint(format!("for example: FORMAT PLAIN ENCODE {}", example(kind)))),
        (None, None) => Ok(None),
        (Some(clause), None) => new_format(clause, kind, notices).map(Some),
        (None, Some(legacy)) => legacy_format(legacy, kind),
    }
}

fn example(kind: &SinkKind) -> &'static str {
    kind.formats.first().map_or("JSON", |(_, encode)| crate::print::encode_word(*encode))
}

fn new_format(clause: &FormatSpec, kind: &SinkKind, notices: &mut Vec<String>) -> Result<FormatClause> {
    if kind.formats.is_empty() {
        let text = format!("connector {} is not supported by FORMAT ... ENCODE ... syntax", kind.name);
        return Err(Error::new(Code::Bind, text).at(clause.place));
    }
    if clause.encode.name == "TEXT" {
        return Err(
            Error::new(Code::Bind, "ENCODE TEXT is only valid as key encode.").at(clause.encode.place)
        );
    }
    let format = format_name(&clause.format)
        .filter(|format| kind.formats.iter().any(|(f, _)| f == format))
        .ok_or_else(|| no_format(kind, &clause.format).at(clause.place))?;
    let encode = encode_name(&clause.encode.name)
        .filter(|encode| kind.formats.contains(&(format, *encode)))
        .ok_or_else(|| {
            let text = format!(
                "connector {} does not support format {} with encode {}",
                kind.name, clause.format, clause.encode.name
            );
            Error::new(Code::Bind, text).at(clause.encode.place)
        })?;
    let known: Vec<&str> =
        formats::OPTIONS_SINK.iter().copied().chain(["force_append_only", "ignore_delete"]).collect();
    let options = encode_options(clause, &known, notices)?;
    Ok(FormatClause { format, encode, options, key_encode: None })
}

fn no_format(kind: &SinkKind, format: &str) -> Error {
    Error::new(Code::Bind, format!("connector {} does not support format {format}", kind.name))
}

/// `type = 'append-only'`: for sinks of messages PLAIN JSON with time zones the old way.
fn legacy_format(legacy: &str, kind: &SinkKind) -> Result<Option<FormatClause>> {
    match legacy {
        "append-only" if kind.formats.contains(&(Format::Plain, Encode::Json)) => {
            let options = [("timestamptz.handling.mode", "utc_without_suffix")].into_iter().collect();
            Ok(Some(FormatClause { format: Format::Plain, encode: Encode::Json, options, key_encode: None }))
        }
        "append-only" => Ok(None),
        "upsert" => Err(no_format(kind, "UPSERT").option("type")),
        "debezium" => Err(no_format(kind, "DEBEZIUM").option("type")),
        _ => {
            let text = "`type` must be append-only, retract, upsert, or debezium";
            Err(Error::new(Code::InvalidInput, text).option("type"))
        }
    }
}

/// Sources only insert, so the option changes nothing; its value is checked nevertheless.
fn force_append_only(
    own: &Own,
    format: Option<&FormatClause>,
    entries: &[OptionEntry],
    clause: Option<&FormatSpec>,
) -> Result<()> {
    let parens = |name: &str| format.and_then(|f| f.options.get(name).map(str::to_owned));
    let (forced, ignored) = (parens("force_append_only"), parens("ignore_delete"));
    if forced.is_some() && ignored.is_some() {
        return Err(Error::new(
            Code::Bind,
            "`force_append_only` and `ignore_delete`: only one of them can be specified",
        ));
    }
    for value in [own.force_append_only.clone(), forced, ignored].into_iter().flatten() {
        if options::boolean(&value).is_none() {
            let error = Error::new(Code::InvalidInput, "`force_append_only` must be true or false");
            let inside = clause.map_or(&[][..], |c| c.encode.options.as_slice());
            return Err(options::locate(inside, options::locate(entries, error)));
        }
    }
    Ok(())
}

/// An expression without a name has none in JSON either.
pub(super) fn check_named(columns: &[Column], format: Option<&FormatClause>) -> Result<()> {
    let json = format.is_none_or(|f| f.encode == Encode::Json);
    match columns.iter().position(|c| c.name == "?column?") {
        Some(at) if json => {
            let text = format!("expression {} of the select list has no name", at + 1);
            Err(Error::new(Code::Bind, text).hint("add AS name"))
        }
        _ => Ok(()),
    }
}

fn primary_key(
    given: Option<&str>,
    columns: &[Column],
    kind: &SinkKind,
    entries: &[OptionEntry],
) -> Result<Vec<String>> {
    let place = options::entry(entries, "primary_key").map(|e| e.place).unwrap_or_default();
    let at = |error: Error| error.at(place).option("primary_key");
    let Some(given) = given.filter(|text| !text.trim().is_empty()) else {
        return match kind.key {
            KeyRule::Required(text) => Err(at(Error::new(Code::Config, text))),
            KeyRule::Optional => Ok(Vec::new()),
        };
    };
    let names: Vec<String> = given.split(',').map(|name| name.trim().to_owned()).collect();
    for (index, name) in names.iter().enumerate() {
        if !columns.iter().any(|c| &c.name == name) {
            let text = format!(
                "Sink primary key column not found: {name}. Please use ',' as the delimiter for different primary key \
                 columns."
            );
            let error = at(Error::new(Code::Bind, text));
            return Err(match connector::nearest(name, columns.iter().map(|c| c.name.as_str())) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            });
        }
        if names[..index].contains(name) {
            return Err(at(Error::new(Code::Bind, format!("primary key column \"{name}\" is given twice"))));
        }
    }
    Ok(names)
}

/// `KEY ENCODE` (docs/sql.md, CREATE SINK).
fn key_encoding(key: &Encoding, names: &[String], columns: &[Column], kind: &SinkKind) -> Result<Encode> {
    let wrong = |text: String| Err(Error::new(Code::Bind, text).at(key.place));
    let only = || match names {
        [only] => columns.iter().find(|c| &c.name == only),
        _ => None,
    };
    match key.name.as_str() {
        "TEXT" => {
            let Some(column) = only() else {
                return wrong(format!(
                    "KEY ENCODE TEXT expects only one primary key, but got {}",
                    names.len()
                ));
            };
            let fits = matches!(
                column.kind,
                SqlType::Varchar | SqlType::Boolean | SqlType::Smallint | SqlType::Integer | SqlType::Bigint
            );
            if !fits {
                return wrong(format!(
                    "The key encode is TEXT, but the primary key column {} has type {}. The key encode TEXT requires the \
                     primary key column to be of type varchar, bool, small int, int, big int, serial or rw_int256.",
                    column.name, column.kind
                ));
            }
            Ok(Encode::Text)
        }
        "BYTES" if kind.name != "kafka" => {
            wrong(format!("key encode bytes only works with kafka connector, but found {}", kind.name))
        }
        "BYTES" => match only() {
            Some(column) if column.kind == SqlType::Bytea => Ok(Encode::Bytes),
            Some(column) => wrong(format!(
                "The key encode is BYTES, but the primary key column {} has type {}.",
                column.name, column.kind
            )),
            None => wrong(format!("KEY ENCODE BYTES expects only one primary key, but got {}", names.len())),
        },
        other => wrong(format!("sink key encode unsupported: {other}, only TEXT and BYTES supported")),
    }
}
