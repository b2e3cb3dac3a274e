//! A coordinator with small constants, a source and a sink, and ways to wait.

use std::{sync::Arc, time::Duration};

use connector::Listing;
use logic::Timing;
use model::{
    Creation, Encode, Format, FormatClause, ObjectId, OnError, Options, SinkSpec, SourceSpec, Start,
    StartFrom, Timestamp,
};
use shardwright_coordinator::{Config, Leader, Server};
use store::{Keyspace, MetadataStore, View};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fake_source::{self, CREATION};

/// How long anything may take: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// The protocol's proportions, about three times as fast.
pub fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(100),
        fence_after: Duration::from_millis(1500),
        session_timeout: Duration::from_millis(2000),
        leader_lease: Duration::from_millis(1500),
        leader_keep_alive: Duration::from_millis(200),
        write_attempt_timeout: Duration::from_millis(600),
        late_write_margin: Duration::from_millis(200),
        handoff_deadline: Duration::from_millis(2000),
        rejoin_grace: Duration::from_millis(1000),
    }
}

/// One coordinator under test.
pub struct Coordinator {
    pub server: Server,
    pub cancel: CancellationToken,
}

impl Coordinator {
    /// Starts one on a free port.
    pub async fn start(store: &Arc<dyn MetadataStore>) -> Self {
        Self::start_with(store, Duration::from_millis(50)).await
    }

    /// Starts one that stores positions this often.
    pub async fn start_with(store: &Arc<dyn MetadataStore>, checkpoint_interval: Duration) -> Self {
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            timing: timing(),
            checkpoint_interval,
            discovery_interval: Duration::from_millis(300),
            reconcile_interval: Duration::from_millis(500),
            ..Config::default()
        };
        let cancel = CancellationToken::new();
        let server =
            Server::start(config, fake_source::registry(), Arc::clone(store), cancel.clone()).await.unwrap();
        Self { server, cancel }
    }

    /// Where workers find it.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.local_addr())
    }

    /// Its leading side; waits for it.
    pub async fn leader(&self) -> Leader {
        let begin = Instant::now();
        loop {
            match self.server.handle().leader(PATIENCE).await {
                Ok(leader) => return leader,
                Err(error) if begin.elapsed() > PATIENCE => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Waits for something, looking again and again.
pub async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !look() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The whole store, decoded.
pub async fn view(store: &Arc<dyn MetadataStore>) -> View {
    let keys = Keyspace::new(&Config::default().cluster);
    View::decode(&keys, &store.list(&keys.all()).await.unwrap()).unwrap()
}

/// Waits until the store is as wanted.
pub async fn until_stored(store: &Arc<dyn MetadataStore>, what: &str, mut look: impl FnMut(&View) -> bool) {
    let begin = Instant::now();
    while !look(&view(store).await) {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}: {:#?}", view(store).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn format() -> FormatClause {
    FormatClause {
        format: Format::Plain,
        encode: Encode::Bytes,
        options: Options::default(),
        key_encode: None,
    }
}

/// A source on a stream of `fake_source`, not created yet.
pub fn source(name: &str, stream: &str) -> SourceSpec {
    SourceSpec {
        id: ObjectId::from_parts(0, 0),
        name: name.to_owned(),
        connector: "fake".to_owned(),
        options: [("stream", stream)].into_iter().collect(),
        columns: Vec::new(),
        include: Vec::new(),
        primary_key: Vec::new(),
        format: format(),
        on_error: OnError::Skip,
        start: Start::all(StartFrom::At(Timestamp(5_000))),
        creation: CREATION,
        created_at: Timestamp(0),
        revision: 0,
    }
}

/// A sink on a source, not created yet.
pub fn sink(name: &str, source: &SourceSpec) -> SinkSpec {
    SinkSpec {
        id: ObjectId::from_parts(0, 0),
        name: name.to_owned(),
        source: source.id,
        source_name: source.name.clone(),
        query: None,
        columns: Vec::new(),
        connector: "fake".to_owned(),
        options: Options::default(),
        primary_key: Vec::new(),
        format: None,
        on_error: OnError::Fail,
        distribution: model::Distribution::Split,
        paused: false,
        created_at: Timestamp(0),
        revision: 0,
        instance: 0,
    }
}

/// Creates a source on a stream with these splits, and a sink on it.
pub async fn create(
    leader: &Leader,
    stream: &str,
    splits: Vec<model::Split>,
) -> (Arc<SourceSpec>, Arc<SinkSpec>) {
    fake_source::stream(stream, |known| known.splits = splits.clone());
    let listing = Listing { creation: Creation(CREATION.0), splits, now: None, retention: None };
    let source = leader.create_source(source("clicks", stream), Some(&listing)).await.unwrap();
    let sink = leader.create_sink(sink("out", &source), &source).await.unwrap();
    (source, sink)
}
