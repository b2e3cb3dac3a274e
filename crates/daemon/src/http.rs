//! The HTTP listener of a process: `/metrics`, `/healthz` (alive) and `/readyz` (able to do its work).
//!
//! Roles set the [`Health`]; Kubernetes and people read it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Error, Result, net};

/// Whether a process can do its work, and if not, why.
#[derive(Clone, Debug)]
pub struct Health {
    waits_for: Arc<Mutex<Option<String>>>,
}

impl Default for Health {
    /// Not ready: it starts.
    fn default() -> Self {
        Self { waits_for: Arc::new(Mutex::new(Some("starting".to_owned()))) }
    }
}

impl Health {
    /// From now on `/readyz` says 200.
    pub fn ready(&self) {
        self.set(None);
    }

    /// From now on `/readyz` says 503 and this reason.
    pub fn not_ready(&self, waits_for: impl Into<String>) {
        self.set(Some(waits_for.into()));
    }

    /// What it waits for; `None` when it is ready.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        self.waits_for.lock().expect("nobody panics while holding this lock").clone()
    }

    fn set(&self, waits_for: Option<String>) {
        *self.waits_for.lock().expect("nobody panics while holding this lock") = waits_for;
    }
}

/// The running listener.
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Http {
    /// Listens at `address` until `cancel`. A port in use is an error that names `telemetry.listen`.
    pub async fn start(
        address: &str,
        registry: Registry,
        health: Health,
        cancel: CancellationToken,
    ) -> Result<Self> {
        let listener = net::listen(address, "telemetry.listen").await?;
        let address =
            listener.local_addr().map_err(|error| Error::system(format!("telemetry listener: {error}")))?;
        let router = Router::new()
            .route("/metrics", get(metrics))
            .with_state(registry)
            .merge(Router::new().route("/readyz", get(readyz)).with_state(health))
            .route("/healthz", get(|| async { "ok\n" }));
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

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    match health.waits_for() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn metrics(State(registry): State<Registry>) -> impl IntoResponse {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => Ok(([(CONTENT_TYPE, encoder.format_type().to_owned())], text)),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))),
    }
}
