//! The memory sink.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use connector::{ErrorKind, Registry, SinkKind, suite::sink as suite};
use model::Options;
use shardwright_connectors::sink::memory::{self, Memory};

struct Fixture {
    name: String,
    memory: Arc<Memory>,
}

impl Fixture {
    async fn fresh() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("suite-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let memory = Memory::named(&name);
        memory.set_poison(Some(Bytes::from_static(b"poison")));
        Self { name, memory }
    }
}

#[async_trait]
impl suite::Destination for Fixture {
    fn kind(&self) -> SinkKind {
        let mut registry = Registry::new();
        memory::register(&mut registry);
        registry.sink("memory").unwrap().clone()
    }

    fn options(&self) -> Options {
        [("name", self.name.as_str())].into_iter().collect()
    }

    async fn read(&self) -> Option<Vec<Bytes>> {
        Some(self.memory.stored().into_iter().map(|s| s.value).collect())
    }

    async fn set_outage(&self, on: bool) -> bool {
        self.memory.set_outage(on.then_some(ErrorKind::Unavailable));
        true
    }

    fn poison(&self) -> Option<String> {
        Some("poison".to_owned())
    }
}

#[tokio::test]
async fn it_keeps_the_promises_of_a_sink() {
    suite::all(Fixture::fresh).await;
}
