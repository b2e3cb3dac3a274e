//! What users see of the formats: the tables of the SQL surface, row by row.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test that cannot go on panics; a table is as long as it is"
)]

mod decode;
mod encode;
mod support;
