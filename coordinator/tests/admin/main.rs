//! The admin API over gRPC: one or two coordinators on a store in memory, connectors that do what a test tells them.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

mod audited;
mod calls;
mod catalog;
mod credentials;
mod fakes;
mod forwarded;
mod grants;
mod login;
mod logins;
mod registrations;
mod replacing;
mod setup;
mod statements;
mod tokens;
