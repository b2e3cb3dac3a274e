//! The fault layer: what stands between the cluster under test and the services that it uses, and makes them fail to order.
//!
//! * [`kinesis::Proxy`]: in front of any Kinesis endpoint (plain HTTP/1.1 or 2, JSON). What goes wrong is a [`Rule`]:
//!   throttled, empty, refused, delayed, cut, never answered, by operation, stream, shard, probability, number and time.
//!   It also keeps the service's limits, trims and hides, and adds what an emulator leaves out.
//! * [`tcp::Link`]: in front of any TCP server (etcd, Kafka, a coordinator): delay, cut, refuse, partition in one or both
//!   directions.
//! * [`api`]: both of them driven over HTTP; in the same process [`Faults`] and [`tcp::Link`] are the handles.
//!
//! Chance comes from one seed. Nothing of the product uses this crate; the cluster tests and the soak do.

pub mod api;
mod faults;
pub mod kinesis;
mod rule;
pub mod tcp;

pub use faults::{Before, Count, Faults, Limits, Standing};
pub use rule::{Entries, Fault, Rule};
