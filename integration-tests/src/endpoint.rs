//! A Kinesis endpoint inside this process, and clients for it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use aws_sdk_kinesis::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    types::{Shard, StreamStatus},
};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
pub use ferrokinesis::store::StoreOptions;
use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle};

/// The largest request of the service: 10 MiB, in base64.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// The access key that every client here uses; the endpoint does not look at it.
pub const ACCESS_KEY: &str = "test";

/// A running endpoint; ends with this value.
pub struct Endpoint {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Endpoint {
    /// Starts an in-memory endpoint on a free loopback port.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(options: StoreOptions) -> Result<Self> {
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), options).await
    }

    /// Starts an in-memory endpoint there.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn listen(at: SocketAddr, options: StoreOptions) -> Result<Self> {
        let listener = TcpListener::bind(at).await.with_context(|| format!("cannot listen on {at}"))?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            serve(listener, options).await.expect("the endpoint's listener stays open");
        });
        Ok(Self { address, server })
    }

    /// `http://127.0.0.1:port`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client for it.
    #[must_use]
    pub fn client(&self) -> Client {
        client(&self.url())
    }
}

/// Serves an in-memory endpoint for ever.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(listener: TcpListener, options: StoreOptions) -> Result<()> {
    serve_app(listener, app(options)).await
}

/// An in-memory endpoint that is not served yet: for those who put a layer around it.
pub fn app(options: StoreOptions) -> Router {
    let (app, _store) = ferrokinesis::create_app(options);
    let turn = Arc::new(Mutex::new(()));
    app.layer(middleware::from_fn(move |request, next| in_turn(Arc::clone(&turn), request, next)))
}

/// Serves one for ever.
///
/// # Errors
/// When the listener breaks.
pub async fn serve_app(listener: TcpListener, app: Router) -> Result<()> {
    ferrokinesis::serve_plain_http(listener, app, std::future::pending())
        .await
        .context("serving the endpoint")
}

/// One request at a time. ferrokinesis 0.7.0 holds a map's read lock while a GetRecords waits for the records of its shard,
/// and a PutRecords blocks its thread on that map: with as many puts as threads, nobody is left to finish the read and
/// everything stands still for ever. In turn nobody waits. It also closes a gap in which a reader could pass a record that
/// has its number but is not in its shard yet. The body is read here because the framework would refuse more than 2 MB.
async fn in_turn(turn: Arc<Mutex<()>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, REQUEST_BYTES_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let _turn = turn.lock().await;
    next.run(Request::from_parts(parts, Body::from(body))).await
}

/// Options of a quick endpoint: streams become active at once.
#[must_use]
pub fn quick() -> StoreOptions {
    StoreOptions {
        create_stream_ms: 0,
        delete_stream_ms: 0,
        update_stream_ms: 50,
        shard_limit: 1000,
        ..StoreOptions::default()
    }
}

/// A client for any endpoint.
#[must_use]
pub fn client(url: &str) -> Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(url)
        .credentials_provider(Credentials::new(ACCESS_KEY, "test", None, None, "static"))
        .build();
    Client::from_conf(config)
}

/// Creates a stream and waits until it is active.
///
/// # Errors
/// When it cannot be created or is not active within 20 s.
pub async fn create_stream(client: &Client, name: &str, shards: i32) -> Result<()> {
    client.create_stream().stream_name(name).shard_count(shards).send().await.context("creating a stream")?;
    active(client, name).await
}

/// Waits until a stream is active: the state in which it can be split and merged.
///
/// # Errors
/// When it is not within 20 s.
pub async fn active(client: &Client, name: &str) -> Result<()> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let answer = client.describe_stream_summary().stream_name(name).send().await?;
        let status = answer.stream_description_summary().map(|s| s.stream_status().clone());
        if status == Some(StreamStatus::Active) {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            bail!("stream {name} is not active after 20 s but {status:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All shards of a stream, parents before children.
///
/// # Errors
/// When they cannot be listed.
pub async fn shards(client: &Client, stream: &str) -> Result<Vec<Shard>> {
    let mut all = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let request = client.list_shards();
        let request = match &token {
            Some(token) => request.next_token(token),
            None => request.stream_name(stream),
        };
        let answer = request.send().await.context("listing shards")?;
        all.extend(answer.shards().iter().cloned());
        token = answer.next_token().map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    Ok(parents_first(all))
}

fn parents_first(mut left: Vec<Shard>) -> Vec<Shard> {
    left.sort_by(|a, b| a.shard_id().cmp(b.shard_id()));
    let mut sorted: Vec<Shard> = Vec::new();
    while !left.is_empty() {
        let waits = |shard: &Shard, left: &[Shard]| {
            let parents = [shard.parent_shard_id(), shard.adjacent_parent_shard_id()];
            left.iter().any(|other| parents.contains(&Some(other.shard_id())))
        };
        let (ready, rest): (Vec<_>, Vec<_>) = left.iter().cloned().partition(|shard| !waits(shard, &left));
        assert!(!ready.is_empty(), "the lineage has a circle");
        sorted.extend(ready);
        left = rest;
    }
    sorted
}

/// The open shards of a stream, sorted by hash range.
///
/// # Errors
/// When they cannot be listed.
pub async fn open_shards(client: &Client, stream: &str) -> Result<Vec<Shard>> {
    let mut open = shards(client, stream).await?;
    open.retain(|s| s.sequence_number_range().is_none_or(|r| r.ending_sequence_number().is_none()));
    open.sort_by_key(|s| hash_range(s).0);
    Ok(open)
}

/// First and last hash key of a shard.
#[must_use]
pub fn hash_range(shard: &Shard) -> (u128, u128) {
    let number = |text: &str| text.parse().unwrap_or(0);
    shard.hash_key_range().map_or((0, 0), |r| (number(r.starting_hash_key()), number(r.ending_hash_key())))
}

/// Splits a shard in the middle of its hash range.
///
/// # Errors
/// When the service refuses.
pub async fn split(client: &Client, stream: &str, shard: &Shard) -> Result<()> {
    let (first, last) = hash_range(shard);
    let middle = first + (last - first) / 2 + 1;
    active(client, stream).await?;
    client
        .split_shard()
        .stream_name(stream)
        .shard_to_split(shard.shard_id())
        .new_starting_hash_key(middle.to_string())
        .send()
        .await
        .context("splitting a shard")?;
    active(client, stream).await
}

/// Merges two neighbours.
///
/// # Errors
/// When the service refuses.
pub async fn merge(client: &Client, stream: &str, left: &Shard, right: &Shard) -> Result<()> {
    active(client, stream).await?;
    client
        .merge_shards()
        .stream_name(stream)
        .shard_to_merge(left.shard_id())
        .adjacent_shard_to_merge(right.shard_id())
        .send()
        .await
        .context("merging two shards")?;
    active(client, stream).await
}
