//! TLS on the wires of a cluster: who this process is (`identity`, of three PEM files that are read again when they change),
//! how it takes connections (`listener`) and how it makes them (`dial`).
//!
//! ```text
//!   files ──▶ material ──▶ identity ──▶ listener ──▶ Connection, with the Peer in every request's extensions
//!     │                        └──────▶ dial ──────▶ Dialed
//!     └─ certificate (names, validity)      explain (what went wrong, for people)
//! ```
//!
//! Called by the command line, the coordinator and the worker. Decides who is verified; what a verified one may do is theirs.
//! Keeps I9: no message holds anything of a key.

mod certificate;
mod dial;
mod expiry;
mod explain;
mod files;
mod identity;
mod listener;
mod material;
mod peer;

pub use dial::{Dialed, TlsClient, dial_plain};
pub use expiry::{Use, measure};
pub use identity::{Look, Plaintext, Tls, TlsConfig};
pub use listener::{Connection, Guard, Incoming};
pub use peer::{Demands, Peer};
