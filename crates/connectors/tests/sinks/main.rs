//! The sinks that need no service of their own, and Kafka where there is one, against the suite of their contract.

mod blackhole;
mod file;
mod memory;
