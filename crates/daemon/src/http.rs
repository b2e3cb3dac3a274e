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
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::{ConnectInfo, DefaultBodyLimit, Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Encoder, Registry, TextEncoder};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Error, LogFilter, Result, net};

/// No filter is longer.
const FILTER_BYTES_MAX: usize = 4096;

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
        let router = router(pages).into_make_service_with_connect_info::<SocketAddr>();
        let server = tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(cancel.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::error!(%error, "telemetry listener ended");
            }
        });
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
