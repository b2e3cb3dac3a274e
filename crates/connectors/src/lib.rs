//! The connectors of this house: one folder each, registered by name. `main` calls [`register_all`] once; tests register
//! fakes instead.

mod aws;
pub mod sink;
pub mod source;

pub use aws_sdk_kinesis::config::SharedHttpClient;
use connector::Registry;

/// Adds every connector that is built in.
pub fn register_all(registry: &mut Registry) {
    source::kinesis::register(registry);
    sink::kinesis::register(registry);
    sink::blackhole::register(registry);
    sink::file::register(registry);
    sink::kafka::register(registry);
}
