//! The verbs of the house, without tokio, clock, randomness or I/O: time and chance are passed in, so every decision can be
//! tried by the million.

pub mod backoff;
pub mod pace;
mod timing;

pub use timing::Timing;
