//! The bare loop: signed GetRecords over hyper, JSON, base64, count. What no reader of this protocol can beat by much.

use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{ReadArgs, endpoint, probe};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    #[serde(borrow)]
    records: Vec<Record<'a>>,
    next_shard_iterator: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record<'a> {
    #[serde(borrow)]
    data: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Iterator {
    shard_iterator: String,
}

/// Reads a stream once.
pub(crate) async fn run(args: &ReadArgs) -> Result<()> {
    let caller = Caller::new(&args.endpoint);
    let shards = endpoint::open_shards(&endpoint::client(&args.endpoint), &args.stream).await?;
    let mut readers = JoinSet::new();
    for shard in shards {
        readers.spawn(read(caller.clone(), args.stream.clone(), shard));
    }
    let mut records = 0;
    while let Some(read) = readers.join_next().await {
        records += read??;
    }
    ensure!(records == args.records, "read {records} records, {} are there", args.records);
    probe::print_own(records)
}

async fn read(caller: Caller, stream: String, shard: String) -> Result<u64> {
    let ask = json!({"StreamName": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"});
    let body = caller.call("GetShardIterator", ask.to_string()).await?;
    let mut iterator = serde_json::from_slice::<Iterator>(&body)?.shard_iterator;
    let (mut records, mut plain) = (0, Vec::new());
    loop {
        let ask = json!({"ShardIterator": iterator, "Limit": 10_000});
        let body = caller.call("GetRecords", ask.to_string()).await?;
        let answer: Answer<'_> = serde_json::from_slice(&body)?;
        // The endpoint says 0 ms behind in every answer; an empty one is the end of what was put.
        let done = answer.records.is_empty();
        for record in &answer.records {
            plain.clear();
            STANDARD.decode_vec(record.data, &mut plain)?;
            ensure!(plain.len() == endpoint::RECORD_BYTES, "a record of {} bytes", plain.len());
            records += 1;
        }
        match answer.next_shard_iterator {
            Some(next) if !done => iterator = next,
            _ => return Ok(records),
        }
    }
}

/// Signs and sends.
#[derive(Clone)]
struct Caller {
    url: String,
    http: Client<HttpConnector, Full<Bytes>>,
    credentials: Credentials,
}

impl Caller {
    fn new(url: &str) -> Self {
        let credentials = Credentials::new("test", "test", None, None, "static");
        Self { url: format!("{url}/"), http: Client::builder(TokioExecutor::new()).build_http(), credentials }
    }

    async fn call(&self, operation: &str, body: String) -> Result<Bytes> {
        let target = format!("Kinesis_20131202.{operation}");
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target.as_str())];
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name("kinesis")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()?
            .into();
        let signable = SignableRequest::new(
            "POST",
            &self.url,
            headers.into_iter(),
            SignableBody::Bytes(body.as_bytes()),
        )?;
        let (signature, _) = sign(signable, &params)?.into_parts();
        let mut request = Request::post(&self.url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(Full::new(Bytes::from(body)))?;
        signature.apply_to_request_http1x(&mut request);
        let answer = self.http.request(request).await.with_context(|| format!("calling {operation}"))?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{operation}: {status} {}", String::from_utf8_lossy(&body));
        Ok(body)
    }
}
