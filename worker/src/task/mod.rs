//! Runs: one epoch of a task each (P6). The session starts and stops them; a run reads, decodes and delivers by itself, and
//! shows how far it is.

mod chunk;
mod decode;
mod forward;
mod held;
mod intake;
mod job;
mod keys;
mod outlet;
mod parts;
mod prefix;
mod reader;
mod refusal;
mod retry;
mod run;
mod shown;
mod verdict;
mod writer;

pub(crate) use crate::metrics::labels;
pub(crate) use chunk::{Failure, Letter};
pub(crate) use job::{BuiltSink, BuiltSource, Commons, Control, Ending, Job, Partitions, Tenure};
pub(crate) use refusal::{REFUSALS_MAX, pause_after_refusal};
pub(crate) use retry::Retry;
pub(crate) use run::{run, run_partition};
pub(crate) use shown::{Part, Reached, Shown, Trouble};

#[cfg(test)]
mod tests;
