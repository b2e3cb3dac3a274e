//! What it costs to be looked at: the same work with telemetry that nobody takes, with `/metrics` read each second, and with metrics,
//! logs and every hundredth batch's trace pushed by OTLP.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    cluster::Bench,
    probe,
    report::{
        Aim::{self, AtMost},
        Judged, Report, Throughput,
    },
    scrape,
    throughput::{BLACKHOLE, COLUMNS},
};

/// Turn and turn about, and the best of each: what differs by little is not to be told by one run.
const ROUNDS: usize = 3;
/// Of being looked at over not.
const COST: f64 = 1.03;
/// How often `/metrics` is read: far more often than anybody does.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);

/// Who looks.
#[derive(Clone, Copy, PartialEq)]
enum Looks {
    Nobody,
    Scraper,
    Collector,
}

impl Looks {
    const ALL: [(Self, &str); 3] =
        [(Self::Nobody, "nobody looks"), (Self::Scraper, "/metrics each second"), (Self::Collector, "OTLP")];
}

/// Measures all three.
pub(crate) async fn measure(bench: &Bench, report: &mut Report) {
    if bench.wants("telemetry") {
        let outcome = compared(bench, report).await;
        report.outcome("telemetry", outcome);
    }
}

async fn compared(bench: &Bench, report: &mut Report) -> Result<()> {
    let (collector, _server) = collector().await?;
    let mut best = [f64::INFINITY; Looks::ALL.len()];
    for round in 1..=ROUNDS {
        for (best, (looks, name)) in best.iter_mut().zip(Looks::ALL) {
            let name = format!("telemetry: {name}, round {round}");
            *best = run(bench, report, &name, (looks, collector)).await?.min(*best);
        }
    }
    for (used, (_, name)) in best.iter().zip(Looks::ALL).skip(1) {
        let name = format!("telemetry: {name}, CPU over that with nobody who looks");
        report.figure(name, used / best[0], "×", AtMost(COST));
    }
    Ok(())
}

/// JSON → blackhole; CPU seconds for a million records.
async fn run(
    bench: &Bench,
    report: &mut Report,
    name: &str,
    (looks, collector): (Looks, SocketAddr),
) -> Result<f64> {
    let mut cluster = bench.cluster().await?;
    let pushed =
        [format!("telemetry.otlp_endpoint=http://{collector}"), "telemetry.trace_ratio=0.01".to_owned()];
    let settings: &[String] = if looks == Looks::Collector { &pushed } else { &[] };
    cluster.spawn_worker_with("w", settings)?;
    let options = format!("{}, scan.startup.mode = 'earliest'", bench.kinesis(bench.full().await?));
    cluster.sql(&format!("CREATE SOURCE s ({COLUMNS}) WITH ({options}) FORMAT PLAIN ENCODE JSON")).await?;
    let live = |status: &proto::v1::StatusReply| status.workers.iter().any(|worker| worker.state == "live");
    cluster.wait("the worker", Duration::from_secs(30), live).await?;
    let (pid, page) = (cluster.workers["w"].pid(), cluster.workers["w"].telemetry());
    let _scraper = (looks == Looks::Scraper).then(|| AbortOnDropHandle::new(tokio::spawn(scraping(page))));
    let (before, start) = (probe::cpu_seconds(pid)?, Instant::now());
    cluster.sql(BLACKHOLE).await?;
    cluster.delivered(bench.args.records).await?;
    let used = (probe::cpu_seconds(pid)? - before) * 1e6 / bench.args.records as f64;
    report.throughput(Throughput {
        case: name.to_owned(),
        cpu_seconds_per_million: Judged::new(used, Aim::None),
        peak_memory: Judged::new(probe::memory(pid)?.peak, Aim::None),
        records: bench.args.records,
        wall_seconds: start.elapsed().as_secs_f64(),
    });
    Ok(used)
}

async fn scraping(page: SocketAddr) {
    loop {
        // A page that is missed now and then changes nothing.
        scrape::get(page, "/metrics").await.ok();
        tokio::time::sleep(SCRAPE_INTERVAL).await;
    }
}

/// Takes what it is sent by OTLP, and forgets it.
async fn collector() -> Result<(SocketAddr, AbortOnDropHandle<()>)> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new().fallback(taken);
    let served =
        async move { axum::serve(listener, router).await.unwrap_or_else(|error| eprintln!("{error}")) };
    Ok((address, AbortOnDropHandle::new(tokio::spawn(served))))
}

/// An empty message of gRPC, and that all is well.
async fn taken(request: Request) -> Response<Body> {
    request.into_body().collect().await.ok();
    let trailers = HeaderMap::from_iter([(
        hyper::header::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let frames = [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(trailers)];
    let body = Body::new(StreamBody::new(tokio_stream::iter(frames.map(Ok::<_, std::io::Error>))));
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
