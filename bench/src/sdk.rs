//! The plain SDK loop: what somebody writes in an afternoon. It counts and keeps nothing.

use anyhow::{Context, Result, ensure};
use aws_sdk_kinesis::{Client, types::ShardIteratorType};
use tokio::task::JoinSet;

use crate::{ReadArgs, endpoint, probe};

/// Reads a stream once.
pub(crate) async fn run(args: &ReadArgs) -> Result<()> {
    let client = endpoint::client(&args.endpoint);
    let mut readers = JoinSet::new();
    for shard in endpoint::open_shards(&client, &args.stream).await? {
        readers.spawn(read(client.clone(), args.stream.clone(), shard));
    }
    let mut records = 0;
    while let Some(read) = readers.join_next().await {
        records += read??;
    }
    ensure!(records == args.records, "read {records} records, {} are there", args.records);
    probe::print_own(records)
}

async fn read(client: Client, stream: String, shard: String) -> Result<u64> {
    let iterator = client
        .get_shard_iterator()
        .stream_name(stream)
        .shard_id(shard)
        .shard_iterator_type(ShardIteratorType::TrimHorizon)
        .send()
        .await?;
    let mut iterator = iterator.shard_iterator().context("no iterator")?.to_owned();
    let mut records = 0;
    loop {
        let answer = client.get_records().shard_iterator(iterator).limit(10_000).send().await?;
        for record in answer.records() {
            ensure!(record.data().as_ref().len() == endpoint::RECORD_BYTES, "a record of another size");
            records += 1;
        }
        match answer.next_shard_iterator() {
            // The endpoint says 0 ms behind in every answer; an empty one is the end of what was put.
            Some(next) if !answer.records().is_empty() => iterator = next.to_owned(),
            _ => return Ok(records),
        }
    }
}
