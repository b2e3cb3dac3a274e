//! The wire: what crosses between processes, and the border where messages become the model's types.
//!
//! Nothing inside the house speaks protobuf: each message is turned into the model's words (or refused) right here.

/// Generated code.
#[allow(clippy::all, clippy::pedantic, missing_docs)]
pub mod v1 {
    tonic::include_proto!("shardwright.v1");
}

/// The compiled descriptors of every service, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The largest message either side accepts, in bytes. A full task list of 2,000 splits is about 1 MiB.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

mod border;
mod protocol;
mod status;
mod wire;

pub use border::{BadMessage, position_to_wire};
pub use protocol::Protocols;
pub use status::{DOMAIN, StatusExt, refusal};
pub use wire::{Dialing, Duplex, Io, Wire};
