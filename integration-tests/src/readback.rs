//! Reads destinations back, in the order that each destination promises.

use std::{collections::BTreeMap, path::Path};

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
    let mut all = Vec::new();
    for shard in endpoint::shards(client, stream).await? {
        let iterator = client
            .get_shard_iterator()
            .stream_name(stream)
            .shard_id(shard.shard_id())
            .shard_iterator_type(ShardIteratorType::TrimHorizon)
            .send()
            .await?;
        let mut iterator = iterator.shard_iterator().map(str::to_owned);
        while let Some(at) = iterator {
            let answer = client.get_records().shard_iterator(at).send().await?;
            for record in answer.records() {
                all.push(found(record.data().as_ref(), record.sequence_number())?);
            }
            let more = !answer.records().is_empty() || answer.millis_behind_latest().unwrap_or(0) > 0;
            iterator = answer.next_shard_iterator().filter(|_| more).map(str::to_owned);
        }
    }
    Ok(all)
}

/// Everything in the files of a file sink, `{split}/{epoch}-{n}.jsonl` under `dir`: split after split in the order given
/// (parents before children), run after run. A last line without its newline was never acknowledged and is left out.
///
/// # Errors
/// When a file cannot be read, or a line is not one of the load's.
pub fn files(dir: &Path, splits: &[String]) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for split in splits {
        let folder = dir.join(split);
        if !folder.exists() {
            continue;
        }
        let mut sorted: BTreeMap<Vec<u64>, std::path::PathBuf> = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let Some(stem) = name.strip_suffix(".jsonl") else { continue };
            let numbers: Result<Vec<u64>, _> = stem.split(['-', '.']).map(str::parse).collect();
            let numbers = numbers.with_context(|| format!("{}: not a run's file", path.display()))?;
            sorted.insert(numbers, path);
        }
        for path in sorted.values() {
            read_file(path, &mut all)?;
        }
    }
    Ok(all)
}

fn read_file(path: &Path, all: &mut Vec<Found>) -> Result<()> {
    let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    for (number, line) in text[..whole].split(|byte| *byte == b'\n').enumerate() {
        if !line.is_empty() {
            all.push(found(line, &format!("{}:{}", path.display(), number + 1))?);
        }
    }
    Ok(())
}
