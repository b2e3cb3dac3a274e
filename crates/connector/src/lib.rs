//! The contract between the cluster and the world outside: what a source and a sink promise, and how they are found.
//!
//! The worker drives these traits and owns everything that is alike for all connectors: memory, retries, ordering, batching,
//! checkpoints, dead letters. A connector does one attempt and says honestly what came of it. The behaviour suites test every
//! claim of every implementation.

mod capability;
mod credential;
mod error;
mod options;
mod registry;
mod sink;
mod source;
pub mod suite;

pub use capability::Capability;
pub use credential::{CredentialKind, Credentials, IDENTITY, Part, SECRET, missing as missing_part};
pub use error::{Error, ErrorKind, Result};
pub use options::{OptionDef, OptionError, OptionKind, Reader, looks_secret, nearest};
pub use registry::{BuildSink, BuildSource, DistributionKind, Registry, SinkKind, SourceKind};
pub use sink::{
    BatchLimits, COMMON, Delivery, KeyRule, Ordering, Rejected, Run, Sink, SinkCommon, SinkWriter, Takeover,
};
pub use source::{Gap, Listing, Polled, Registered, Registrar, Source, SplitReader};
