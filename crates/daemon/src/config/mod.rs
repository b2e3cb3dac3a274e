//! Settings: defaults < one TOML file < `SHARDWRIGHT_*` variables < flags.
//!
//! All three say the same things: a key `worker.capacity` of the file is the variable `SHARDWRIGHT_WORKER_CAPACITY` and the
//! flag `--set worker.capacity=…`. Which keys there are is read off the settings' own types, so nothing is listed twice.
//! Any text may come from a file: `password_file = "/run/secrets/pw"` sets `password`.
//!
//! A wrong setting is an error that says where it stands, what was expected and what is nearest.

mod known;
mod layers;

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::{Error, Result};
pub use known::{Kind, Setting, settings};
use layers::Given;

/// Start of the names of all variables.
pub const ENV_PREFIX: &str = "SHARDWRIGHT_";

/// One setting given on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flag {
    /// The dotted key: `worker.capacity`.
    pub key: String,
    /// Its value as text.
    pub value: String,
    /// What the user typed, for messages: `--capacity`.
    pub written: String,
}

/// Where settings come from, the weakest first.
#[derive(Clone, Debug, Default)]
pub struct Layers<'a> {
    /// The TOML file.
    pub file: Option<&'a Path>,
    /// The variables of the process; those of other programs are passed over.
    pub env: Vec<(String, String)>,
    /// Variables with our prefix that are not settings.
    pub env_reserved: &'a [&'a str],
    /// The flags.
    pub flags: Vec<Flag>,
}

/// Settings, and what was passed over.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The settings.
    pub value: T,
    /// One line for each variable that has our prefix and no meaning.
    pub passed_over: Vec<String>,
}

/// Reads settings of type `T`, whose every key must have a default.
pub fn load<T: DeserializeOwned>(layers: &Layers<'_>) -> Result<Loaded<T>> {
    let settings = settings::<T>();
    let mut given = match layers.file {
        Some(path) => layers::from_file(path, &settings)?,
        None => Vec::new(),
    };
    let (from_env, passed_over) = layers::from_env(&layers.env, layers.env_reserved, &settings)?;
    given.extend(from_env);
    given.extend(layers::from_flags(&layers.flags, &settings)?);
    let mut all = toml::Table::new();
    for one in &given {
        layers::put(&mut all, one);
    }
    match all.try_into() {
        Ok(value) => Ok(Loaded { value, passed_over }),
        Err(error) => Err(culprit::<T>(&given, &error)),
    }
}

/// Finds which of the given settings is refused, so that the error can say where it stands: the one that is refused alone in
/// the same words.
fn culprit<T: DeserializeOwned>(given: &[Given], error: &toml::de::Error) -> Error {
    for one in given.iter().rev() {
        let mut alone = toml::Table::new();
        layers::put(&mut alone, one);
        if alone.try_into::<T>().is_err_and(|alone| alone.message() == error.message()) {
            return one.refused(error.message());
        }
    }
    Error::config(format!("settings do not fit together: {}", error.message()))
}

/// The nearest of the known names, if one is near enough to be meant: a slip of the finger, or one begins with the other.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = |candidate: &str, distance: usize| {
        distance <= (candidate.len() / 3).max(2)
            || candidate.len().min(name.len()) > 3
                && (candidate.starts_with(name) || name.starts_with(candidate))
    };
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| near(candidate, *distance))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests;
