//! Streams that can be read.

pub mod datagen;
pub mod kinesis;
