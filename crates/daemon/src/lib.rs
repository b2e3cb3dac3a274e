//! What every process of the house has: settings from three places, logs, metrics and traces, the HTTP listener that says how
//! it is, and an orderly answer to signals.
//!
//! Knows no role: the coordinator, the worker and the command line call it, and it calls nobody. A process starts in the
//! order [`config::load`], [`Telemetry::start`], [`stop_on_signals`], [`Http::start`].

mod board;
pub mod config;
mod error;
mod grpc;
mod http;
mod logs;
mod net;
mod signals;
mod telemetry;
pub mod tls;
pub mod trace;

pub use board::Board;
pub use error::{Error, ErrorKind, Result};
pub use grpc::GrpcCalls;
pub use http::{Health, Http, Pages, Tasks};
pub use logs::LogFilter;
pub use net::listen;
pub use signals::stop_on_signals;
pub use telemetry::{LogFormat, Service, Telemetry, TelemetryConfig};
pub use tls::Peer;
