//! The exchange between workers, over real connections: partitions on one, the split on another, and what becomes of both
//! when one of them, or the connection, goes.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use daemon::tls::{Guard, Incoming, Tls, TlsClient, TlsConfig, dial_plain};
use model::{Distribution, Epoch, ObjectId, Position, SinkSpec, SourceSpec, StartFrom, TaskId};
use proto::{StatusExt, Wire, v1};
use shardwright_worker::{Config, Error, Worker};
use support::{
    connectors::{self, Ledger},
    coordinator::{Coordinator, list, run, stop},
    until,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

fn epoch(revision: u64) -> Epoch {
    Epoch { generation: 0, revision }
}

/// A worker under a coordinator of its own.
struct Node {
    coordinator: Coordinator,
    worker: Worker,
    _cancel: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Node {
    async fn start(name: &str) -> Self {
        let coordinator = Coordinator::start(10).await;
        // Fencing is not what is tried here, and the machine may be busy.
        coordinator.with(|s| s.fence_after = Duration::from_secs(30));
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            name: Some(name.to_owned()),
            data_dir: dir.path().to_owned(),
            coordinators: vec![coordinator.url()],
            write_attempt_timeout: Duration::from_millis(400),
            late_write_margin: Duration::from_millis(100),
            ..Config::default()
        };
        let cancel = CancellationToken::new();
        let worker = Worker::start(config, connectors::registry(), cancel.clone()).unwrap();
        until("hello", || coordinator.with(|s| (!s.hellos.is_empty()).then_some(()))).await;
        Self { coordinator, worker, _cancel: cancel, _dir: dir }
    }

    fn address(&self) -> String {
        self.coordinator.with(|s| s.hellos[0].exchange_address.clone())
    }

    /// Who writes a partition: this worker.
    fn owner(&self, revision: u64) -> v1::PartitionOwner {
        let (process, address) = (self.worker.process().to_owned(), self.address());
        let worker = self.worker.name().to_owned();
        v1::PartitionOwner { epoch: Some(epoch(revision).into()), process, address, worker }
    }

    /// Where the split is, as the newest progress says.
    fn position(&self) -> Position {
        let last = self.coordinator.with(|s| s.progress.last().cloned());
        last.map_or(Position::Start(StartFrom::Horizon), |p| p.position.unwrap().try_into().unwrap())
    }

    fn waits_for(&self) -> String {
        self.coordinator.with(|s| s.reports.last().map(|r| r.waits_for.clone())).unwrap_or_default()
    }

    async fn ended(&self) {
        until("the end of the split", || self.position().is_end().then_some(())).await;
    }
}

/// A sink with two partitions.
struct Scene {
    name: String,
    source: SourceSpec,
    sink: SinkSpec,
    ledger: Arc<Ledger>,
}

impl Scene {
    fn new(name: &str, last: u64) -> Self {
        let distribution = Distribution::Key { partitions: 2, columns: vec!["data".to_owned()] };
        Self {
            name: name.to_owned(),
            source: connectors::source(name, last),
            sink: SinkSpec { distribution, ..connectors::sink(name) },
            ledger: connectors::ledger(name),
        }
    }

    fn partition(&self, n: u32, revision: u64) -> v1::RunTask {
        let task = TaskId::writes(ObjectId::from_parts(2, 2), n);
        v1::RunTask { start: None, ..run(&task, epoch(revision), &self.source) }
    }

    fn list(&self, run: Vec<v1::RunTask>) -> v1::SetTasks {
        v1::SetTasks { run, ..list(&self.source, &self.sink) }
    }

    /// The split from `start` on, sending to `owners`.
    fn split(&self, revision: u64, start: &Position, owners: Vec<v1::PartitionOwner>) -> v1::SetTasks {
        let newest = owners.iter().map(|o| Epoch::from(o.epoch.unwrap())).max().unwrap();
        let split = v1::RunTask {
            start: Some(proto::position_to_wire(start)),
            partitions: Some(newest.into()),
            ..run(&connectors::task("s-0"), epoch(revision), &self.source)
        };
        let set = v1::PartitionSet { sink_id: self.sink.id.to_string(), newest: Some(newest.into()), owners };
        v1::SetTasks { partitions: vec![set], ..self.list(vec![split]) }
    }

    /// Every number arrived, those of a partition's run first in order.
    fn check(&self, last: u64, epochs: &[u64]) {
        let all: BTreeSet<u64> = self.ledger.rows.lock().unwrap().iter().map(|(_, n)| *n).collect();
        assert_eq!(all, (0..=last).collect(), "{}: something is missing", self.name);
        for revision in epochs {
            let mut seen: Vec<u64> = Vec::new();
            for n in self.ledger.of(epoch(*revision)) {
                assert!(seen.last().is_none_or(|max| n > *max) || seen.contains(&n), "{n} came late");
                if !seen.contains(&n) {
                    seen.push(n);
                }
            }
        }
    }
}

fn horizon() -> Position {
    Position::Start(StartFrom::Horizon)
}

#[tokio::test]
async fn rows_cross_to_the_partitions_of_another_worker_and_within_one() {
    for apart in [true, false] {
        let scene = Scene::new(if apart { "crossing" } else { "within" }, 200);
        let a = Node::start(&format!("a-{apart}")).await;
        let b = Node::start(&format!("b-{apart}")).await;
        let owners = vec![a.owner(100), a.owner(101)];
        let partitions = vec![scene.partition(0, 100), scene.partition(1, 101)];
        let reader = if apart {
            a.coordinator.list(scene.list(partitions));
            &b
        } else {
            &a
        };
        let mut list = scene.split(200, &horizon(), owners);
        if !apart {
            list.run.extend([scene.partition(0, 100), scene.partition(1, 101)]);
        }
        reader.coordinator.list(list);
        reader.ended().await;
        scene.check(200, &[100, 101]);
        let (x, y) = (scene.ledger.of(epoch(100)), scene.ledger.of(epoch(101)));
        assert!(x.len() > 50 && y.len() > 50, "{} and {}", x.len(), y.len());
        assert_eq!(x.len() + y.len(), 201, "each once");
        let delivered = |s: &mut support::coordinator::State| {
            let of = |r: &&v1::Report| r.task.as_ref().unwrap().partition == Some(1);
            s.reports.iter().rev().find(of).map(|r| r.records_delivered)
        };
        until("a report of the partition", || a.coordinator.with(delivered).filter(|n| *n == y.len() as u64))
            .await;
    }
}

#[tokio::test]
async fn a_run_starts_only_with_the_set_that_it_names() {
    let scene = Scene::new("named", 20);
    let a = Node::start("named-a").await;
    let mut list = scene.split(200, &horizon(), vec![a.owner(100), a.owner(101)]);
    list.run.extend([scene.partition(0, 100), scene.partition(1, 101)]);
    let mut other = list.clone();
    other.run[0].partitions = Some(epoch(99).into());
    a.coordinator.list(other);
    let partition = |s: &mut support::coordinator::State| {
        s.reports.iter().any(|r| r.task.as_ref().unwrap().partition.is_some()).then_some(())
    };
    until("the partitions run", || a.coordinator.with(partition)).await;
    let split = |s: &mut support::coordinator::State| {
        s.reports.iter().any(|r| r.task.as_ref().unwrap().partition.is_none())
    };
    assert!(!a.coordinator.with(split), "the split runs with another set");
    assert!(a.coordinator.released(epoch(200)).is_empty());
    a.coordinator.list(list);
    a.ended().await;
    scene.check(20, &[100, 101]);
}

#[tokio::test]
async fn a_killed_partition_is_waited_for_and_the_next_set_goes_on_from_the_checkpoint() {
    let scene = Scene::new("killed", 400);
    let (a, b) = (Node::start("killed-a").await, Node::start("killed-b").await);
    let (c, d) = (Node::start("killed-c").await, Node::start("killed-d").await);
    a.coordinator.list(scene.list(vec![scene.partition(0, 100)]));
    c.coordinator.list(scene.list(vec![scene.partition(1, 101)]));
    b.coordinator.list(scene.split(200, &horizon(), vec![a.owner(100), c.owner(101)]));
    until("rows at both", || {
        let some = |revision| scene.ledger.of(epoch(revision)).len() > 10;
        (some(100) && some(101)).then_some(())
    })
    .await;
    c.worker.abort();
    until("the reader says whom it waits for", || b.waits_for().contains("partition 1: ").then_some(()))
        .await;
    assert!(b.coordinator.released(epoch(200)).is_empty(), "it waits, it does not fail (P17)");
    d.coordinator.list(scene.list(vec![scene.partition(1, 110)]));
    let mut list = scene.split(210, &b.position(), vec![a.owner(100), d.owner(110)]);
    list.stop = vec![stop(&connectors::task("s-0"), epoch(200), Duration::ZERO)];
    list.run.clear();
    b.coordinator.list(list);
    until("the old run is over", || b.coordinator.released(epoch(200)).pop()).await;
    b.coordinator.list(scene.split(210, &b.position(), vec![a.owner(100), d.owner(110)]));
    b.ended().await;
    scene.check(400, &[100, 101, 110]);
}

/// Between two workers: every connection through it can be cut.
struct Cable {
    address: SocketAddr,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
}

impl Cable {
    async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(std::sync::Mutex::new(CancellationToken::new()));
        let shared = Arc::clone(&cut);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (token, target) = (shared.lock().unwrap().clone(), target.clone());
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        () = token.cancelled() => {}
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    }
                });
            }
        });
        Self { address, cut }
    }

    fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_again_and_again_loses_nothing_and_keeps_the_order() {
    let scene = Scene::new("cable", 600);
    let (a, b) = (Node::start("cable-a").await, Node::start("cable-b").await);
    a.coordinator.list(scene.list(vec![scene.partition(0, 100), scene.partition(1, 101)]));
    let cable = Cable::to(a.address()).await;
    let owner = |revision| v1::PartitionOwner { address: cable.address.to_string(), ..a.owner(revision) };
    let mut revision = 200;
    b.coordinator.list(scene.split(revision, &horizon(), vec![owner(100), owner(101)]));
    let (mut cuts, mut seen) = (0, 0);
    until("the end", || {
        if b.position().is_end() {
            return Some(());
        }
        let rows = scene.ledger.count();
        if rows > seen + 60 && cuts < 5 {
            cable.cut();
            (cuts, seen) = (cuts + 1, rows);
        }
        if let Some(released) = b.coordinator.released(epoch(revision)).pop() {
            assert_eq!(released.error_kind, "unavailable", "{}", released.error);
            revision += 1;
            b.coordinator.list(scene.split(revision, &b.position(), vec![owner(100), owner(101)]));
        }
        None
    })
    .await;
    assert!(cuts >= 3, "{cuts} cuts");
    scene.check(600, &[100, 101]);
}

#[tokio::test]
async fn an_address_that_others_cannot_use_is_refused_with_the_setting() {
    let config = |listen: &str| Config { exchange_listen: listen.to_owned(), ..Config::default() };
    for (listen, setting) in
        [("0.0.0.0:0", "worker.exchange_advertise"), ("nowhere.invalid:1", "worker.exchange_listen")]
    {
        let started = Worker::start(config(listen), connectors::registry(), CancellationToken::new());
        let Err(Error::Config(text)) = started else { panic!("{listen} is accepted") };
        assert!(text.contains(setting), "{text}");
    }
}

type Authority = rcgen::CertifiedIssuer<'static, rcgen::KeyPair>;

fn authority() -> Authority {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
}

/// The identity of `name`, who trusts `trusts`.
fn identity(dir: &std::path::Path, name: &str, by: &Authority, trusts: &Authority) -> Tls {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let write = |end: &str, text: String| {
        let path = dir.join(format!("{name}.{end}"));
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let config = TlsConfig {
        cert_path: write("pem", params.signed_by(&key, by).unwrap().pem()),
        key_path: write("key", key.serialize_pem()),
        ca_path: write("ca", trusts.pem()),
        verify_names: true,
        ..TlsConfig::default()
    };
    Tls::open(&config).unwrap().unwrap()
}

fn secured(tls: Tls) -> Wire {
    Wire::secured(move |uri, name| {
        let tls = tls.clone();
        async move { tls.dial(&uri, name.as_deref()).await }
    })
}

/// A worker that takes rows over mutual TLS only, and what it says to a stream that begins with nothing.
struct Guarded {
    node: Node,
    ours: Authority,
    dir: tempfile::TempDir,
}

impl Guarded {
    async fn start(name: &str) -> Self {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let (ours, dir) = (authority(), tempfile::tempdir().unwrap());
        let tls = identity(dir.path(), name, &ours, &ours);
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap().to_string();
        // Only the exchange is guarded here: the coordinator of these tests speaks no TLS.
        let incoming = Incoming::new(tcp, Guard::demands(Some(&tls)), "exchange");
        let site = shardwright_worker::Site { address, incoming, wire: Wire::tcp() };
        let coordinator = Coordinator::start(10).await;
        let data = tempfile::tempdir().unwrap();
        let config = Config {
            name: Some(name.to_owned()),
            data_dir: data.path().to_owned(),
            coordinators: vec![coordinator.url()],
            ..Config::default()
        };
        let cancel = CancellationToken::new();
        let worker = Worker::start_on(site, config, connectors::registry(), cancel.clone()).unwrap();
        until("hello", || coordinator.with(|s| (!s.hellos.is_empty()).then_some(()))).await;
        Self { node: Node { coordinator, worker, _cancel: cancel, _dir: data }, ours, dir }
    }

    /// What becomes of a stream over this wire.
    async fn feed(&self, wire: &Wire, towards: &str) -> String {
        let address = format!("https://{}", self.node.address());
        let endpoint = wire.endpoint(&address).unwrap();
        let chain = |error: &dyn std::error::Error| {
            let (mut text, mut cause) = (error.to_string(), error.source());
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            text
        };
        let wire = wire.towards(towards);
        let channel = match wire.connect(&endpoint).await {
            Ok(channel) => channel,
            Err(error) => return chain(&error),
        };
        let nothing = tokio_stream::once(v1::ToPartition { message: None });
        match v1::exchange_client::ExchangeClient::new(channel).feed(nothing).await {
            Ok(_) => "taken".to_owned(),
            Err(status) => wire.complaint().unwrap_or_else(|| status.message().to_owned()),
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_opened_wrongly_is_refused_with_a_reason() {
    let node = Node::start("w-reasons").await;
    let url = format!("http://{}", node.address());
    let mut exchange = v1::exchange_client::ExchangeClient::connect(url).await.unwrap();
    let ours = (proto::Protocols::OURS.from(), proto::Protocols::OURS.to());
    let open = |(protocol_from, protocol_to)| {
        let open = v1::OpenPartition { protocol_from, protocol_to, ..v1::OpenPartition::default() };
        Some(v1::to_partition::Message::Open(open))
    };
    for (message, reason) in [(None, "NOT_OPENED"), (open(ours), "BAD_OPEN"), (open((99, 99)), "PROTOCOL")] {
        let refused = exchange.feed(tokio_stream::once(v1::ToPartition { message })).await.unwrap_err();
        assert_eq!(refused.reason().as_deref(), Some(reason), "{refused}");
    }
}

const HEARD: &str = "a stream begins with the partition";

#[tokio::test]
async fn a_peer_of_the_cluster_is_heard_by_the_exchange() {
    let guarded = Guarded::start("w-heard").await;
    let member = secured(identity(guarded.dir.path(), "w-other", &guarded.ours, &guarded.ours));
    let said = guarded.feed(&member, "w-heard").await;
    assert!(said.contains(HEARD), "{said}");
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_refused_by_the_exchange() {
    let guarded = Guarded::start("w-none").await;
    let tool = TlsClient::open(Some(&guarded.dir.path().join("w-none.ca")), None, None).unwrap();
    let nobody = Wire::secured(move |uri, _| {
        let tool = tool.clone();
        async move { tool.dial(&uri).await }
    });
    let said = guarded.feed(&nobody, "").await;
    assert!(said.contains("it asks for a certificate") && !said.contains(HEARD), "{said}");
}

#[tokio::test]
async fn a_peer_without_tls_is_refused_by_the_exchange() {
    let guarded = Guarded::start("w-plain").await;
    let plain = Wire::over(|uri| Box::pin(async move { Ok(Box::new(dial_plain(&uri).await?) as proto::Io) }));
    let said = guarded.feed(&plain, "").await;
    assert!(said.contains("it speaks TLS there") && !said.contains(HEARD), "{said}");
}

#[tokio::test]
async fn a_peer_of_another_authority_is_refused_by_the_exchange() {
    let guarded = Guarded::start("w-theirs").await;
    let stranger = secured(identity(guarded.dir.path(), "w-stranger", &authority(), &guarded.ours));
    let said = guarded.feed(&stranger, "w-theirs").await;
    assert!(said.contains("certificate that was shown") && !said.contains(HEARD), "{said}");
}

/// Rows are for the worker that the leader named, not for whoever listens at its address.
#[tokio::test]
async fn rows_are_not_sent_to_a_worker_of_another_name() {
    let guarded = Guarded::start("w-impostor").await;
    let member = secured(identity(guarded.dir.path(), "w-member", &guarded.ours, &guarded.ours));
    let said = guarded.feed(&member, "w-expected").await;
    assert!(said.contains("and not for `w-expected`"), "{said}");
}
