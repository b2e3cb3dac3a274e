//! The file of a backup: lines of JSON. The first says what it is and of what, the last how many came between and the SHA-256 of
//! all bytes before it; each of those between is one key below the cluster's prefix.
//!
//! ```text
//! {"format":"shardwright-backup","version":1,"cluster":"prod","revision":812,"schema":{…},"entries":2,…}
//! {"key":"object/01J…","value":{…}}
//! {"key":"split/01J…/7/shardId-000000000000","value":{…}}
//! {"end":true,"entries":2,"sha256":"…"}
//! ```
//!
//! Values stand as they are stored, so what is encrypted there is encrypted here. One that is not JSON stands under `base64`.

use std::io::{self, Write};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{Backup, Contents, Item};
use crate::{Error, ErrorKind, Result};

/// Version of the file's form; a newer one is refused.
pub const BACKUP_FORMAT: u32 = 1;

const NAME: &str = "shardwright-backup";

/// The first line, as far as every version of the form has it.
#[derive(Deserialize)]
struct Form {
    format: String,
    version: u32,
    #[serde(default)]
    release: String,
}

#[derive(Serialize)]
struct First<'a> {
    format: &'a str,
    version: u32,
    #[serde(flatten)]
    contents: &'a Contents,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    key: String,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Last {
    end: bool,
    entries: usize,
    sha256: String,
}

impl Backup {
    /// Writes the whole file.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut summed = Summed { out, sum: Sha256::new() };
        summed.line(&First { format: NAME, version: BACKUP_FORMAT, contents: &self.contents })?;
        for Item { key, value } in &self.items {
            let key = key.clone();
            summed.line(&match raw(value) {
                Some(value) => Line { key, value: Some(value), base64: None },
                None => Line { key, value: None, base64: Some(STANDARD.encode(value)) },
            })?;
        }
        let last = Last { end: true, entries: self.items.len(), sha256: hex(&summed.sum.clone().finalize()) };
        summed.line(&last)?;
        summed.out.flush()
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// `Config` if it is not a backup, or of a newer form than this release knows; `Corrupt` if it is cut off or was changed.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|_| refused("it is not a backup of shardwright"))?;
        let first = text.lines().next().unwrap_or_default();
        let form: Form = serde_json::from_str(first)
            .ok()
            .filter(|form: &Form| form.format == NAME)
            .ok_or_else(|| refused("it is not a backup of shardwright"))?;
        if form.version > BACKUP_FORMAT {
            let Form { version, release, .. } = form;
            return Err(refused(format!(
                "it is a backup of form {version}, written by release {release}, and this one knows forms up to \
                 {BACKUP_FORMAT}: restore it with that release or a newer one"
            )));
        }
        let whole = text.strip_suffix('\n').unwrap_or(text);
        let (body, last) = whole.rsplit_once('\n').ok_or_else(cut_off)?;
        let last: Last = serde_json::from_str(last).map_err(|_| cut_off())?;
        let body = &text[..=body.len()];
        if hex(&Sha256::digest(body.as_bytes())) != last.sha256 {
            return Err(damaged("it was changed after it was written: its checksum is another"));
        }
        let contents: Contents = serde_json::from_str(first)
            .map_err(|error| damaged(format!("line 1 is not readable: {error}")))?;
        let items: Vec<Item> =
            body.lines().enumerate().skip(1).map(|(n, line)| item(n + 1, line)).collect::<Result<_>>()?;
        if items.len() != last.entries || items.len() != contents.entries {
            return Err(damaged(format!("it has {} keys and says {}", items.len(), last.entries)));
        }
        Ok(Self { contents, items })
    }
}

fn item(number: usize, line: &str) -> Result<Item> {
    let broken = |what: &dyn std::fmt::Display| damaged(format!("line {number} is not readable: {what}"));
    let Line { key, value, base64 } = serde_json::from_str(line).map_err(|error| broken(&error))?;
    let value = match (value, base64) {
        (Some(value), None) => Bytes::copy_from_slice(value.get().as_bytes()),
        (None, Some(text)) => STANDARD.decode(text).map_err(|error| broken(&error))?.into(),
        _ => return Err(broken(&"it has not one value")),
    };
    Ok(Item { key, value })
}

/// The value as it may stand in a line, if its bytes come back from there as they are.
fn raw(value: &[u8]) -> Option<&RawValue> {
    // A value of `null` would read as none.
    let text =
        std::str::from_utf8(value).ok().filter(|text| !text.contains(['\n', '\r']) && *text != "null")?;
    serde_json::from_str::<&RawValue>(text).ok().filter(|raw| raw.get().len() == text.len())
}

/// Counts every line into the checksum.
struct Summed<'a, W: Write> {
    out: &'a mut W,
    sum: Sha256,
}

impl<W: Write> Summed<'_, W> {
    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.sum.update(&text);
        self.out.write_all(&text)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|n| char::from(b"0123456789abcdef"[usize::from(n)]))
        .collect()
}

fn refused(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, text)
}

fn damaged(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, text)
}

fn cut_off() -> Error {
    damaged("it is cut off: its last line is missing")
}
