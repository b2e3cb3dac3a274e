//! The coordinator: elects a leader, which assigns tasks to workers, makes their positions durable, follows resharding, and
//! keeps the catalog, secrets sealed (`secrets`, `credentials`).
//!
//! Decisions live in `logic`; here are the shells around them: `office` (election), `term` (everything that lives as long as
//! one leadership), `session` (workers), `reconciler` and `execute`, `checkpointer`, `discovery`, `catalog`, `upkeep`.
//! ARCHITECTURE.md shows how a record and a statement travel; docs/protocol.md has the rules P1–P22.

mod admin;
mod balance;
mod catalog;
mod checkpointer;
mod clock;
mod config;
mod credentials;
mod discovery;
mod error;
mod events;
mod execute;
mod generation;
mod grantees;
mod handle;
mod membership;
mod memory;
mod meters;
mod office;
mod reconciler;
mod registration;
mod replace;
mod secrets;
mod server;
mod session;
mod status;
mod term;
mod upkeep;
mod versions;

pub use admin::{Anonymous, AuthConfig, JwtConfig, Secret};
pub use config::Config;
pub use error::{Error, ErrorKind, Result};
pub use events::Level;
pub use handle::{BadRow, Dropped, Handle, Leader, ResetTo};
pub use secrets::{Plaintext, SecretsConfig, Unreadable, Vault, new_master_key};
pub use server::{Server, Site};
