//! The behaviour suites: what every implementation of a contract must do. Run by the tests of each implementation.

pub mod sink;
pub mod source;
