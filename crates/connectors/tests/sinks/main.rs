//! The sinks that need no service of their own, and Kafka where there is one, against the suite of their contract.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod blackhole;
mod file;
mod kafka;
mod memory;
