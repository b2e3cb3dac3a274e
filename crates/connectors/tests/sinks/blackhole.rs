//! The blackhole sink.

use async_trait::async_trait;
use bytes::Bytes;
use connector::{Registry, SinkKind, suite::sink as suite};
use model::Options;
use shardwright_connectors::sink::blackhole;

struct Fixture;

#[async_trait]
impl suite::Destination for Fixture {
    fn kind(&self) -> SinkKind {
        let mut registry = Registry::new();
        blackhole::register(&mut registry);
        registry.sink("blackhole").unwrap().clone()
    }

    fn options(&self) -> Options {
        Options::default()
    }

    async fn read(&self) -> Option<Vec<Bytes>> {
        None
    }

    async fn set_outage(&self, _: bool) -> bool {
        false
    }
}

#[tokio::test]
async fn it_keeps_the_promises_of_a_sink() {
    suite::all(|| async { Fixture }).await;
}
