//! What every process of the house has: settings from three places, logs and metrics, the HTTP listener that says how it
//! is, and an orderly answer to signals.
//!
//! Knows no role: the coordinator, the worker and the command line call it, and it calls nobody. A process starts in the
//! order [`config::load`], [`Telemetry::start`], [`stop_on_signals`], [`Http::start`].

pub mod config;
mod error;
mod http;
mod net;
mod signals;
mod telemetry;
pub mod tls;

pub use error::{Error, ErrorKind, Result};
pub use http::{Health, Http};
pub use net::listen;
pub use signals::stop_on_signals;
pub use tls::Peer;
pub use telemetry::{LogFormat, Telemetry, TelemetryConfig};
