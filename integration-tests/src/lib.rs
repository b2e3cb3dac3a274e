//! What the demo and the cluster tests stand on: real processes, a Kinesis endpoint, a keyed and numbered load, and the
//! ledger that reads the destinations back and says what was lost, repeated or out of order.

pub mod admin;
pub mod cluster;
pub mod endpoint;
pub mod layer;
pub mod ledger;
pub mod load;
pub mod pki;
pub mod process;
pub mod readback;
pub mod servers;
