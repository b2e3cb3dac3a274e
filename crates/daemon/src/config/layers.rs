//! One layer at a time: the file, the variables, the flags, each turned into the same list of given settings.

use std::{fmt, path::Path};

use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::{ENV_PREFIX, Flag, Kind, Setting, nearest};
use crate::{Error, Result};

/// Ends the key of a text that is to be read from a file.
const FILE_SUFFIX: &str = "_file";

/// Where a setting was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// Line of the config file.
    File { path: String, line: usize },
    /// A variable.
    Variable(String),
    /// A flag as written.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "config file `{path}`, line {line}"),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A setting with its value.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Given {
    path: Vec<&'static str>,
    value: Value,
    origin: Origin,
}

impl Given {
    /// The error of a value that the settings' type refused.
    pub(super) fn refused(&self, message: &str) -> Error {
        let key = self.path.join(".");
        // The message may quote the value.
        let message = if is_secret(&key) { "the value is refused" } else { message.trim() };
        Error::config(format!("{}: `{key}`: {message}", self.origin))
    }
}

fn is_secret(key: &str) -> bool {
    ["password", "secret", "token", "key"].iter().any(|word| key.contains(word))
}

/// Sets one given setting, over what was there.
pub(super) fn put(table: &mut Table, given: &Given) {
    let (last, sections) = given.path.split_last().expect("a setting has a name");
    let mut table = table;
    for section in sections {
        let entry = table.entry(*section).or_insert_with(|| Value::Table(Table::new()));
        table = entry
            .as_table_mut()
            .expect("sections are tables: `settings` never names a value and a section alike");
    }
    table.insert((*last).to_owned(), given.value.clone());
}

/// The settings of a TOML file.
pub(super) fn from_file(path: &Path, settings: &[Setting]) -> Result<Vec<Given>> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::config(format!("cannot read config file `{name}`: {error}")))?;
    let broken = |error: &toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        Error::config(format!(
            "config file `{name}`, line {}: {}",
            line_of(&text, at),
            error.message().trim()
        ))
    };
    let spans = DeTable::parse(&text).map_err(|error| broken(&error))?;
    let values: Table = text.parse().map_err(|error| broken(&error))?;
    let mut file = FileWalk { name: &name, text: &text, settings, given: Vec::new() };
    file.table(&mut Vec::new(), spans.get_ref(), &values)?;
    Ok(file.given)
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at.min(text.len())].matches('\n').count() + 1
}

/// Walks a parsed file twice at once: one tree knows the lines, the other has the values.
struct FileWalk<'a> {
    name: &'a str,
    text: &'a str,
    settings: &'a [Setting],
    given: Vec<Given>,
}

impl FileWalk<'_> {
    fn table(&mut self, path: &mut Vec<String>, spans: &DeTable<'_>, values: &Table) -> Result<()> {
        for (key, span) in spans {
            let origin =
                Origin::File { path: self.name.to_owned(), line: line_of(self.text, key.span().start) };
            let value = values.get(key.get_ref().as_ref()).expect("both trees are of one text");
            path.push(key.get_ref().to_string());
            self.entry(path, origin, span.get_ref(), value)?;
            path.pop();
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &mut Vec<String>,
        origin: Origin,
        span: &DeValue<'_>,
        value: &Value,
    ) -> Result<()> {
        if let Some(setting) = self.settings.iter().find(|s| s.path == *path) {
            self.given.push(Given { path: setting.path.clone(), value: value.clone(), origin });
            return Ok(());
        }
        if self
            .settings
            .iter()
            .any(|s| s.path.len() > path.len() && s.path.iter().zip(&*path).all(|(a, b)| a == b))
        {
            return match (span, value) {
                (DeValue::Table(spans), Value::Table(values)) => self.table(path, spans, values),
                _ => Err(Error::config(format!(
                    "{origin}: `{}` is a section: write `[{0}]` and its keys below",
                    path.join(".")
                ))),
            };
        }
        match (file_variant(&path.join("."), self.settings, ".", FILE_SUFFIX), value.as_str()) {
            (Some(setting), Some(file)) => {
                self.given.push(read_secret(setting, file, origin)?);
                Ok(())
            }
            _ => Err(unknown(&origin, path, self.settings)),
        }
    }
}

/// The setting that `key` gives by way of a file: `x_file` gives `x`.
fn file_variant<'s>(key: &str, settings: &'s [Setting], joint: &str, suffix: &str) -> Option<&'s Setting> {
    let key = key.strip_suffix(suffix)?;
    settings.iter().find(|s| s.kind == Kind::Text && s.path.join(joint) == key)
}

fn read_secret(setting: &Setting, file: &str, origin: Origin) -> Result<Given> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::config(format!("{origin}: cannot read `{file}`: {error}")))?;
    // Files end with a line end that is no part of the secret.
    let value = Value::String(text.trim_end_matches(['\r', '\n']).to_owned());
    Ok(Given { path: setting.path.clone(), value, origin })
}

fn unknown(origin: &Origin, path: &[String], settings: &[Setting]) -> Error {
    let (last, section) = path.split_last().expect("a key has a name");
    let depth = section.len();
    let beside = settings
        .iter()
        .filter(|s| s.path.len() > depth && s.path[..depth] == *section)
        .map(|s| s.path[depth]);
    // A right name in the wrong section is the other common slip.
    let elsewhere =
        settings.iter().filter(|s| s.path.last() == Some(&last.as_str())).map(Setting::key).next();
    let hint = match (nearest(last, beside), elsewhere) {
        (Some(near), _) => format!("; did you mean `{near}`?"),
        (None, Some(key)) => format!("; did you mean `{key}`?"),
        (None, None) => String::new(),
    };
    Error::config(format!("{origin}: unknown key `{}`{hint}", path.join(".")))
}

/// The settings among the variables, and a line for each that has our prefix and means nothing.
pub(super) fn from_env(
    env: &[(String, String)],
    reserved: &[&str],
    settings: &[Setting],
) -> Result<(Vec<Given>, Vec<String>)> {
    let (mut given, mut passed_over) = (Vec::new(), Vec::new());
    for (name, value) in env {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
        if reserved.contains(&name.as_str()) || is_of_kubernetes(rest) {
            continue;
        }
        let origin = Origin::Variable(name.clone());
        let lower = rest.to_ascii_lowercase();
        if let Some(setting) = settings.iter().find(|s| s.variable() == *name) {
            given.push(from_text(setting, value, origin)?);
        } else if let Some(setting) = file_variant(&lower, settings, "_", FILE_SUFFIX) {
            given.push(read_secret(setting, value, origin)?);
        } else {
            let variables: Vec<String> = settings.iter().map(Setting::variable).collect();
            let hint = nearest(name, variables.iter().map(String::as_str))
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            passed_over.push(format!("variable `{name}` means nothing here{hint}"));
        }
    }
    Ok((given, passed_over))
}

/// Kubernetes gives every pod `SHARDWRIGHT_…_SERVICE_HOST` and `…_PORT…` of a service called shardwright.
fn is_of_kubernetes(rest: &str) -> bool {
    let last_words = ["SERVICE_HOST", "SERVICE_PORT"];
    rest == "PORT"
        || last_words.iter().any(|word| rest.contains(word))
        || rest.ends_with("_PORT")
        || rest.contains("PORT_") && (rest.contains("_TCP") || rest.contains("_UDP"))
}

/// The settings among the flags.
pub(super) fn from_flags(flags: &[Flag], settings: &[Setting]) -> Result<Vec<Given>> {
    let mut given = Vec::new();
    for flag in flags {
        let origin = Origin::Flag(flag.written.clone());
        let one = if let Some(setting) = settings.iter().find(|s| s.key() == flag.key) {
            from_text(setting, &flag.value, origin)?
        } else if let Some(setting) = file_variant(&flag.key, settings, ".", FILE_SUFFIX) {
            read_secret(setting, &flag.value, origin)?
        } else {
            let path: Vec<String> = flag.key.split('.').map(str::to_owned).collect();
            return Err(unknown(&origin, &path, settings));
        };
        given.push(one);
    }
    Ok(given)
}

fn from_text(setting: &Setting, text: &str, origin: Origin) -> Result<Given> {
    let wrong = |expected: &str| {
        let found = if is_secret(&setting.key()) { String::new() } else { format!(", found `{text}`") };
        Error::config(format!("{origin}: expected {expected}{found}"))
    };
    let value = match setting.kind {
        Kind::Boolean => Value::Boolean(text.parse().map_err(|_| wrong("`true` or `false`"))?),
        Kind::Integer => Value::Integer(text.parse().map_err(|_| wrong("a whole number"))?),
        Kind::Number => Value::Float(text.parse().map_err(|_| wrong("a number"))?),
        Kind::Text | Kind::Other => Value::String(text.to_owned()),
        Kind::List => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Value::Array(parts.map(|part| Value::String(part.to_owned())).collect())
        }
    };
    Ok(Given { path: setting.path.clone(), value, origin })
}
