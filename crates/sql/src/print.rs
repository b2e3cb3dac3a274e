//! Statements back to text, in one canonical form: keywords upper case, one blank between words, options as
//! `name = 'value'`, no trailing commas. Secrets are printed as `********` (I9), so a printed statement can be shown to
//! anybody; what parses from it is the same statement except for them.

use std::fmt::{self, Write as _};

use model::{
    Column, Encode, Field, Format, FormatClause, ObjectKind, OnError, Options, SinkSpec, SourceSpec, SqlType,
};

use crate::{
    CreateSink, CreateSource, FormatSpec, IncludeItem, InspectTarget, OptionEntry, SinkChange, SinkInput,
    Statement, ast::Schema, credential,
};

/// Words that mean something where a name may stand; as names they are quoted.
const RESERVED: &[&str] = &[
    "all",
    "and",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "cast",
    "cross",
    "delimited",
    "desc",
    "distinct",
    "else",
    "end",
    "exists",
    "false",
    "for",
    "format",
    "from",
    "full",
    "group",
    "having",
    "if",
    "in",
    "include",
    "inner",
    "interval",
    "is",
    "join",
    "key",
    "left",
    "like",
    "limit",
    "map",
    "natural",
    "not",
    "null",
    "offset",
    "on",
    "or",
    "order",
    "outer",
    "primary",
    "right",
    "row",
    "secret",
    "select",
    "sequence",
    "set",
    "shard",
    "struct",
    "then",
    "true",
    "union",
    "using",
    "when",
    "where",
    "window",
    "with",
    "array",
    "current_date",
    "current_time",
    "current_timestamp",
    "time",
    "timestamp",
    "date",
    "values",
    "table",
    "lateral",
    "any",
    "some",
    "position",
    "extract",
    "substring",
    "trim",
    "fetch",
    "qualify",
    "localtime",
    "localtimestamp",
    "current_user",
    "session_user",
    "user",
    "double",
    "float",
    "int",
    "except",
    "intersect",
];

/// A name, quoted where it must be.
pub(crate) fn ident(name: &str) -> String {
    let mut chars = name.chars();
    let bare = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !RESERVED.contains(&name);
    if bare { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The value of an option as it may be shown.
pub(crate) fn shown_value(name: &str, value: &str) -> String {
    format!("'{}'", model::shown_value(name, value).replace('\'', "''"))
}

/// A dotted option name; its case is kept.
fn option_name(name: &str) -> String {
    let part = |part: &str| {
        let mut chars = part.chars();
        let bare = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
        if bare { part.to_owned() } else { format!("\"{}\"", part.replace('"', "\"\"")) }
    };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

fn option_list(options: &[OptionEntry]) -> String {
    let shown: Vec<String> = options
        .iter()
        .map(|o| format!("{} = {}", option_name(&o.name), shown_value(&o.name, &o.value)))
        .collect();
    format!("({})", shown.join(", "))
}

/// The type in the spelling of the parser: `INT`, `CHARACTER VARYING`.
pub(crate) fn type_name(kind: &SqlType) -> String {
    match kind {
        SqlType::Integer => "INT".to_owned(),
        SqlType::Time => "TIME".to_owned(),
        SqlType::Timestamp => "TIMESTAMP".to_owned(),
        SqlType::List(item) => format!("{}[]", type_name(item)),
        SqlType::Map(key, value) => format!("MAP({}, {})", type_name(key), type_name(value)),
        SqlType::Struct(fields) => {
            let field = |f: &Field| format!("{} {}", ident(&f.name), type_name(&f.kind));
            format!("STRUCT<{}>", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string().to_ascii_uppercase(),
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut items: Vec<String> = Vec::new();
        if self.wildcard {
            items.push("*".to_owned());
        }
        for column in &self.columns {
            let mut item = format!("{} {}", ident(&column.name), type_name(&column.kind));
            if column.primary_key {
                item.push_str(" PRIMARY KEY");
            }
            if column.not_null {
                item.push_str(" NOT NULL");
            }
            items.push(item);
        }
        for key in &self.primary_keys {
            let names: Vec<String> = key.iter().map(|name| ident(name)).collect();
            items.push(format!("PRIMARY KEY ({})", names.join(", ")));
        }
        write!(f, "({})", items.join(", "))
    }
}

impl fmt::Display for IncludeItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = ["key", "partition", "offset", "timestamp", "payload", "header", "file"];
        let kind = if known.contains(&self.kind.as_str()) {
            self.kind.to_ascii_uppercase()
        } else {
            ident(&self.kind)
        };
        write!(f, "INCLUDE {kind}")?;
        if let Some(inner) = &self.inner {
            write!(f, " '{}'", inner.replace('\'', "''"))?;
        }
        if let Some(kind) = &self.inner_kind {
            write!(f, " {}", type_name(kind))?;
        }
        match &self.alias {
            Some(alias) => write!(f, " AS {}", ident(alias)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for FormatSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |e: &crate::Encoding| match e.options.is_empty() {
            true => e.name.clone(),
            false => format!("{} {}", e.name, option_list(&e.options)),
        };
        write!(f, "FORMAT {} ENCODE {}", self.format, encode(&self.encode))?;
        match &self.key_encode {
            Some(key) => write!(f, " KEY ENCODE {}", encode(key)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for CreateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replace = if self.or_replace { "OR REPLACE " } else { "" };
        let clause = if self.if_not_exists { "IF NOT EXISTS " } else { "" };
        write!(f, "CREATE {replace}SOURCE {clause}{}", self.name)?;
        if let Some(schema) = &self.schema {
            write!(f, " {schema}")?;
        }
        for item in &self.include {
            write!(f, " {item}")?;
        }
        if let Some(options) = &self.options {
            write!(f, " WITH {}", option_list(options))?;
        }
        write!(f, " {}", self.format)
    }
}

impl fmt::Display for CreateSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replace = if self.or_replace { "OR REPLACE " } else { "" };
        let clause = if self.if_not_exists { "IF NOT EXISTS " } else { "" };
        write!(f, "CREATE {replace}SINK {clause}{}", self.name)?;
        match &self.input {
            SinkInput::From(name) => write!(f, " FROM {name}")?,
            SinkInput::Query { text, .. } => write!(f, " AS {text}")?,
        }
        write!(f, " WITH {}", option_list(&self.options))?;
        match &self.format {
            Some(format) => write!(f, " {format}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateSource(create) => create.fmt(f),
            Self::CreateSink(create) => create.fmt(f),
            Self::Explain(create) => write!(f, "EXPLAIN {create}"),
            Self::Drop { kind, if_exists, name, cascade } => {
                let clause = if *if_exists { "IF EXISTS " } else { "" };
                let tail = if *cascade { " CASCADE" } else { "" };
                write!(f, "DROP {} {clause}{name}{tail}", word(*kind))
            }
            Self::AlterSource { name, options } => {
                write!(f, "ALTER SOURCE {name} SET {}", option_list(options))
            }
            Self::AlterSink { name, change } => match change {
                SinkChange::Pause => write!(f, "ALTER SINK {name} PAUSE"),
                SinkChange::Resume => write!(f, "ALTER SINK {name} RESUME"),
                SinkChange::Set(options) => write!(f, "ALTER SINK {name} SET {}", option_list(options)),
            },
            Self::CreateCredential(create) => f.write_str(&credential::create_text(create)),
            Self::AlterCredential { name, changes } => f.write_str(&credential::alter_text(name, changes)),
            Self::DropCredential { if_exists, name } => {
                let clause = if *if_exists { "IF EXISTS " } else { "" };
                write!(f, "DROP CREDENTIAL {clause}{}", credential::one_or_all_text(name.as_ref()))
            }
            Self::ShowCredential { name } => {
                write!(f, "SHOW CREDENTIAL {}", credential::one_or_all_text(name.as_ref()))
            }
            Self::DescribeCredential { name } => {
                write!(f, "DESCRIBE CREDENTIAL {}", credential::one_or_all_text(name.as_ref()))
            }
            Self::Show { target, from, like } => {
                let target = match target {
                    InspectTarget::Sources => "SOURCES",
                    InspectTarget::Sinks => "SINKS",
                    InspectTarget::Workers => "WORKERS",
                    InspectTarget::Splits => "SPLITS",
                    InspectTarget::Scale => "SCALE",
                    InspectTarget::Credentials => "CREDENTIALS",
                };
                write!(f, "SHOW {target}")?;
                if let Some(from) = from {
                    write!(f, " FROM {from}")?;
                }
                match like {
                    Some(pattern) => write!(f, " LIKE '{}'", pattern.replace('\'', "''")),
                    None => Ok(()),
                }
            }
            Self::ShowCreate { kind, name } => write!(f, "SHOW CREATE {} {name}", word(*kind)),
            Self::ShowErrors { name } => write!(f, "SHOW ERRORS FOR {name}"),
            Self::Rebalance { explain: true } => f.write_str("EXPLAIN REBALANCE"),
            Self::Rebalance { explain: false } => f.write_str("REBALANCE"),
            Self::Describe { name } => write!(f, "DESCRIBE {name}"),
            Self::Access(access) => access.fmt(f),
            Self::Select { text, .. } => f.write_str(text),
        }
    }
}

fn word(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Source => "SOURCE",
        ObjectKind::Sink => "SINK",
        ObjectKind::Credential => "CREDENTIAL",
    }
}

/// The statement that makes this source, secrets masked.
#[must_use]
pub fn source_ddl(spec: &SourceSpec) -> String {
    let mut ddl = format!("CREATE SOURCE {}", ident(&spec.name));
    let mut items: Vec<String> =
        spec.columns.iter().map(|c: &Column| format!("{} {}", ident(&c.name), type_name(&c.kind))).collect();
    if !spec.primary_key.is_empty() {
        items.push(format!("PRIMARY KEY ({})", names(&spec.primary_key)));
    }
    if !items.is_empty() {
        _ = write!(ddl, " ({})", items.join(", "));
    }
    for include in &spec.include {
        let kind = format!("{:?}", include.kind).to_ascii_uppercase();
        _ = write!(ddl, " INCLUDE {kind} AS {}", ident(&include.column.name));
    }
    let options = std::iter::once(("connector", spec.connector.as_str())).chain(spec.options.iter());
    _ = write!(ddl, " WITH {}", option_list(&entries(options)));
    let mut format = spec.format.clone();
    match spec.on_error {
        OnError::Skip => {}
        OnError::Fail => _ = format.options.insert("on_error", "fail"),
        OnError::DeadLetter => _ = format.options.insert("on_error", "dead_letter"),
    }
    _ = write!(ddl, " {}", format_clause(&format));
    ddl
}

/// The statement that makes this sink, secrets masked.
#[must_use]
pub fn sink_ddl(spec: &SinkSpec) -> String {
    let mut ddl = format!("CREATE SINK {}", ident(&spec.name));
    match &spec.query {
        Some(query) => _ = write!(ddl, " AS {query}"),
        None => _ = write!(ddl, " FROM {}", ident(&spec.source_name)),
    }
    let key = spec.primary_key.join(",");
    let distribution = crate::bind::distribution_text(&spec.distribution);
    let options = std::iter::once(("connector", spec.connector.as_str()))
        .chain(spec.options.iter())
        .chain((!key.is_empty()).then_some(("primary_key", key.as_str())))
        .chain(distribution.as_deref().map(|text| ("distribution", text)));
    _ = write!(ddl, " WITH {}", option_list(&entries(options)));
    if let Some(format) = &spec.format {
        _ = write!(ddl, " {}", format_clause(format));
    }
    ddl
}

fn names(list: &[String]) -> String {
    list.iter().map(|name| ident(name)).collect::<Vec<_>>().join(", ")
}

fn entries<'a>(options: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<OptionEntry> {
    options
        .map(|(name, value)| OptionEntry {
            name: name.to_owned(),
            value: value.to_owned(),
            place: crate::Place::default(),
        })
        .collect()
}

fn format_clause(clause: &FormatClause) -> String {
    let format = match clause.format {
        Format::Plain => "PLAIN",
    };
    let list = |options: &Options| match options.is_empty() {
        true => String::new(),
        false => format!(" {}", option_list(&entries(options.iter()))),
    };
    let mut text = format!("FORMAT {format} ENCODE {}{}", encode_word(clause.encode), list(&clause.options));
    if let Some(key) = clause.key_encode {
        _ = write!(text, " KEY ENCODE {}", encode_word(key));
    }
    text
}

pub(crate) fn encode_word(encode: Encode) -> &'static str {
    match encode {
        Encode::Json => "JSON",
        Encode::Bytes => "BYTES",
        Encode::Text => "TEXT",
    }
}

/// True when the type's printed form parses to the same type.
#[cfg(test)]
fn prints_back(kind: &SqlType) -> bool {
    crate::data_type(&type_name(kind)).as_ref() == Ok(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_printed_as_stars() {
        let text = "CREATE SINK s FROM t WITH (connector = 'k', aws.credentials.secret_access_key = 'hunter2', \
                    endpoint = 'http://u:hunter2@h:1')";
        let statement = crate::parse(text).unwrap().remove(0).statement;
        let printed = statement.to_string();
        assert!(!printed.contains("hunter2"), "{printed}");
        assert!(printed.contains("aws.credentials.secret_access_key = '********'"), "{printed}");
        assert!(!format!("{statement:?}").contains("hunter2"));
    }

    #[test]
    fn reserved_and_odd_names_are_quoted() {
        assert_eq!(ident("clicks"), "clicks");
        assert_eq!(ident("primary"), "\"primary\"");
        assert_eq!(ident("Two Words"), "\"Two Words\"");
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
    }

    #[test]
    fn types_print_in_the_parsers_spelling() {
        let kind =
            crate::data_type("struct<a int, b timestamptz[], \"C\" map(varchar, double precision)>").unwrap();
        assert_eq!(
            type_name(&kind),
            "STRUCT<a INT, b TIMESTAMP WITH TIME ZONE[], \"C\" MAP(CHARACTER VARYING, DOUBLE PRECISION)>"
        );
        assert!(prints_back(&kind));
    }
}
