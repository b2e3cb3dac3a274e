//! `distribution = 'split' | 'key(n)' | 'key(n, col, …)'`: who writes the rows of a sink.

use connector::{DistributionKind, SinkKind};
use model::{Column, Distribution, SqlType};

use crate::{Code, Error, OptionEntry, Result};

/// The most partitions that a sink may have.
const PARTITIONS_MAX: u32 = 1024;

/// What the option means for a sink of this kind with these columns and this key. Without columns of its own it is the key.
///
/// # Errors
/// A text of another form, a kind that does not support it, a column that is not there, cannot be hashed, or would send the
/// rows of one key to two writers.
pub(super) fn distribution(
    text: Option<&str>,
    kind: &SinkKind,
    (columns, key): (&[Column], &[String]),
    entries: &[OptionEntry],
) -> Result<Distribution> {
    let Some(text) = text else { return Ok(Distribution::Split) };
    let place = super::options::entry(entries, "distribution").map(|e| e.place).unwrap_or_default();
    let refused = |code: Code, text: String| Error::new(code, text).at(place).option("distribution");
    let wanted = parse(text).ok_or_else(|| {
        refused(Code::Config, format!("`distribution` cannot be `{text}`"))
            .hint(format!("it is 'split', 'key(n)' or 'key(n, column, …)' with n from 1 to {PARTITIONS_MAX}"))
    })?;
    let (word, needed) = match wanted {
        Distribution::Split => ("split", DistributionKind::Split),
        Distribution::Key { .. } => ("key", DistributionKind::Key),
    };
    if !kind.distributions.contains(&needed) {
        return Err(refused(
            Code::Config,
            format!("sink {} does not support distribution {word}", kind.name),
        ));
    }
    let Distribution::Key { partitions, columns: mut by } = wanted else { return Ok(Distribution::Split) };
    if by.is_empty() {
        by = key.to_vec();
    }
    if by.is_empty() {
        let error = refused(Code::Bind, "`distribution` by key needs a key".to_owned());
        return Err(error.hint("define `primary_key`, or name the columns: key(n, column, …)"));
    }
    for name in &by {
        let column = columns.iter().find(|column| column.name == *name);
        let column = column.ok_or_else(|| {
            let known: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
            refused(Code::Bind, format!("column \"{name}\" of `distribution` does not exist"))
                .hint(format!("the sink has {}", known.join(", ")))
        })?;
        if matches!(column.kind, SqlType::Jsonb | SqlType::Struct(_) | SqlType::List(_) | SqlType::Map(..)) {
            return Err(refused(Code::Bind, format!("column \"{name}\" of `distribution` must be a scalar")));
        }
        if !key.is_empty() && !key.contains(name) {
            let error = refused(
                Code::Bind,
                format!("column \"{name}\" of `distribution` must be part of `primary_key`"),
            );
            return Err(error.hint("rows of one key must go to one writer, or they lose their order"));
        }
    }
    Ok(Distribution::Key { partitions, columns: by })
}

fn parse(text: &str) -> Option<Distribution> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("split") {
        return Some(Distribution::Split);
    }
    let head = text.get(..3).filter(|head| head.eq_ignore_ascii_case("key"))?;
    let inside = text[head.len()..].trim().strip_prefix('(')?.strip_suffix(')')?;
    let mut parts = inside.split(',').map(str::trim);
    let partitions = parts.next()?.parse().ok().filter(|n| (1..=PARTITIONS_MAX).contains(n))?;
    let mut columns = Vec::new();
    for name in parts {
        let name = name.strip_prefix('"').and_then(|n| n.strip_suffix('"')).unwrap_or(name);
        if name.is_empty() || columns.iter().any(|known| known == name) {
            return None;
        }
        columns.push(name.to_owned());
    }
    Some(Distribution::Key { partitions, columns })
}

/// As the option is written.
pub(crate) fn print(distribution: &Distribution) -> Option<String> {
    match distribution {
        Distribution::Split => None,
        Distribution::Key { partitions, columns } => {
            let columns: Vec<String> = columns.iter().map(|name| format!(", {name}")).collect();
            Some(format!("key({partitions}{})", columns.concat()))
        }
    }
}
