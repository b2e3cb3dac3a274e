//! A process as it looks from outside: its HTTP listener, before and after it is ready.

#![allow(clippy::unwrap_used, reason = "a test")]

use daemon::{Health, Http, Telemetry, TelemetryConfig};
use shardwright_daemon as daemon;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

// One test, because the logger and the meter are global.
#[tokio::test]
async fn metrics_health_and_readiness_are_served_until_the_stop() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let telemetry = Telemetry::start(&TelemetryConfig::default(), "test", "1.2.3").unwrap();
    opentelemetry::global::meter("test").u64_counter("records_read").build().add(3, &[]);
    let (health, cancel) = (Health::default(), CancellationToken::new());
    let http =
        Http::start("127.0.0.1:0", telemetry.registry(), health.clone(), cancel.clone()).await.unwrap();
    let address = http.local_addr();

    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    let answer = get(address, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("not ready: starting"), "{answer}");
    health.ready();
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));

    let metrics = get(address, "/metrics").await;
    assert!(metrics.contains("records_read_total 3"), "{metrics}");
    assert!(metrics.contains("service_name=\"shardwright-test\""), "{metrics}");

    cancel.cancel();
    http.join().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_bad_log_filter_is_refused_by_name() {
    let config = TelemetryConfig { log: "info,=x=".to_owned(), ..TelemetryConfig::default() };
    let error = Telemetry::start(&config, "test", "1").unwrap_err().to_string();
    assert!(error.contains("telemetry.log"), "{error}");
}
