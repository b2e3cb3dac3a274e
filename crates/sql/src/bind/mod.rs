//! Statements to specs: names are resolved, types are known, options are checked. No I/O: whether the outside is
//! reachable is asked afterwards, by the coordinator's admin room, which is the only caller.

mod alter;
mod distribution;
mod options;
mod replace;
mod sink;
mod source;

use connector::OptionError;
use model::{Column, FormatClause, ObjectKind, Options};

pub(crate) use distribution::print as distribution_text;

pub use alter::{alter_sink, alter_source};
pub use replace::{Replacement, rebind_sink, replace_sink, replace_source};
pub use sink::{BoundSink, bind_sink};
pub use source::{BoundSource, bind_source};

use crate::{Code, DeadLetterSink, Error, FormatSpec, ObjectName, OptionEntry, Result};

/// The longest name of an object, in characters.
const NAME_MAX: usize = 200;

/// Checks the name of an object: there is one schema, `public`, and a name is part of keys and of paths.
///
/// # Errors
/// Another schema, an empty or too long name, a character that cannot be in a path.
pub fn check_name(kind: ObjectKind, name: &ObjectName) -> Result<()> {
    if let Some(schema) = &name.schema
        && schema != "public"
    {
        return Err(
            Error::new(Code::UndefinedObject, format!("schema \"{schema}\" does not exist")).at(name.place)
        );
    }
    let odd = |c: char| c.is_control() || matches!(c, '/' | '\\');
    let length = name.name.chars().count();
    if length == 0 || length > NAME_MAX || name.name.starts_with('.') || name.name.contains(odd) {
        let text = format!("\"{}\" cannot be the name of a {}", name.name.escape_debug(), kind.as_str());
        let hint = format!("a name has 1 to {NAME_MAX} characters, no slash and no control character");
        return Err(Error::new(Code::Bind, text).at(name.place).hint(hint));
    }
    Ok(())
}

/// `column "x" specified more than once`
fn check_distinct<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            let text = format!("column \"{name}\" specified more than once");
            return Err(Error::new(Code::DuplicateColumn, text));
        }
    }
    Ok(())
}

/// What was said of the dead-letter sink, at the place of the option that is meant.
fn check_dead_letter(
    made: std::result::Result<Option<DeadLetterSink>, OptionError>,
    entries: &[OptionEntry],
) -> Result<()> {
    let Err(refused) = made else { return Ok(()) };
    let error = Error::of_option(Code::Config, &OptionError::config(format!("dead letters: {refused}")));
    let named = |entry: &&OptionEntry| {
        let name = entry.name.strip_prefix("dead_letter.").unwrap_or_default();
        !name.is_empty()
            && (error.message.contains(&format!("`{name}`"))
                || error.message.contains(&format!("\"{name}\"")))
    };
    let meant = entries.iter().find(named).or_else(|| options::entry(entries, "dead_letter.connector"));
    Err(match meant {
        Some(entry) => error.at(entry.place).option(&entry.name),
        None => error,
    })
}

/// The options of `ENCODE ( … )` that somebody reads; each other one is worth a notice and nothing more.
fn encode_options(clause: &FormatSpec, known: &[&str], notices: &mut Vec<String>) -> Result<Options> {
    let mut options = options::collect(&clause.encode.options)?;
    let unknown: Vec<String> = options
        .iter()
        .map(|(name, _)| name.to_owned())
        .filter(|name| !known.contains(&name.as_str()))
        .collect();
    for name in unknown {
        options.remove(&name);
        let near = connector::nearest(&name, known.iter().copied());
        let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        notices.push(format!("Unknown options for format/encode: {name}{hint}"));
    }
    Ok(options)
}

/// Columns as `name type, …`.
#[must_use]
pub fn columns_text(columns: &[Column]) -> String {
    columns.iter().map(|c| format!("{} {}", c.name, c.kind)).collect::<Vec<_>>().join(", ")
}

/// A format clause in words, as `SHOW SINKS` prints its type.
#[must_use]
pub fn format_word(clause: Option<&FormatClause>) -> &'static str {
    match clause.map(|c| c.format) {
        Some(model::Format::Plain) | None => "plain",
    }
}
