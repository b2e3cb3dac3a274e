//! The coordinator over the in-memory store, with a fake source and fake workers that speak the session protocol. Real time,
//! small constants, and polling with a deadline.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

mod balance;
mod checkpoints;
mod dropping;
mod errors;
mod fake_source;
mod fake_store;
mod fake_worker;
mod generations;
mod given_up;
mod leaders;
mod listing;
mod ownership;
mod secured;
mod setup;
