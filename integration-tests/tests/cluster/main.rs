//! The cluster tests: real processes, a real etcd, real accidents, and the ledger at the end of each.
//!
//! Every test starts its own etcd, Kinesis endpoint, coordinators and workers, puts a keyed and numbered load on the stream
//! while something happens, and then reads both destinations back: nothing lost (I1), no key out of order (I10, I11).

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod canary;
mod catalog;
mod coordinators;
mod datagen;
mod fanout;
mod garbage;
mod kafka;
mod latest;
mod lines;
mod resharding;
mod restore;
mod secured;
mod service;
mod sharing;
mod soak;
mod trial;
mod workers;
