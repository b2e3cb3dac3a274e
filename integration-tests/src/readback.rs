//! Reads destinations back, in the order that each destination promises.

use std::{
    collections::BTreeMap,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use aws_sdk_kinesis::{Client, types::ShardIteratorType};
use serde_json::Value;

use crate::{endpoint, ledger::Found};

fn found(text: &[u8], place: &str) -> Result<Found> {
    let value: Value = serde_json::from_slice(text).with_context(|| format!("{place}: not JSON"))?;
    let key = value["key"].as_str().with_context(|| format!("{place}: no key"))?;
    let n = value["n"].as_u64().with_context(|| format!("{place}: no number"))?;
    Ok(Found { key: key.to_owned(), n })
}

/// Everything in a stream: shard after shard, parents before children.
///
/// # Errors
/// When it cannot be read, or a record is not one of the load's.
pub async fn kinesis(client: &Client, stream: &str) -> Result<Vec<Found>> {
    let mut copy = Stream::default();
    copy.read_on(client, stream).await?;
    Ok(copy.found().collect())
}

/// What was read of a stream so far, so that a long run need not read it all again and again.
#[derive(Default)]
pub struct Stream {
    /// In the order of their first sight, which is parents first.
    shards: Vec<Tail>,
}

struct Tail {
    shard: String,
    last: Option<String>,
    found: Vec<Found>,
}

impl Stream {
    /// Reads what has come since.
    ///
    /// # Errors
    /// When it cannot be read, or a record is not one of the load's.
    pub async fn read_on(&mut self, client: &Client, stream: &str) -> Result<()> {
        for shard in endpoint::shards(client, stream).await? {
            if !self.shards.iter().any(|tail| tail.shard == shard.shard_id()) {
                self.shards.push(Tail { shard: shard.shard_id().to_owned(), last: None, found: Vec::new() });
            }
        }
        for tail in &mut self.shards {
            tail.read_on(client, stream).await?;
        }
        Ok(())
    }

    /// All of it.
    pub fn found(&self) -> impl Iterator<Item = Found> {
        self.shards.iter().flat_map(|tail| tail.found.iter().cloned())
    }
}

impl Tail {
    async fn read_on(&mut self, client: &Client, stream: &str) -> Result<()> {
        let from = match &self.last {
            Some(_) => ShardIteratorType::AfterSequenceNumber,
            None => ShardIteratorType::TrimHorizon,
        };
        let iterator = client.get_shard_iterator().stream_name(stream).shard_id(&self.shard);
        let iterator =
            iterator.shard_iterator_type(from).set_starting_sequence_number(self.last.clone()).send().await?;
        let mut iterator = iterator.shard_iterator().map(str::to_owned);
        while let Some(at) = iterator {
            let answer = client.get_records().shard_iterator(at).send().await?;
            for record in answer.records() {
                self.found.push(found(record.data().as_ref(), record.sequence_number())?);
                self.last = Some(record.sequence_number().to_owned());
            }
            let more = !answer.records().is_empty() || answer.millis_behind_latest().unwrap_or(0) > 0;
            iterator = answer.next_shard_iterator().filter(|_| more).map(str::to_owned);
        }
        Ok(())
    }
}

/// Everything in the files of a file sink, `{split}/{epoch}-{n}.jsonl` under `dir`: split after split in the order given
/// (parents before children), run after run. A last line without its newline was never acknowledged and is left out.
///
/// # Errors
/// When a file cannot be read, or a line is not one of the load's.
pub fn files(dir: &Path, splits: &[String]) -> Result<Vec<Found>> {
    Files::default().read_on(dir, splits)
}

/// What was read of the files of a file sink so far.
#[derive(Default)]
pub struct Files {
    /// Whole lines of each: their bytes, and what was in them.
    read: BTreeMap<PathBuf, (usize, Vec<Found>)>,
}

impl Files {
    /// Reads what was added since; all of it, as [`files`] gives it.
    ///
    /// # Errors
    /// As [`files`].
    pub fn read_on(&mut self, dir: &Path, splits: &[String]) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for split in splits {
            for path in in_order(&dir.join(split))? {
                let (bytes, found) = self.read.entry(path.clone()).or_default();
                *bytes += read_file(&path, *bytes, found)?;
                all.extend(found.iter().cloned());
            }
        }
        Ok(all)
    }
}

/// The files of a split, run after run.
fn in_order(folder: &Path) -> Result<impl Iterator<Item = PathBuf>> {
    let mut sorted: BTreeMap<Vec<u64>, PathBuf> = BTreeMap::new();
    if folder.exists() {
        for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let Some(stem) = name.strip_suffix(".jsonl") else { continue };
            let numbers: Result<Vec<u64>, _> = stem.split(['-', '.']).map(str::parse).collect();
            let numbers = numbers.with_context(|| format!("{}: not a run's file", path.display()))?;
            sorted.insert(numbers, path);
        }
    }
    Ok(sorted.into_values())
}

/// Reads the whole lines after the first `from` bytes; their bytes.
fn read_file(path: &Path, from: usize, all: &mut Vec<Found>) -> Result<usize> {
    let mut file = std::fs::File::open(path).with_context(|| format!("reading {}", path.display()))?;
    file.seek(SeekFrom::Start(from as u64))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        all.push(found(line, &path.display().to_string())?);
    }
    Ok(whole)
}
