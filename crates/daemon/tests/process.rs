//! A process as it looks from outside: its HTTP listener, before and after it is ready, and its log filter.

#![allow(clippy::unwrap_used, reason = "a test")]

use daemon::{
    Board, Health, Http, Pages, Service, Tasks, Telemetry, TelemetryConfig,
    tls::{Tls, TlsConfig, Use, measure},
};
use opentelemetry::KeyValue;
use shardwright_daemon as daemon;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

async fn ask(address: std::net::SocketAddr, method: &str, path: &str, body: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

// One test, because the logger and the meter are global.
#[tokio::test]
async fn metrics_health_tasks_and_the_log_filter_are_served_until_the_stop() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let service = Service { role: "test", version: "1.2.3", instance: Some("test-0") };
    let telemetry = Telemetry::start(&TelemetryConfig::default(), service).unwrap();
    let meter = opentelemetry::global::meter("test");
    meter.u64_counter("records_read").build().add(3, &[]);
    meter.f64_histogram("handoff").with_unit("s").build().record(0.2, &[]);
    let (health, tasks, cancel) = (Health::new(&["a", "b"]), Tasks::default(), CancellationToken::new());
    let pages = Pages {
        registry: telemetry.registry(),
        health: health.clone(),
        tasks: tasks.clone(),
        filter: telemetry.filter(),
        debug_remote: false,
    };
    let http = Http::start("127.0.0.1:0", pages, cancel.clone()).await.unwrap();
    let address = http.local_addr();
    let get = |path: &'static str| ask(address, "GET", path, "");

    for path in ["/livez", "/healthz"] {
        assert!(get(path).await.starts_with("HTTP/1.1 200"));
    }
    let answer = get("/readyz").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("not ready: a: starting; b: starting"),
        "{answer}"
    );
    health.ready("a");
    health.not_ready("b", "a reason");
    assert!(get("/readyz").await.contains("not ready: b: a reason\n"));
    health.ready("b");
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));

    let metrics = get("/metrics").await;
    assert!(metrics.contains("records_read_total 3"), "{metrics}");
    assert!(metrics.contains("service_name=\"shardwright-test\""), "{metrics}");
    assert!(metrics.contains("service_instance_id=\"test-0\""), "{metrics}");
    assert!(metrics.contains("handoff_seconds_bucket{le=\"0.25\"} 1"), "{metrics}");

    let board = Board::new("splits", "", "per state");
    board.show(vec![(vec![KeyValue::new("state", "reading")], 4.0)]);
    assert!(get("/metrics").await.contains("splits{state=\"reading\"} 4"));
    board.clear();
    assert!(!get("/metrics").await.contains("splits{"), "what has gone is not shown any more");

    tasks.add("worker", || serde_json::json!([{ "task": "t" }]));
    assert!(get("/debug/tasks").await.ends_with("{\"worker\":[{\"task\":\"t\"}]}"));

    assert!(ask(address, "PUT", "/debug/log", "debug\n").await.ends_with("\r\n\r\ninfo\n"));
    assert_eq!(telemetry.filter().now(), "debug");
    assert!(ask(address, "PUT", "/debug/log", "=").await.starts_with("HTTP/1.1 400"));
    assert!(ask(address, "DELETE", "/debug/log", "").await.ends_with("\r\n\r\ndebug\n"));
    assert_eq!(telemetry.filter().now(), "info");

    certificates_are_measured(address, &cancel).await;

    cancel.cancel();
    http.join().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

/// Those of `[tls]` and those of files that are only measured, in one metric.
async fn certificates_are_measured(address: std::net::SocketAddr, cancel: &CancellationToken) {
    let metrics = || ask(address, "GET", "/metrics", "");
    let folder = tempfile::tempdir().unwrap();
    let (own, of_the_store) = (folder.path().join("own.pem"), folder.path().join("store.pem"));
    let signed = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
    let key = folder.path().join("own.key");
    std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    std::fs::write(&own, signed.cert.pem()).unwrap();
    std::fs::write(&of_the_store, signed.cert.pem()).unwrap();
    let paths = (Some(own.clone()), Some(key), Some(own.clone()));
    let config =
        TlsConfig { cert_path: paths.0, key_path: paths.1, ca_path: paths.2, ..TlsConfig::default() };
    let tls = Tls::start(&config, cancel.clone()).unwrap().unwrap();
    let files = [Use::Certificate, Use::Authority].map(|used| (of_the_store.clone(), used));
    measure(files.to_vec(), cancel.clone());
    for (file, used) in
        [&own, &of_the_store].iter().flat_map(|file| [(file, "certificate"), (file, "authority")])
    {
        let series = format!("certificate_expiry_seconds{{file=\"{}\",use=\"{used}\"}}", file.display());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !metrics().await.contains(&series) {
            assert!(std::time::Instant::now() < deadline, "{series} in {}", metrics().await);
            tokio::task::yield_now().await;
        }
    }
    drop(tls);
}

#[tokio::test]
async fn wrong_settings_are_refused_by_name() {
    let service = Service { role: "test", version: "1", instance: None };
    let config = TelemetryConfig { log: "info,=x=".to_owned(), ..TelemetryConfig::default() };
    let error = Telemetry::start(&config, service).unwrap_err().to_string();
    assert!(error.contains("telemetry.log"), "{error}");
    let config = TelemetryConfig { trace_ratio: 1.5, ..TelemetryConfig::default() };
    let error = Telemetry::start(&config, service).unwrap_err().to_string();
    assert!(error.contains("telemetry.trace_ratio") && error.contains("between 0 and 1"), "{error}");
}
