//! What a sink claims beyond "at least once". Each claim is tested by the suite.

/// Claims of a sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capability {
    /// Rows of one key, written one request after the other, are read in that order (I10).
    pub ordered: bool,
    /// May take one row of a request and not an earlier one (partial failures): the worker then never puts two rows of one key
    /// into one request.
    pub piecemeal: bool,
    /// The same batch twice is there once.
    pub idempotent: bool,
    /// Remembers positions together with the data: `resume_from` overrides the checkpoint.
    pub transactional: bool,
    /// Refuses the writes of an older epoch by itself: a takeover needs no gate (P10).
    pub fenced: bool,
}
