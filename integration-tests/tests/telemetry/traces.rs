//! The spans of a batch, from real processes to a collector.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use shardwright_integration_tests::{
    admin::Admin,
    servers::{self, Etcd},
};
use tokio::time::Instant;

use crate::{
    collector::{Collector, Span},
    site::{self, PATIENCE, Site},
};

/// Waits until the collector has what is wanted.
async fn found<T>(collector: &Collector, what: &str, look: impl Fn(&[Span]) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let spans = collector.spans();
        if let Some(found) = look(&spans) {
            return found;
        }
        let tree =
            || spans.iter().map(|span| format!("{} {}\n", span.service, span.name)).collect::<String>();
        assert!(Instant::now() < deadline, "no {what} among\n{}", tree());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn child<'a>(spans: &'a [Span], parent: &Span, name: &str) -> Option<&'a Span> {
    let of = |span: &&Span| span.trace == parent.trace && span.parent == parent.id && span.name == name;
    spans.iter().find(of)
}

async fn traced(workers: usize, ratio: &str) -> (Site, Collector) {
    let collector = Collector::start().await;
    let endpoint = format!("telemetry.otlp_endpoint={}", collector.url);
    let ratio = format!("telemetry.trace_ratio={ratio}");
    let mut site = Site::start(&[&endpoint, &ratio, "telemetry.log_format=json"]).await;
    for _ in 0..workers {
        site.worker();
    }
    site.ready().await;
    (site, collector)
}

#[tokio::test]
async fn a_batch_is_one_tree_from_the_read_to_the_leaders_transaction() {
    let (site, collector) = traced(1, "1").await;
    site.source(1, 50).await;
    site.sql("CREATE SINK k FROM clicks WITH (connector = 'blackhole')").await;
    site.delivered("k", 50).await;
    let root = found(&collector, "whole tree", |spans| {
        let roots = spans.iter().filter(|span| span.name == "process clicks" && span.parent.is_empty());
        let whole = |root: &&Span| {
            let settle = child(spans, root, "settle");
            ["receive clicks", "decode", "send k"].iter().all(|name| child(spans, root, name).is_some())
                && settle.is_some_and(|settle| child(spans, settle, "checkpoint").is_some())
        };
        roots.into_iter().find(whole).cloned()
    })
    .await;
    let spans = collector.spans();
    assert_eq!((root.kind, root.service.as_str()), (SpanKind::Consumer, "shardwright-worker"));
    assert_eq!(root.text("messaging.system"), Some("aws_kinesis"));
    assert_eq!(root.text("messaging.destination.name"), Some("clicks-in"));
    assert_eq!(root.text("messaging.destination.partition.id"), Some("shardId-000000000000"));
    let settle = child(&spans, &root, "settle").unwrap();
    let checkpoint = child(&spans, settle, "checkpoint").unwrap();
    assert_eq!(checkpoint.service, "shardwright-coordinator");
    let send = child(&spans, &root, "send k").unwrap();
    assert_eq!((send.kind, send.text("messaging.operation.type")), (SpanKind::Producer, Some("send")));
    assert!(send.links.iter().all(|link| *link != root.id), "its parent is no link");
    let secret = |span: &Span| format!("{span:?}").contains("secret_access_key");
    assert!(!spans.iter().any(secret), "a credential is among the attributes");
}

#[tokio::test]
async fn the_exchange_and_calls_carry_the_context_to_other_processes() {
    let (site, collector) = traced(2, "1").await;
    site.source(2, 100).await;
    // Both workers write one partition and read one split: some rows cross.
    site.sql("CREATE SINK parts FROM clicks WITH (connector = 'blackhole', distribution = 'key(2)', primary_key = 'id')").await;
    site.delivered("parts", 100).await;
    found(&collector, "partition that goes on with a split's batch", |spans| {
        let sent = spans.iter().filter(|span| span.name.starts_with("send partition "));
        let taken = |sent: &Span| {
            let n = sent.name.strip_prefix("send partition ")?;
            let process = child(spans, sent, &format!("process partition {n}"))?;
            child(spans, process, "send parts").map(|_| ())
        };
        sent.into_iter().find_map(taken)
    })
    .await;
    // The opening of the session, and of a stream of the exchange: a client's span in one process, a server's in another.
    for method in ["shardwright.v1.Session/Attach", "shardwright.v1.Exchange/Feed"] {
        found(&collector, method, |spans| {
            let served = spans.iter().filter(|span| span.name == method && span.kind == SpanKind::Server);
            let asked = |served: &&Span| {
                spans
                    .iter()
                    .any(|s| s.id == served.parent && s.trace == served.trace && s.kind == SpanKind::Client)
            };
            served.into_iter().find(asked).map(|_| ())
        })
        .await;
    }
}

#[tokio::test]
async fn who_asks_for_a_trace_gets_it_and_others_are_sampled() {
    let (site, collector) = traced(1, "0").await;
    site.source(1, 20).await;
    site.sql("CREATE SINK k FROM clicks WITH (connector = 'blackhole')").await;
    site.delivered("k", 20).await;
    let mut client = proto::v1::admin_client::AdminClient::connect(site.url().to_owned()).await.unwrap();
    let mut request = tonic::Request::new(proto::v1::StatusRequest {});
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
    request.metadata_mut().insert("traceparent", caller);
    client.status(request).await.unwrap();
    let served = found(&collector, "Status", |spans| {
        spans.iter().find(|span| span.name == "shardwright.v1.Admin/Status").cloned()
    })
    .await;
    assert_eq!(served.parent, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
    assert_eq!(served.text("rpc.response.status_code"), Some("OK"));
    assert_eq!(collector.spans().len(), 1, "nothing else is sampled: {:?}", collector.spans());
}

#[tokio::test]
async fn metrics_and_logs_are_pushed_too() {
    let (site, collector) = traced(1, "1").await;
    site.source(1, 20).await;
    site.sql("CREATE SINK k FROM clicks WITH (connector = 'blackhole')").await;
    site.delivered("k", 20).await;
    found(&collector, "metrics and logs", |_| {
        let (metrics, lines) = (collector.metrics(), collector.lines());
        let pushed = |name: &str| metrics.iter().any(|metric| metric == name);
        let metrics = ["records_read", "sink_lag", "checkpoint_write", "rpc.server.call.duration"];
        let logged = lines.iter().any(|(line, _)| line == "the session stands");
        (metrics.into_iter().all(pushed) && logged).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_call_that_is_passed_on_to_the_leader_stays_in_its_trace() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let test = "a_call_that_is_passed_on_to_the_leader_stays_in_its_trace";
    let dir = tempfile::tempdir().unwrap();
    let Some(etcd) = Etcd::of_test(test, &dir.path().join("etcd")).await else { return };
    let collector = Collector::start().await;
    let settings =
        [format!("telemetry.otlp_endpoint={}", collector.url), "telemetry.trace_ratio=0".to_owned()];
    let mut coordinators = Vec::new();
    for n in 0..2 {
        let listen = format!("127.0.0.1:{}", servers::free_port().unwrap());
        let store = etcd.url();
        let arguments = ["coordinator", "--listen", &listen, "--store", &store];
        let name = format!("coordinator-{n}");
        let member = site::member(&name, &arguments, &settings, dir.path().join("logs"));
        member.until("/readyz", |status, _| (status == 200).then_some(())).await.unwrap();
        coordinators.push((format!("http://{listen}"), member));
    }
    let urls: Vec<String> = coordinators.iter().map(|(url, _)| url.clone()).collect();
    let leader = Admin::new(urls.clone()).status().await.unwrap().leader;
    let follower = urls.iter().find(|url| !leader.starts_with(url.as_str())).unwrap();
    let mut client = proto::v1::admin_client::AdminClient::connect(follower.clone()).await.unwrap();
    let mut request = tonic::Request::new(proto::v1::StatusRequest {});
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
    request.metadata_mut().insert("traceparent", caller);
    client.status(request).await.unwrap();
    found(&collector, "call that was passed on", |spans| {
        let served = spans.iter().filter(|span| span.name == "shardwright.v1.Admin/Status");
        served.into_iter().find_map(|first| child(spans, first, "shardwright.v1.Admin/Status")).map(|_| ())
    })
    .await;
}
