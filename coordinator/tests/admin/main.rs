//! The admin API over gRPC: one or two coordinators on a store in memory, connectors that do what a test tells them.

mod calls;
mod catalog;
mod fakes;
mod setup;
mod statements;
