//! Enhanced fan-out: a shard is pushed to a registered consumer over a connection of its own rate (2 MiB/s a shard and
//! consumer), instead of being asked for (docs/kinesis.md 3.8).
//!
//! * [`consumers`]: who subscribes. One consumer a sink, registered by the leader.
//! * [`subscription`]: one call of five minutes and its events.
//! * [`lines`]: the connections of all subscriptions; those that nobody reads are closed.
//! * [`reader`]: one subscription after the other, without gap or repeat.
//! * [`fallback`]: `kinesis.consumer.mode = 'auto'`, fan-out where it is to be had and polling where not.
//!
//! Places, aggregates, lineage, checks of the stream's identity and the words of a loss are those of polling.

mod consumers;
mod fallback;
mod lines;
mod reader;
mod subscription;

use std::sync::Arc;

use async_trait::async_trait;
use connector::{Registered, Registrar, Result, SplitReader};
use model::{Position, SinkSpec, SplitId};

pub(super) use consumers::Consumers;

use self::{fallback::Fallback, reader::Reader};
use super::{Kinesis, place::Place};

impl Kinesis {
    fn consumers(&self) -> &Arc<Consumers> {
        self.consumers.as_ref().expect("only a source with consumers is a registrar")
    }
}

#[async_trait]
impl Registrar for Kinesis {
    fn name(&self, sink: &SinkSpec) -> String {
        self.consumers().name(sink)
    }

    fn optional(&self) -> bool {
        self.consumers().config.optional
    }

    async fn find(&self, name: &str) -> Result<Registered> {
        self.consumers().find(&self.shared.client, name).await
    }

    async fn register(&self, name: &str) -> Result<()> {
        self.consumers().register(&self.shared.client, name).await
    }

    async fn deregister(&self, name: &str) -> Result<()> {
        self.consumers().deregister(&self.shared.client, name).await
    }

    async fn open(&self, name: &str, split: &SplitId, from: &Position) -> Result<Box<dyn SplitReader>> {
        let place = Place::of(from)?;
        let consumers = Arc::clone(self.consumers());
        let whose = reader::Whose {
            shared: Arc::clone(&self.shared),
            consumers,
            name: name.into(),
            split: split.clone(),
        };
        if self.optional() {
            return Ok(Box::new(Fallback::new(whose, self.pace(split), place)));
        }
        Ok(Box::new(Reader::new(whose, place)))
    }
}
