//! The verbs of the house, without tokio, clock, randomness or I/O: time and chance are passed in, so every decision can be
//! tried by the million.

pub mod ack;
pub mod assign;
pub mod backoff;
pub mod batch;
pub mod checkpoint;
pub mod gate;
pub mod invariant;
pub mod lineage;
pub mod mutant;
pub mod outbox;
pub mod pace;
pub mod plan;
pub mod scale;
mod timing;

pub use timing::Timing;
