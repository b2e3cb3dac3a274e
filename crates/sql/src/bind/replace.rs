//! `CREATE OR REPLACE`: whether a definition may take the place of the one that is there, and what it changes. What was
//! delivered stays delivered (I1, I4): positions are kept, so everything that they rest on must be the same. For a source that is
//! which stream it reads and where it begins, for a sink its source, its key and its distribution (I10).
//!
//! A definition that says the same as the one that is there changes nothing, so that a text may be applied again and again.

use std::collections::BTreeMap;

use connector::{OptionDef, Registry};
use model::{Column, Distribution, MASK, Options, SinkSpec, SourceSpec, is_secret_option, shown_value};

use super::{
    alter::FIXED_SOURCE,
    check_distinct, distribution,
    sink::{self, check_named},
};
use crate::{
    Code, CreateSink, CreateSource, Error, ObjectName, OptionEntry, Place, Projection, Result,
    print::encode_word,
};

/// A definition that takes the place of another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replacement<S> {
    /// The new definition of the same object. Its revision is the leader's to raise.
    pub spec: S,
    /// What is not as it was, in words, without values.
    pub changes: Vec<String>,
    /// What the user should know besides.
    pub notices: Vec<String>,
}

/// Which stream a source reads; besides what `ALTER` calls fixed. Another address or region may be another stream.
const STREAM: &[&str] = &["aws.region", "endpoint"];

/// Something that must stay and would not.
struct Difference {
    what: String,
    from: String,
    to: String,
    place: Place,
    option: Option<String>,
}

impl Difference {
    fn new(what: &str, from: &str, to: &str) -> Self {
        let (what, from, to) = (what.to_owned(), from.to_owned(), to.to_owned());
        Self { what, from, to, place: Place::default(), option: None }
    }

    /// At the option of this name, if it was written.
    fn at_option(self, entries: &[OptionEntry], is: impl Fn(&str) -> bool) -> Self {
        match entries.iter().find(|entry| is(&entry.name)) {
            Some(entry) => Self { place: entry.place, option: Some(entry.name.clone()), ..self },
            None => self,
        }
    }
}

/// The refusal: what would differ, all of it, and the way out.
fn refused(kind: &str, name: &ObjectName, found: &[Difference], hint: String) -> Error {
    let words: Vec<String> =
        found.iter().map(|d| format!("{} would change from {} to {}", d.what, d.from, d.to)).collect();
    let text = format!("{kind} \"{}\" cannot be replaced: {}", name.name, words.join(", "));
    let place = found.iter().map(|d| d.place).find(|place| place.line > 0).unwrap_or(name.place);
    let error = Error::new(Code::Bind, text).at(place).hint(hint);
    match found.iter().find_map(|d| d.option.clone()) {
        Some(option) => error.option(option),
        None => error,
    }
}

/// What the new definition of a source makes of the one that is there; `None` if it says the same.
///
/// # Errors
/// It would read something else, or begin elsewhere.
pub fn replace_source(
    old: &SourceSpec,
    create: &CreateSource,
    new: SourceSpec,
    registry: &Registry,
) -> Result<Option<Replacement<SourceSpec>>> {
    let entries = create.options.as_deref().unwrap_or_default();
    let defs = |connector: &str| registry.source(connector).map_or(&[][..], |kind| kind.options);
    let (before, after) =
        (canonical(&old.options, defs(&old.connector)), canonical(&new.options, defs(&new.connector)));
    let found = stream_differences(old, &new, (&before, &after), (entries, defs(&new.connector)));
    if !found.is_empty() {
        let hint = source_way_out(&old.name, &found);
        return Err(refused("source", &create.name, &found, hint));
    }
    let mut changes = changed_parts(&[
        ("columns", old.columns != new.columns),
        ("primary key", old.primary_key != new.primary_key),
        ("INCLUDE", old.include != new.include),
        ("format", old.format != new.format),
        ("on_error", old.on_error != new.on_error),
    ]);
    changes.extend(changed_options(&before, &after));
    if changes.is_empty() {
        return Ok(None);
    }
    refuse_masks(entries.iter().chain(&create.format.encode.options))?;
    let spec = SourceSpec {
        id: old.id,
        start: old.start.clone(),
        creation: old.creation,
        created_at: old.created_at,
        revision: old.revision,
        ..new
    };
    Ok(Some(Replacement { spec, changes, notices: Vec::new() }))
}

fn stream_differences(
    old: &SourceSpec,
    new: &SourceSpec,
    (before, after): (&Canonical<'_>, &Canonical<'_>),
    (entries, defs): (&[OptionEntry], &[OptionDef]),
) -> Vec<Difference> {
    if old.connector != new.connector {
        let found = Difference::new("its connector", &old.connector, &new.connector);
        return vec![found.at_option(entries, |name| name == "connector")];
    }
    let is_fixed =
        |name: &str| FIXED_SOURCE.contains(&name) || STREAM.contains(&name) || name.contains("scan.startup.");
    let names = before.keys().chain(after.keys()).filter(|name| is_fixed(name));
    let mut names: Vec<&str> = names.copied().collect();
    names.sort_unstable();
    names.dedup();
    let value = |options: &Canonical<'_>, name: &str| {
        let default = || defs.iter().find(|def| def.name == name).and_then(|def| def.default);
        let given = options.get(name).copied().filter(|value| !value.is_empty());
        given.or_else(default).map(str::to_owned)
    };
    let shown = |name: &str, value: &Option<String>| match value {
        Some(value) => format!("'{}'", shown_value(name, value)),
        None => "nothing".to_owned(),
    };
    let differs = |name: &&str| value(before, name) != value(after, name);
    let difference = |name: &str| {
        let (from, to) = (shown(name, &value(before, name)), shown(name, &value(after, name)));
        let found = Difference::new(&format!("its `{name}`"), &from, &to);
        let found = found.at_option(entries, |given| canonical_name(given, defs) == name);
        Difference { option: found.option.or_else(|| Some(name.to_owned())), ..found }
    };
    names.into_iter().filter(differs).map(difference).collect()
}

fn source_way_out(name: &str, found: &[Difference]) -> String {
    let movable = |d: &Difference| STREAM.iter().any(|option| d.what == format!("its `{option}`"));
    if found.iter().all(movable) {
        return format!(
            "ALTER SOURCE {name} SET (…) changes it if the same stream is found there; \
             CREATE OR REPLACE keeps the positions and does not go elsewhere"
        );
    }
    "positions belong to the stream and to where the source began: create a source of another name, or drop this one and \
     create it again"
        .to_owned()
}

/// What the new definition of a sink makes of the one that is there; `None` if it says the same. Both read `source`, as it is
/// now, if they read the same one.
///
/// # Errors
/// It would read another source, or change its key or its distribution.
pub fn replace_sink(
    old: &SinkSpec,
    create: &CreateSink,
    new: SinkSpec,
    (source, registry): (&SourceSpec, &Registry),
) -> Result<Option<Replacement<SinkSpec>>> {
    let entries = create.options.as_slice();
    let found = sink_differences(old, &new, source, create);
    if !found.is_empty() {
        let hint = sink_way_out(old, &new, &found);
        return Err(refused("sink", &create.name, &found, hint));
    }
    let defs = |connector: &str| registry.sink(connector).map_or(&[][..], |kind| kind.options);
    let (before, after) =
        (canonical(&old.options, defs(&old.connector)), canonical(&new.options, defs(&new.connector)));
    let elsewhere = old.connector != new.connector;
    let mut changes = changed_parts(&[
        ("connector", elsewhere),
        ("query", old.query != new.query),
        ("columns", old.query == new.query && old.columns != new.columns),
        ("format", old.format != new.format),
    ]);
    changes.extend(changed_options(&before, &after));
    if changes.is_empty() {
        return Ok(None);
    }
    refuse_masks(entries.iter().chain(create.format.iter().flat_map(|format| &format.encode.options)))?;
    let notices = elsewhere.then(|| {
        format!(
            "the positions of sink \"{}\" say what {} has got: {} gets what comes after that, and nothing from before",
            old.name, old.connector, new.connector
        )
    });
    let spec = SinkSpec {
        id: old.id,
        paused: old.paused,
        created_at: old.created_at,
        revision: old.revision,
        // Whatever a destination remembers of earlier positions is void once others were written elsewhere.
        instance: old.instance + u64::from(elsewhere),
        ..new
    };
    Ok(Some(Replacement { spec, changes, notices: notices.into_iter().collect() }))
}

fn sink_differences(
    old: &SinkSpec,
    new: &SinkSpec,
    source: &SourceSpec,
    create: &CreateSink,
) -> Vec<Difference> {
    let entries = create.options.as_slice();
    if old.source != new.source {
        let (crate::SinkInput::From(from) | crate::SinkInput::Query { from, .. }) = &create.input;
        let found = Difference::new("its source", &quoted(&old.source_name), &quoted(&new.source_name));
        return vec![Difference { place: from.place, ..found }];
    }
    let mut found = Vec::new();
    let (from, to) = (key_text(old), key_text(new));
    if from != to {
        found.push(Difference::new("its key", &from, &to).at_option(entries, |name| name == "primary_key"));
    }
    if old.distribution != new.distribution {
        let text = |spec: &SinkSpec| {
            format!("'{}'", distribution::print(&spec.distribution).unwrap_or_else(|| "split".to_owned()))
        };
        let difference = Difference::new("its `distribution`", &text(old), &text(new));
        found.push(difference.at_option(entries, |name| name == "distribution"));
    }
    if found.is_empty() {
        let place = match &create.input {
            crate::SinkInput::From(from) => from.place,
            crate::SinkInput::Query { place, .. } => *place,
        };
        let made_of = key_columns(old).filter_map(|name| key_column(old, new, source, name));
        found.extend(made_of.map(|difference| Difference { place, ..difference }));
    }
    found
}

/// The columns that decide about order: those of the key, and those by which rows find their writer.
fn key_columns(spec: &SinkSpec) -> impl Iterator<Item = &String> {
    let by = match &spec.distribution {
        Distribution::Key { columns, .. } => columns.as_slice(),
        Distribution::Split => &[],
    };
    let more = by.iter().filter(|name| !spec.primary_key.contains(name));
    spec.primary_key.iter().chain(more)
}

/// What became of a column of the key: its type, or what it is made of.
fn key_column(old: &SinkSpec, new: &SinkSpec, source: &SourceSpec, name: &str) -> Option<Difference> {
    let (before, after) = (column(&old.columns, name)?, column(&new.columns, name)?);
    let what = format!("column \"{name}\" of its key");
    if before.kind != after.kind {
        return Some(Difference::new(&what, &before.kind.to_string(), &after.kind.to_string()));
    }
    if old.query == new.query {
        return None;
    }
    let (from, to) = (origin(old, source, name), origin(new, source, name));
    (from != to).then(|| Difference::new(&what, &format!("`{from}`"), &format!("`{to}`")))
}

/// What a column of a sink is made of.
fn origin(sink: &SinkSpec, source: &SourceSpec, name: &str) -> String {
    let Some(query) = &sink.query else { return name.to_owned() };
    let columns: Vec<Column> = source.all_columns().cloned().collect();
    let compiled = Projection::compile(query, &columns).ok();
    compiled.and_then(|query| query.origin(name).map(str::to_owned)).unwrap_or_default()
}

/// The key as messages show it.
fn key_text(spec: &SinkSpec) -> String {
    let key = match spec.primary_key.as_slice() {
        [] => "none".to_owned(),
        names => format!("'{}'", names.join(", ")),
    };
    match spec.format.as_ref().and_then(|format| format.key_encode) {
        Some(encode) => format!("{key} KEY ENCODE {}", encode_word(encode)),
        None => key,
    }
}

fn sink_way_out(old: &SinkSpec, new: &SinkSpec, found: &[Difference]) -> String {
    if let [only] = found
        && only.what == "its `distribution`"
    {
        let to = distribution::print(&new.distribution).unwrap_or_else(|| "split".to_owned());
        return format!(
            "ALTER SINK {} SET (distribution = '{to}') changes it and keeps the positions",
            crate::print::ident(&old.name)
        );
    }
    "create a sink of another name, or drop this one and create it again: then it begins where its source began".to_owned()
}

/// A sink on a source whose columns are other ones now; `None` if it delivers what it did.
///
/// # Errors
/// It cannot be read from them, or its key would be another one.
pub fn rebind_sink(sink: &SinkSpec, source: &SourceSpec, registry: &Registry) -> Result<Option<SinkSpec>> {
    let input: Vec<Column> = source.all_columns().cloned().collect();
    let columns = match &sink.query {
        None => input,
        Some(query) => Projection::compile(query, &input).map_err(|e| dependent(sink, e))?.columns().to_vec(),
    };
    if columns == sink.columns {
        return Ok(None);
    }
    for name in key_columns(sink) {
        let wrong = |code, text: String| dependent(sink, Error::new(code, text));
        let Some(now) = column(&columns, name) else {
            return Err(wrong(Code::UndefinedColumn, format!("column \"{name}\" of its key does not exist")));
        };
        if let Some(before) = column(&sink.columns, name)
            && before.kind != now.kind
        {
            let text =
                format!("column \"{name}\" of its key would change from {} to {}", before.kind, now.kind);
            return Err(wrong(Code::Bind, text));
        }
    }
    check_distinct(columns.iter().map(|c| c.name.as_str())).map_err(|e| dependent(sink, e))?;
    check_named(&columns, sink.format.as_ref()).map_err(|e| dependent(sink, e))?;
    let changed = SinkSpec { columns, ..sink.clone() };
    sink::build(&changed, registry, &[]).map_err(|e| dependent(sink, e))?;
    Ok(Some(changed))
}

/// Why a sink is in the way.
fn dependent(sink: &SinkSpec, error: Error) -> Error {
    let text = error.message.strip_prefix(error.code.prefix()).unwrap_or(&error.message);
    let said = format!("sink \"{}\" reads source \"{}\": {text}", sink.name, sink.source_name);
    Error::new(error.code, said)
        .hint("replace the sink before by one that does without, or drop it; the source stays as it was")
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

fn column<'a>(columns: &'a [Column], name: &str) -> Option<&'a Column> {
    columns.iter().find(|column| column.name == name)
}

/// Options by the names that the connector gives them.
type Canonical<'a> = BTreeMap<&'a str, &'a str>;

fn canonical<'a>(options: &'a Options, defs: &[OptionDef]) -> Canonical<'a> {
    options.iter().map(|(name, value)| (canonical_name(name, defs), value)).collect()
}

fn canonical_name<'a>(name: &'a str, defs: &[OptionDef]) -> &'a str {
    defs.iter().find(|def| def.aliases.contains(&name)).map_or(name, |def| def.name)
}

fn changed_parts(parts: &[(&str, bool)]) -> Vec<String> {
    parts.iter().filter(|(_, differs)| *differs).map(|(what, _)| (*what).to_owned()).collect()
}

fn changed_options(before: &Canonical<'_>, after: &Canonical<'_>) -> Vec<String> {
    let mut names: Vec<&str> = before.keys().chain(after.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| before.get(name) != after.get(name));
    names.into_iter().map(|name| format!("`{name}`")).collect()
}

/// Whoever edits what `SHOW CREATE` shows would make the stars the secret.
fn refuse_masks<'a>(entries: impl Iterator<Item = &'a OptionEntry>) -> Result<()> {
    let mut masked = entries.filter(|entry| entry.value == MASK && is_secret_option(&entry.name));
    match masked.next() {
        Some(entry) => {
            let text = format!("`{}` is what a secret is shown as", entry.value);
            Err(Error::new(Code::Config, text)
                .at(entry.place)
                .option(&entry.name)
                .hint("write the secret itself, or keep it in a credential: WITH (credential = '…')"))
        }
        None => Ok(()),
    }
}
