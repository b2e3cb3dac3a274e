//! The exchange: rows of splits on their way to the partitions of sinks that are distributed by key (P16–P21).
//!
//! ```text
//! run of a split ──▶ peers ──▶ door ──▶ run of a partition          within a process: a channel
//!                      │         ▲
//!                      └─ gRPC ──┘ serve                            between workers: Arrow IPC, lz4
//! ```
//!
//! A stream is named by a run of a split and a run of a partition. What is sent is not kept: a stream that broke can be opened
//! again only if nothing of it was lost. Who sends what is in `task::forward`, who takes it in `task::parts`.

mod border;
mod credit;
mod door;
mod hash;
mod ipc;
mod part;
mod peers;
mod serve;

pub(crate) use credit::Place;
pub(crate) use door::{Acked, Arrival, Door, Entry, Open, PARTS_MAX, Reason, Said};
pub(crate) use hash::Partitioner;
pub(crate) use part::{Part, Rows, split};
pub(crate) use peers::{Line, Owner, Peers};
pub(crate) use serve::serve;

#[cfg(test)]
pub(crate) use door::{Ends, stream};
