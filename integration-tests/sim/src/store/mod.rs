//! The metadata store of the simulation: etcd's semantics ([`Model`]), a server that can be told to fail ([`Server`]), and the
//! product's way to it ([`Client`], one per simulated process), which behaves as the etcd client does: a deadline per call,
//! reads made again, a commit made again only if no server saw it, watches that are opened again and wake after a break.

mod client;
mod commit;
mod fault;
mod lease;
mod model;
mod server;
mod story;
mod versions;
mod watch;

pub use client::Client;
pub use fault::Outage;
pub use model::{Model, NOSPACE};
pub use server::Server;

#[cfg(test)]
mod tests;
