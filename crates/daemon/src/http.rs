//! The HTTP listener of a process.
//!
//! | | |
//! |---|---|
//! | `/livez` (`/healthz`) | it lives |
//! | `/readyz` | it can do its work, or 503 and why not |
//! | `/metrics` | for Prometheus |
//! | `/debug/tasks` | each task: its state, epoch and position, and what it waits for |
//! | `/debug/log` | GET: the log filter; PUT: another one; DELETE: that of the settings again. From this machine only, unless told |
//!
//! Roles set [`Health`] and [`Tasks`]; Kubernetes and people read them.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    extract::{ConnectInfo, DefaultBodyLimit, Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus::{Encoder, Registry, TextEncoder};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{Error, LogFilter, Result, net};

/// No filter is longer.
const FILTER_BYTES_MAX: usize = 4096;

/// Connections at a time; the next ones wait to be taken.
const CONNECTIONS_MAX: usize = 64;
/// How long a question may take to be asked, silence before it included.
const QUESTION: Duration = Duration::from_secs(15);
/// How long one connection may serve for questions; whoever has more comes again.
const CONNECTION: Duration = Duration::from_secs(60);
/// How long the answer under way may take then.
const LAST_ANSWER: Duration = Duration::from_secs(2);
/// How long accepting rests when the system refuses (no files left).
const REST: Duration = Duration::from_millis(100);

/// Whether a process can do its work, and if not, why. It can when each of its roles can.
#[derive(Clone, Debug)]
pub struct Health {
    waits_for: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Health {
    /// A process with these roles, each of which is starting.
    #[must_use]
    pub fn new(roles: &[&'static str]) -> Self {
        let starting = roles.iter().map(|role| (*role, "starting".to_owned())).collect();
        Self { waits_for: Arc::new(Mutex::new(starting)) }
    }

    /// From now on this role holds nothing up.
    pub fn ready(&self, role: &'static str) {
        self.roles().remove(role);
    }

    /// From now on `/readyz` says 503 and this reason.
    pub fn not_ready(&self, role: &'static str, waits_for: impl Into<String>) {
        self.roles().insert(role, waits_for.into());
    }

    /// What it waits for; `None` when it is ready.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        let roles = self.roles();
        let reasons: Vec<String> = roles.iter().map(|(role, reason)| format!("{role}: {reason}")).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    fn roles(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.waits_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Look = Arc<dyn Fn() -> Value + Send + Sync>;

/// What `/debug/tasks` shows, by role. Whoever adds to it bounds it, and shows no secret.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<BTreeMap<&'static str, Look>>>);

impl Tasks {
    /// From now on this role's part is what `look` says.
    pub fn add(&self, role: &'static str, look: impl Fn() -> Value + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(role, Arc::new(look));
    }

    fn all(&self) -> Value {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        looks.into_iter().map(|(role, look)| (role.to_owned(), look())).collect()
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tasks")
    }
}

/// What the listener shows.
#[derive(Clone, Debug)]
pub struct Pages {
    /// `/metrics`
    pub registry: Registry,
    /// `/readyz`
    pub health: Health,
    /// `/debug/tasks`
    pub tasks: Tasks,
    /// `/debug/log`
    pub filter: LogFilter,
    /// Whether others than this machine may change the log filter.
    pub debug_remote: bool,
}

/// The running listener.
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Http {
    /// Listens at `address` until `cancel`. A port in use is an error that names `telemetry.listen`.
    pub async fn start(address: &str, pages: Pages, cancel: CancellationToken) -> Result<Self> {
        let listener = net::listen(address, "telemetry.listen").await?;
        let address =
            listener.local_addr().map_err(|error| Error::system(format!("telemetry listener: {error}")))?;
        let server = tokio::spawn(serve(listener, router(pages), cancel));
        Ok(Self { address, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has stopped.
    pub async fn join(self) {
        // A panic inside has been printed by then, and there is nothing left to stop.
        self.server.await.ok();
    }
}

/// Takes connections until `cancel`, a bounded number at a time, each for a bounded time.
async fn serve(listener: TcpListener, router: Router, cancel: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((tcp, peer)) => {
                    let router = router.clone().layer(Extension(ConnectInfo(peer)));
                    connections.spawn(attend(tcp, router, cancel.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "telemetry listener cannot take a connection");
                    sleep(REST).await;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One connection: who asks nothing, or asks or reads too slowly, makes room for others.
async fn attend(tcp: TcpStream, router: Router, cancel: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(QUESTION)
        .serve_connection(TokioIo::new(tcp), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = cancel.cancelled() => {}
        () = sleep(CONNECTION) => {}
    }
    connection.as_mut().graceful_shutdown();
    timeout(LAST_ANSWER, connection).await.ok();
}

fn router(pages: Pages) -> Router {
    let log = Router::new()
        .route("/debug/log", get(log).put(set_log).delete(restore_log))
        .layer(DefaultBodyLimit::max(FILTER_BYTES_MAX))
        .layer(middleware::from_fn_with_state(pages.clone(), near));
    let lives = || async { "ok\n" };
    Router::new()
        .route("/livez", get(lives))
        .route("/healthz", get(lives))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/debug/tasks", get(tasks))
        .merge(log)
        .with_state(pages)
}

async fn readyz(State(pages): State<Pages>) -> impl IntoResponse {
    match pages.health.waits_for() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&pages.registry.gather(), &mut text) {
        Ok(()) => Ok(([(CONTENT_TYPE, encoder.format_type().to_owned())], text)),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))),
    }
}

async fn tasks(State(pages): State<Pages>) -> Json<Value> {
    Json(pages.tasks.all())
}

/// Lets only this machine through, unless the settings say otherwise.
async fn near(
    State(pages): State<Pages>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if pages.debug_remote || peer.ip().to_canonical().is_loopback() {
        return next.run(request).await;
    }
    let text = "only from this machine, unless `telemetry.debug_remote` is true\n";
    (StatusCode::FORBIDDEN, text).into_response()
}

async fn log(State(pages): State<Pages>) -> String {
    format!("{}\n", pages.filter.now())
}

async fn set_log(State(pages): State<Pages>, text: String) -> (StatusCode, String) {
    changed(pages.filter.set(text.trim()))
}

async fn restore_log(State(pages): State<Pages>) -> (StatusCode, String) {
    changed(pages.filter.restore())
}

/// The answer to a change is what was in force before.
fn changed(outcome: std::result::Result<String, String>) -> (StatusCode, String) {
    match outcome {
        Ok(old) => (StatusCode::OK, format!("{old}\n")),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    // The clock goes on by itself whenever everybody waits.
    #[tokio::test(start_paused = true)]
    async fn who_keeps_silent_or_never_finishes_a_question_does_not_keep_others_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let router = Router::new().route("/livez", get(|| async { "ok\n" }));
        let server = tokio::spawn(serve(listener, router, cancel.clone()));
        let mut silent = Vec::new();
        for number in 0..2 * CONNECTIONS_MAX {
            let mut tcp = TcpStream::connect(address).await.unwrap();
            if number % 2 == 0 {
                tcp.write_all(b"GET /livez HTTP/1.1\r\nHost:").await.unwrap();
            }
            silent.push(tcp);
        }
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
        cancel.cancel();
        server.await.unwrap();
    }
}
