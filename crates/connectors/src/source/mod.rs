//! Streams that can be read.

pub mod kinesis;
