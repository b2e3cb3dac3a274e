//! The fault layer does what it says: each fault as a client of the service sees it, in front of a real endpoint.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod calls;
mod control;
mod fanout;
mod front;
mod lines;
mod other;
mod shards;
