//! `CREATE SOURCE` (docs/sql.md). The order is: options, format, columns, keys, `INCLUDE`, then what the formats and
//! the connector say to the finished spec.

use std::sync::Arc;

use connector::{Registry, Source, SourceKind};
use model::{
    Column, Creation, Encode, Format, FormatClause, Include, IncludeKind, ObjectId, ObjectKind, OnError,
    Options, SourceSpec, SqlType, Start, StartFrom, Timestamp,
};

use super::{check_dead_letter, check_distinct, check_name, encode_options, options};
use crate::{
    Code, CreateSource, Error, FormatSpec, IncludeItem, OptionEntry, Result, ast::Schema, source_dead_letters,
};

/// A source that may be created.
pub struct BoundSource {
    /// Without an identity: id, start, creation and times are the leader's to fill in.
    pub spec: SourceSpec,
    /// Made from the spec; nothing was asked of the outside yet.
    pub source: Arc<dyn Source>,
    /// What the user should know though it works.
    pub notices: Vec<String>,
    /// False after `validate = 'false'`.
    pub validate: bool,
}

/// Binds `CREATE SOURCE`.
///
/// # Errors
/// The first rule that does not hold, then what the formats and the connector refuse.
pub fn bind_source(create: &CreateSource, registry: &Registry) -> Result<BoundSource> {
    check_name(ObjectKind::Source, &create.name)?;
    let Some(entries) = &create.options else {
        return Err(Error::new(Code::Bind, "missing WITH clause"));
    };
    let mut options = options::collect(entries)?;
    let connector = options
        .remove("connector")
        .ok_or_else(|| Error::new(Code::Config, "missing field 'connector'").hint(accepted(registry)))?;
    let kind =
        registry.source(&connector).map_err(|e| unknown_connector(registry, &connector, entries, &e))?;
    options::refuse_unsupported(entries)?;
    let (format, encode) = format_of(&create.format, kind)?;
    let empty = Schema::default();
    let schema = create.schema.as_ref().unwrap_or(&empty);
    check_schema(schema, encode)?;
    let primary_key = primary_key(schema)?;
    check_distinct(all_names(create, schema, kind))?;
    if let Some(name) =
        primary_key.iter().find(|name| !all_names(create, schema, kind).any(|n| n == name.as_str()))
    {
        let text = format!("column \"{name}\" named in key does not exist");
        return Err(Error::new(Code::UndefinedColumn, text));
    }
    let include =
        create.include.iter().map(|item| include(item, kind, encode)).collect::<Result<Vec<Include>>>()?;
    let mut notices = Vec::new();
    let mut encode_options = encode_options(&create.format, formats::OPTIONS_SOURCE, &mut notices)?;
    let on_error = on_error(encode_options.remove("on_error").as_deref(), &create.format.encode.options)?;
    dead_letter(&options, on_error, entries)?;
    if create.format.encode.options.iter().all(|o| o.name != "on_error") && encode == Encode::Json {
        notices.push(
            "records that cannot be decoded are skipped and counted in sys.source_errors; on_error in the ENCODE \
             options can say `fail` or `dead_letter`"
                .to_owned(),
        );
    }
    let columns =
        schema.columns.iter().map(|c| Column { name: c.name.clone(), kind: c.kind.clone() }).collect();
    let spec = SourceSpec {
        id: ObjectId::from_parts(0, 0),
        name: create.name.name.clone(),
        connector,
        options,
        columns,
        include,
        primary_key,
        format: FormatClause { format, encode, options: encode_options, key_encode: None },
        on_error,
        start: Start::all(StartFrom::Horizon),
        creation: Creation(0),
        created_at: Timestamp(0),
        revision: 0,
    };
    let (source, validate) = build(&spec, registry, entries)?;
    Ok(BoundSource { spec, source, notices, validate })
}

/// What the formats and the connector say to the finished spec.
pub(super) fn build(
    spec: &SourceSpec,
    registry: &Registry,
    entries: &[OptionEntry],
) -> Result<(Arc<dyn Source>, bool)> {
    formats::check_source(spec).map_err(|e| Error::new(Code::Protocol, e))?;
    let source = registry.build_source(spec).map_err(|e| options::refused(entries, Code::Config, &e))?;
    check_dead_letter(source_dead_letters(registry, spec), entries)?;
    let validate = spec.options.get("validate").and_then(options::boolean).unwrap_or(true);
    Ok((source, validate))
}

fn accepted(registry: &Registry) -> String {
    format!("connector = one of {}", registry.names().0.join(", "))
}

fn unknown_connector(
    registry: &Registry,
    typed: &str,
    entries: &[OptionEntry],
    error: &connector::OptionError,
) -> Error {
    let place = options::entry(entries, "connector").map(|e| e.place).unwrap_or_default();
    let error = Error::of_option(Code::Config, error).at(place).option("connector");
    match connector::nearest(typed, registry.names().0) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}

/// Which formats the connector has.
fn format_of(clause: &FormatSpec, kind: &SourceKind) -> Result<(Format, Encode)> {
    if clause.key_encode.is_some() {
        let text = "key encode clause is not supported in source schema";
        return Err(Error::new(Code::Protocol, text).at(clause.place));
    }
    if clause.format == "DEBEZIUM" && clause.encode.name == "JSON" {
        let text = "can't CREATE SOURCE with FORMAT DEBEZIUM.\n\nHint: use CREATE TABLE instead";
        return Err(Error::new(Code::Bind, text).at(clause.place));
    }
    let wanted = (format_name(&clause.format), encode_name(&clause.encode.name));
    if let (Some(format), Some(encode)) = wanted
        && kind.formats.contains(&(format, encode))
    {
        return Ok((format, encode));
    }
    let known = wanted.0.is_some_and(|format| kind.formats.iter().any(|(f, _)| *f == format));
    let text = if known {
        format!(
            "connector {} does not support format {} with encode {}",
            kind.name, clause.format, clause.encode.name
        )
    } else {
        format!("connector {} does not support format {}", kind.name, clause.format)
    };
    Err(Error::new(Code::Protocol, text).at(if known { clause.encode.place } else { clause.place }))
}

/// The format of this name, if this release has it.
pub(super) fn format_name(name: &str) -> Option<Format> {
    (name == "PLAIN").then_some(Format::Plain)
}

/// The encoding of this name, if this release has it.
pub(super) fn encode_name(name: &str) -> Option<Encode> {
    match name {
        "JSON" => Some(Encode::Json),
        "BYTES" => Some(Encode::Bytes),
        "TEXT" => Some(Encode::Text),
        _ => None,
    }
}

/// Which columns the encoding takes.
fn check_schema(schema: &Schema, encode: Encode) -> Result<()> {
    if schema.wildcard {
        let text =
            "Wildcard in user-defined schema is only allowed when there exists columns from external schema";
        return Err(Error::new(Code::Bind, text));
    }
    match encode {
        Encode::Json if schema.columns.is_empty() => {
            let text = "Schema definition is required, either from SQL or schema registry.";
            return Err(Error::new(Code::Protocol, text));
        }
        Encode::Bytes if !matches!(schema.columns.as_slice(), [only] if only.kind == SqlType::Bytea) => {
            return Err(Error::new(Code::Protocol, "ENCODE BYTES only accepts one BYTEA type column"));
        }
        _ => {}
    }
    match schema.columns.iter().find(|c| c.not_null) {
        Some(column) => {
            let text = "NOT NULL constraint is not supported in source schema";
            Err(Error::new(Code::Bind, text).at(column.place))
        }
        None => Ok(()),
    }
}

/// At most one key.
fn primary_key(schema: &Schema) -> Result<Vec<String>> {
    let mut keys: Vec<Vec<String>> =
        schema.columns.iter().filter(|c| c.primary_key).map(|c| vec![c.name.clone()]).collect();
    keys.extend(schema.primary_keys.iter().cloned());
    if keys.len() > 1 {
        return Err(Error::new(Code::Bind, "multiple primary keys are not allowed"));
    }
    Ok(keys.pop().unwrap_or_default())
}

/// Every column's name; an `INCLUDE` that does not exist has only its alias.
fn all_names<'a>(
    create: &'a CreateSource,
    schema: &'a Schema,
    kind: &'a SourceKind,
) -> impl Iterator<Item = &'a str> {
    let include = create.include.iter().filter_map(|item| match &item.alias {
        Some(alias) => Some(alias.as_str()),
        None => find_include(&item.kind, kind).map(|(_, name)| name),
    });
    schema.columns.iter().map(|c| c.name.as_str()).chain(include)
}

fn find_include(name: &str, kind: &SourceKind) -> Option<(IncludeKind, &'static str)> {
    kind.include.iter().copied().find(|(include, _)| include_word(*include) == name)
}

fn include_word(kind: IncludeKind) -> &'static str {
    match kind {
        IncludeKind::Key => "key",
        IncludeKind::Partition => "partition",
        IncludeKind::Offset => "offset",
        IncludeKind::Timestamp => "timestamp",
        IncludeKind::Payload => "payload",
    }
}

/// What the connector knows of a record besides its payload.
fn include(item: &IncludeItem, kind: &SourceKind, encode: Encode) -> Result<Include> {
    let Some((include, name)) = find_include(&item.kind, kind) else {
        let known: Vec<&str> = kind.include.iter().map(|(include, _)| include_word(*include)).collect();
        let text = format!(
            "additional column type {} is not supported for connector {}, acceptable column types: {known:?}",
            item.kind, kind.name
        );
        let error = Error::new(Code::Bind, text).at(item.place);
        return Err(match connector::nearest(&item.kind, known) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error,
        });
    };
    if item.inner.is_some() {
        let text = format!("Only header column can have inner field, but got \"{}\"", item.kind);
        return Err(Error::new(Code::Bind, text).at(item.place));
    }
    if include == IncludeKind::Payload && encode != Encode::Json {
        let text = "INCLUDE payload is only allowed when using ENCODE JSON";
        return Err(Error::new(Code::Bind, text).at(item.place));
    }
    let sql = match include {
        IncludeKind::Key => SqlType::Bytea,
        IncludeKind::Partition | IncludeKind::Offset => SqlType::Varchar,
        IncludeKind::Timestamp => SqlType::Timestamptz,
        IncludeKind::Payload => SqlType::Jsonb,
    };
    let name = item.alias.clone().unwrap_or_else(|| name.to_owned());
    Ok(Include { kind: include, column: Column { name, kind: sql } })
}

/// `on_error` of a source; `skip` if nothing is said.
pub(super) fn on_error(value: Option<&str>, entries: &[OptionEntry]) -> Result<OnError> {
    match value {
        None | Some("skip") => Ok(OnError::Skip),
        Some("fail") => Ok(OnError::Fail),
        Some("dead_letter") => Ok(OnError::DeadLetter),
        Some(other) => {
            let error = connector::OptionError::invalid("on_error", "one of skip|fail|dead_letter", other);
            Err(options::refused(entries, Code::Protocol, &error))
        }
    }
}

/// `dead_letter.*` in `WITH` is there if and only if `on_error` asks for it.
pub(super) fn dead_letter(with: &Options, on_error: OnError, entries: &[OptionEntry]) -> Result<()> {
    let mut target = with.under("dead_letter.");
    let connector = target.remove("connector");
    let result = match (connector, on_error) {
        (Some(_), OnError::DeadLetter) => Ok(()),
        (None, OnError::DeadLetter) => Err(Error::new(Code::Config, "missing field `dead_letter.connector`")),
        (Some(_), _) => {
            let text = "dead_letter.connector needs on_error = 'dead_letter' in the ENCODE options";
            Err(Error::new(Code::Config, text))
        }
        (None, _) if !target.is_empty() => Err(Error::new(
            Code::Config,
            "dead_letter.* needs on_error = 'dead_letter' in the ENCODE options",
        )),
        (None, _) => Ok(()),
    };
    result.map_err(|e| options::locate(entries, e))
}
