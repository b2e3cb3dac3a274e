//! Option lists: doubles, places, and the errors of the registry put where the option stands.

use connector::OptionError;
use model::Options;

use crate::{Code, Error, OptionEntry, Result};

/// The list as a map. The same name twice is refused; aliases are the registry's business.
pub(super) fn collect(entries: &[OptionEntry]) -> Result<Options> {
    let mut options = Options::default();
    for entry in entries {
        if options.insert(&entry.name, &entry.value).is_some() {
            let text = format!("duplicate option `{}`", entry.name);
            return Err(Error::new(Code::Config, text).at(entry.place).option(&entry.name));
        }
    }
    Ok(options)
}

/// The registry's refusal, at the place of the option that it names.
pub(super) fn refused(entries: &[OptionEntry], code: Code, error: &OptionError) -> Error {
    locate(entries, Error::of_option(code, error))
}

/// The error, at the place of the option that its text names first.
pub(super) fn locate(entries: &[OptionEntry], error: Error) -> Error {
    let text = error.message.clone();
    let named = entries
        .iter()
        .filter_map(|entry| {
            let quoted = [format!("`{}`", entry.name), format!("\"{}\"", entry.name)];
            let at = quoted.iter().filter_map(|q| text.find(q.as_str())).min()?;
            Some((at, entry))
        })
        .min_by_key(|(at, _)| *at);
    match named {
        Some((_, entry)) => error.at(entry.place).option(&entry.name),
        None => error,
    }
}

/// The entry of this name.
pub(super) fn entry<'a>(entries: &'a [OptionEntry], name: &str) -> Option<&'a OptionEntry> {
    entries.iter().find(|entry| entry.name == name)
}

/// `true` or `false` in any case.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// What this release does not have, though the grammar of options does, and what does instead.
const UNSUPPORTED: &[(&str, &str)] = &[
    (
        "source_rate_limit",
        "`sink_rate_limit` holds back one sink, `read.share` leaves a part of the quota to others",
    ),
    ("backfill_rate_limit", "`sink_rate_limit` holds for everything that a sink delivers"),
    ("commit_checkpoint_interval", "`checkpoint_interval` is the time between two stored positions"),
];

/// Refuses what this release does not have, with the nearest way.
pub(super) fn refuse_unsupported(entries: &[OptionEntry]) -> Result<()> {
    let found = entries
        .iter()
        .find_map(|entry| Some((entry, UNSUPPORTED.iter().find(|(name, _)| *name == entry.name)?)));
    match found {
        Some((entry, (name, instead))) => {
            let error = Error::unsupported(format!("the option `{name}`"));
            Err(error.at(entry.place).option(*name).hint(*instead))
        }
        None => Ok(()),
    }
}
