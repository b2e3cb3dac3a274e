//! `ALTER … SET ( … )`: options of a spec replaced, and the whole checked again.

use connector::{OptionDef, Registry};
use model::{CREDENTIAL, OnError, Options, SinkSpec, SourceSpec};

use super::{distribution::distribution, options, sink, source};
use crate::{Code, Error, OptionEntry, Result};

/// What of a source is fixed when it is created: which stream it is, where its first listing began, and what its sinks have
/// registered outside.
pub(super) const FIXED_SOURCE: &[&str] = &[
    "connector",
    "stream",
    "kinesis.stream.name",
    "stream.arn",
    "kinesis.consumer.mode",
    "kinesis.consumer.name",
    "kinesis.consumer.arn",
];

/// What of a sink is fixed when it is created: what its rows and its order are.
const FIXED_SINK: &[&str] = &["connector", "primary_key", "type", "force_append_only", "snapshot"];

/// The source with these options replaced. The revision is the leader's to raise.
///
/// # Errors
/// An option that is fixed, unknown or wrong.
pub fn alter_source(spec: &SourceSpec, changes: &[OptionEntry], registry: &Registry) -> Result<SourceSpec> {
    let mut changed = spec.clone();
    let kind = registry.source(&spec.connector).map_err(|e| Error::of_option(Code::Config, &e))?;
    options::refuse_unsupported(changes)?;
    let collected = options::collect(changes)?;
    for entry in changes {
        if FIXED_SOURCE.contains(&entry.name.as_str()) || entry.name.contains("scan.startup.") {
            return Err(fixed("source", entry));
        }
    }
    let mut plain = collected;
    if let Some(value) = plain.remove("on_error") {
        changed.on_error = source::on_error(Some(&value), changes)?;
    }
    one_identity(&mut changed.options, &plain, kind.options, registry);
    merge(&mut changed.options, &plain, kind.options);
    leave_dead_letters(&mut changed.options, changed.on_error, changes);
    source::dead_letter(&changed.options, changed.on_error, changes)?;
    source::build(&changed, registry, changes)?;
    Ok(changed)
}

/// The sink with these options replaced. The revision is the leader's to raise.
///
/// # Errors
/// An option that is fixed, unknown or wrong.
pub fn alter_sink(spec: &SinkSpec, changes: &[OptionEntry], registry: &Registry) -> Result<SinkSpec> {
    let mut changed = spec.clone();
    let kind = registry.sink(&spec.connector).map_err(|e| Error::of_option(Code::Config, &e))?;
    options::refuse_unsupported(changes)?;
    let collected = options::collect(changes)?;
    if let Some(entry) = changes.iter().find(|entry| FIXED_SINK.contains(&entry.name.as_str())) {
        return Err(fixed("sink", entry));
    }
    let mut plain = collected;
    if let Some(text) = plain.remove("distribution") {
        let rows = (changed.columns.as_slice(), changed.primary_key.as_slice());
        changed.distribution = distribution(Some(&text), kind, rows, changes)?;
    }
    one_identity(&mut changed.options, &plain, kind.options, registry);
    merge(&mut changed.options, &plain, kind.options);
    if let Some(on_error) = plain.get("on_error") {
        let on_error = if on_error == "dead_letter" { OnError::DeadLetter } else { OnError::Skip };
        leave_dead_letters(&mut changed.options, on_error, changes);
    }
    let (_, common) = sink::build(&changed, registry, changes)?;
    changed.on_error = common.on_error;
    Ok(changed)
}

/// What `on_error = 'dead_letter'` needed goes with it, unless the statement itself says some of it.
fn leave_dead_letters(options: &mut Options, on_error: OnError, changes: &[OptionEntry]) {
    let ours = |name: &str| name.starts_with("dead_letter.");
    if on_error == OnError::DeadLetter
        || !changes.iter().any(|entry| entry.name == "on_error")
        || changes.iter().any(|entry| ours(&entry.name))
    {
        return;
    }
    *options = options.iter().filter(|(name, _)| !ours(name)).collect();
}

fn fixed(kind: &str, entry: &OptionEntry) -> Error {
    Error::new(Code::Bind, format!("option `{}` of a {kind} cannot be changed", entry.name))
        .at(entry.place)
        .option(&entry.name)
        .hint(format!("drop the {kind} and create it again"))
}

/// A credential takes the place of the options that it stands for, and the other way round: nobody can take an option back.
fn one_identity(options: &mut Options, changes: &Options, defs: &[OptionDef], registry: &Registry) {
    let def = |name: &str| defs.iter().find(|def| def.name == name || def.aliases.contains(&name));
    let replaced = |name: &str, credential: &str| {
        let kind = registry.kind_of(credential);
        kind.zip(def(name)).is_some_and(|(kind, def)| kind.replaces(def))
    };
    if let Some(credential) = changes.get(CREDENTIAL) {
        let gone: Vec<String> = options
            .iter()
            .map(|(name, _)| name.to_owned())
            .filter(|name| replaced(name, credential) && changes.get(name).is_none())
            .collect();
        gone.iter().for_each(|name| drop(options.remove(name)));
    } else if let Some(credential) = options.get(CREDENTIAL)
        && changes.iter().any(|(name, _)| replaced(name, credential))
    {
        options.remove(CREDENTIAL);
    }
}

/// Puts the changes over what is there; an alias replaces the option under whatever name it was given.
fn merge(options: &mut Options, changes: &Options, defs: &[OptionDef]) {
    for (name, value) in changes.iter() {
        if let Some(def) = defs.iter().find(|d| d.name == name || d.aliases.contains(&name)) {
            options.remove(def.name);
            for alias in def.aliases {
                options.remove(alias);
            }
        }
        options.insert(name, value);
    }
}
