//! Destinations that can be written to.

pub mod kinesis;
