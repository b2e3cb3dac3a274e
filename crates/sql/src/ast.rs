//! Statements as they were written: names folded, nothing resolved. The binder turns them into specs.

use model::{ObjectKind, SqlType};

pub mod access;

/// Where something stands in the text. Places are not compared: two texts that say the same are equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// From 1; 0 if unknown.
    pub line: u64,
    /// From 1, in characters.
    pub column: u64,
}

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Place {}

/// `[schema.]name`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// The schema, if one was written.
    pub schema: Option<String>,
    /// The name.
    pub name: String,
    /// Where it stands.
    pub place: Place,
}

/// `name = 'value'` of an option list.
#[derive(Clone, PartialEq, Eq)]
pub struct OptionEntry {
    /// The dotted name, as written.
    pub name: String,
    /// The value, as text.
    pub value: String,
    /// Where the name stands.
    pub place: Place,
}

/// Never shows a secret (I9).
impl std::fmt::Debug for OptionEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {}", self.name, crate::print::shown_value(&self.name, &self.value))
    }
}

/// A column of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDef {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: SqlType,
    /// `PRIMARY KEY` behind the type.
    pub primary_key: bool,
    /// `NOT NULL` behind the type.
    pub not_null: bool,
    /// Where it stands.
    pub place: Place,
}

/// `( … )` behind the name of a source.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Schema {
    /// `*` was written.
    pub wildcard: bool,
    /// The columns.
    pub columns: Vec<ColumnDef>,
    /// Each `PRIMARY KEY ( … )`; more than one is refused by the binder.
    pub primary_keys: Vec<Vec<String>>,
}

/// `INCLUDE kind ['inner' [type]] [AS alias]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncludeItem {
    /// `key`, `partition`, …, lower case; synonyms are resolved.
    pub kind: String,
    /// The inner field, for headers.
    pub inner: Option<String>,
    /// The type of the inner field.
    pub inner_kind: Option<SqlType>,
    /// The column's name.
    pub alias: Option<String>,
    /// Where it stands.
    pub place: Place,
}

/// `ENCODE name ( … )`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// `JSON`, `BYTES`, …, upper case.
    pub name: String,
    /// The options in the parentheses.
    pub options: Vec<OptionEntry>,
    /// Where the name stands.
    pub place: Place,
}

/// `FORMAT … ENCODE … [KEY ENCODE …]`; the old `ROW FORMAT` is rewritten to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatSpec {
    /// `PLAIN`, `UPSERT` or `DEBEZIUM`.
    pub format: String,
    /// The value's encoding.
    pub encode: Encoding,
    /// The key's encoding.
    pub key_encode: Option<Encoding>,
    /// Where it begins.
    pub place: Place,
}

/// `CREATE SOURCE`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSource {
    /// `OR REPLACE`; never together with `IF NOT EXISTS`.
    pub or_replace: bool,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// Its name.
    pub name: ObjectName,
    /// The columns, if any were declared.
    pub schema: Option<Schema>,
    /// The metadata columns.
    pub include: Vec<IncludeItem>,
    /// `WITH ( … )`, if written.
    pub options: Option<Vec<OptionEntry>>,
    /// How records become rows.
    pub format: FormatSpec,
}

/// What a sink reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkInput {
    /// `FROM source`
    From(ObjectName),
    /// `AS SELECT …`, in canonical text, and the one relation that it reads.
    Query {
        /// The canonical text.
        text: String,
        /// What stands in `FROM`.
        from: ObjectName,
        /// Where it begins.
        place: Place,
    },
}

/// `CREATE SINK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSink {
    /// `OR REPLACE`; never together with `IF NOT EXISTS`.
    pub or_replace: bool,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// Its name.
    pub name: ObjectName,
    /// What it reads.
    pub input: SinkInput,
    /// `WITH ( … )`
    pub options: Vec<OptionEntry>,
    /// How rows become messages, if written.
    pub format: Option<FormatSpec>,
}

/// `CREATE CREDENTIAL`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateCredential {
    /// `OR REPLACE`
    pub or_replace: bool,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// Its name.
    pub name: ObjectName,
    /// `TYPE`
    pub kind: String,
    /// Where the type stands.
    pub place: Place,
    /// `IDENTITY`, `SECRET` and what `WITH OPTIONS` says, names in lower case.
    pub options: Vec<OptionEntry>,
}

/// What `ALTER SINK` changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkChange {
    /// `PAUSE`
    Pause,
    /// `RESUME`
    Resume,
    /// `SET ( … )`
    Set(Vec<OptionEntry>),
}

/// What `SHOW` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InspectTarget {
    /// `SHOW SOURCES`
    Sources,
    /// `SHOW SINKS`
    Sinks,
    /// `SHOW WORKERS`
    Workers,
    /// `SHOW SPLITS`
    Splits,
    /// `SHOW SCALE`
    Scale,
    /// `SHOW CREDENTIALS`
    Credentials,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// `CREATE SOURCE`
    CreateSource(Box<CreateSource>),
    /// `CREATE SINK`
    CreateSink(Box<CreateSink>),
    /// `EXPLAIN CREATE SINK`
    Explain(Box<CreateSink>),
    /// `DROP SOURCE | SINK`
    Drop {
        /// What kind of object.
        kind: ObjectKind,
        /// `IF EXISTS`
        if_exists: bool,
        /// Its name.
        name: ObjectName,
        /// `CASCADE`; else `RESTRICT`.
        cascade: bool,
    },
    /// `ALTER SOURCE name SET ( … )`
    AlterSource {
        /// Its name.
        name: ObjectName,
        /// The options that change.
        options: Vec<OptionEntry>,
    },
    /// `ALTER SINK name …`
    AlterSink {
        /// Its name.
        name: ObjectName,
        /// What changes.
        change: SinkChange,
    },
    /// `CREATE CREDENTIAL`
    CreateCredential(Box<CreateCredential>),
    /// `ALTER CREDENTIAL name SET PROPERTY …`
    AlterCredential {
        /// Its name.
        name: ObjectName,
        /// What changes, `type` among it.
        changes: Vec<OptionEntry>,
    },
    /// `DROP CREDENTIAL name | *`
    DropCredential {
        /// `IF EXISTS`
        if_exists: bool,
        /// Its name; `None` for all.
        name: Option<ObjectName>,
    },
    /// `SHOW CREDENTIAL name | *`
    ShowCredential {
        /// Its name; `None` for all.
        name: Option<ObjectName>,
    },
    /// `DESCRIBE CREDENTIAL name | *`
    DescribeCredential {
        /// Its name; `None` for all.
        name: Option<ObjectName>,
    },
    /// `SHOW …`
    Show {
        /// What is listed.
        target: InspectTarget,
        /// `FROM name`: a schema for sources and sinks, a source for splits.
        from: Option<ObjectName>,
        /// `LIKE 'pattern'`
        like: Option<String>,
    },
    /// `SHOW CREATE SOURCE | SINK`
    ShowCreate {
        /// What kind of object.
        kind: ObjectKind,
        /// Its name.
        name: ObjectName,
    },
    /// `SHOW ERRORS FOR name`
    ShowErrors {
        /// A source or a sink.
        name: ObjectName,
    },
    /// `REBALANCE`, or with `EXPLAIN` before it what that would do.
    Rebalance {
        /// `EXPLAIN`: nothing is moved.
        explain: bool,
    },
    /// `DESCRIBE name`
    Describe {
        /// The relation or sink.
        name: ObjectName,
    },
    /// Users, roles, grants.
    Access(Box<access::AccessStatement>),
    /// `SELECT …` on the relations of the system.
    Select {
        /// The canonical text.
        text: String,
        /// Every relation that it reads.
        relations: Vec<ObjectName>,
        /// Where it begins.
        place: Place,
    },
}

impl Statement {
    /// What it is and the names that it is about, for whoever tells of it; nothing else that was written.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            // Passwords are masked, and there is nothing else in it but names.
            Self::Access(access) => access.to_string(),
            _ => {
                let tag = if self.or_replace() {
                    self.tag().replacen("CREATE", "CREATE OR REPLACE", 1)
                } else {
                    self.tag().to_owned()
                };
                format!("{tag} {}", self.names().join(", ")).trim_end().to_owned()
            }
        }
    }

    /// Whether it may change what is there.
    fn or_replace(&self) -> bool {
        match self {
            Self::CreateSource(create) => create.or_replace,
            Self::CreateSink(create) => create.or_replace,
            Self::CreateCredential(create) => create.or_replace,
            _ => false,
        }
    }

    fn names(&self) -> Vec<String> {
        let one = |name: &ObjectName| vec![name.to_string()];
        match self {
            Self::CreateSource(create) => one(&create.name),
            Self::CreateSink(create) | Self::Explain(create) => one(&create.name),
            Self::CreateCredential(create) => one(&create.name),
            Self::Drop { name, .. }
            | Self::AlterSource { name, .. }
            | Self::AlterSink { name, .. }
            | Self::AlterCredential { name, .. }
            | Self::ShowCreate { name, .. }
            | Self::ShowErrors { name }
            | Self::Describe { name } => one(name),
            Self::DropCredential { name, .. }
            | Self::ShowCredential { name }
            | Self::DescribeCredential { name } => {
                vec![name.as_ref().map_or("*".to_owned(), ToString::to_string)]
            }
            Self::Show { target, .. } => vec![format!("{target:?}").to_uppercase()],
            Self::Rebalance { .. } | Self::Access(_) => Vec::new(),
            Self::Select { relations, .. } => relations.iter().map(ToString::to_string).collect(),
        }
    }

    /// The tag of the answer, as psql prints it.
    #[must_use]
    pub fn tag(&self) -> &'static str {
        match self {
            Self::CreateSource(_) => "CREATE SOURCE",
            Self::CreateSink(_) => "CREATE SINK",
            Self::Explain(_) | Self::Rebalance { explain: true } => "EXPLAIN",
            Self::Rebalance { explain: false } => "REBALANCE",
            Self::Drop { kind: ObjectKind::Source, .. } => "DROP SOURCE",
            Self::Drop { kind: ObjectKind::Sink, .. } => "DROP SINK",
            Self::Drop { kind: ObjectKind::Credential, .. } | Self::DropCredential { .. } => {
                "DROP CREDENTIAL"
            }
            Self::CreateCredential(_) => "CREATE CREDENTIAL",
            Self::AlterCredential { .. } => "ALTER CREDENTIAL",
            Self::AlterSource { .. } => "ALTER SOURCE",
            Self::AlterSink { .. } => "ALTER SINK",
            Self::Show { .. }
            | Self::ShowCreate { .. }
            | Self::ShowErrors { .. }
            | Self::ShowCredential { .. } => "SHOW",
            Self::Describe { .. } | Self::DescribeCredential { .. } => "DESCRIBE",
            Self::Access(access) => access.tag(),
            Self::Select { .. } => "SELECT",
        }
    }
}
