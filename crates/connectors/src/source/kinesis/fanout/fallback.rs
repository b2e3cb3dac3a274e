//! `kinesis.consumer.mode = 'auto'`: fan-out where it is to be had, polling where not. It changes between two answers, at the
//! same place, so nothing is lost or repeated.
//!
//! ```text
//! subscribes ──not registered, not allowed──▶ polls ──the consumer is there, after a while──▶ subscribes
//! ```

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use connector::{Error, ErrorKind, Gap, Polled, Result, SplitReader};
use futures::future::BoxFuture;
use model::{Cursor, Timestamp};
use tokio::time::Instant;

use super::{
    super::{client::NOT_FOUND, meters::Meters, pace::Pace, place::Place, reader::Reader as Polling},
    consumers::NOT_REGISTERED,
    reader::{Reader as Subscribing, Whose},
};

/// A consumer that was just asked for is there within seconds.
const LOOK_FIRST: Duration = Duration::from_secs(10);
/// How often it is looked for after that, or tried once more after a refusal.
const LOOK_EVERY: Duration = Duration::from_secs(300);

enum Way {
    Subscribes(Box<Subscribing>),
    Polls(Box<Polling>),
    /// Between the two, within one call.
    Changing,
}

/// Reads one shard by whichever way is open.
pub(super) struct Fallback {
    whose: Whose,
    pace: Arc<Pace>,
    meters: Meters,
    way: Way,
    look_at: Instant,
    looks: u32,
    /// The look under way; it goes on after a `next` that was dropped.
    looking: Option<BoxFuture<'static, Result<Arc<str>>>>,
    /// What the former way found out and could not tell any more.
    gap: Option<Gap>,
}

impl Fallback {
    pub(super) fn new(whose: Whose, pace: Arc<Pace>, place: Place) -> Self {
        Self {
            meters: Meters::new(whose.shared.client.stream(), whose.split.name()),
            way: Way::Subscribes(Box::new(Subscribing::new(whose.clone(), place))),
            whose,
            pace,
            look_at: Instant::now(),
            looks: 0,
            looking: None,
            gap: None,
        }
    }

    /// Goes on by polling, if that is what the error asks for.
    fn fall_back(&mut self, error: Error) -> Result<()> {
        let code = error.vendor_code();
        let absent = code == Some(NOT_REGISTERED) || code == Some(NOT_FOUND);
        if !absent && error.kind() != ErrorKind::Denied {
            return Err(error);
        }
        let shard = &self.whose.split;
        if absent && self.looks == 0 {
            tracing::info!(%shard, "polls until it can subscribe: {error}");
        } else {
            tracing::warn!(%shard, "polls instead of subscribing: {error}");
        }
        self.meters.polls_instead();
        self.gap = self.gap();
        self.look_at = Instant::now() + if absent && self.looks == 0 { LOOK_FIRST } else { LOOK_EVERY };
        self.looks += 1;
        self.way = match std::mem::replace(&mut self.way, Way::Changing) {
            Way::Subscribes(reader) => {
                let Whose { shared, split, .. } = self.whose.clone();
                let place = (*reader).into_place();
                Way::Polls(Box::new(Polling::new(shared, split, Arc::clone(&self.pace), place)))
            }
            other => other,
        };
        Ok(())
    }

    /// Subscribes again if the consumer is there by now.
    async fn look(&mut self) {
        if !matches!(self.way, Way::Polls(_)) || (self.looking.is_none() && self.look_at > Instant::now()) {
            return;
        }
        let looking = self.looking.get_or_insert_with(|| {
            let Whose { shared, consumers, name, .. } = self.whose.clone();
            Box::pin(async move { consumers.arn(&shared.client, &name).await })
        });
        let found = looking.await;
        self.looking = None;
        self.look_at = Instant::now() + LOOK_EVERY;
        self.looks += 1;
        if let Err(error) = found {
            tracing::debug!(shard = %self.whose.split, %error, "goes on polling");
            return;
        }
        self.gap = self.gap();
        self.way = match std::mem::replace(&mut self.way, Way::Changing) {
            Way::Polls(reader) => {
                Way::Subscribes(Box::new(Subscribing::new(self.whose.clone(), (*reader).into_place())))
            }
            other => other,
        };
    }

    fn way(&mut self) -> &mut dyn SplitReader {
        match &mut self.way {
            Way::Subscribes(reader) => reader.as_mut(),
            Way::Polls(reader) => reader.as_mut(),
            Way::Changing => unreachable!("it changes within one call, without an await"),
        }
    }
}

#[async_trait]
impl SplitReader for Fallback {
    async fn ready(&mut self) {
        self.way().ready().await;
    }

    async fn next(&mut self) -> Result<Polled> {
        self.look().await;
        loop {
            match self.way().next().await {
                Err(error) if matches!(self.way, Way::Subscribes(_)) => self.fall_back(error)?,
                outcome => return outcome,
            }
        }
    }

    fn passed(&mut self) -> Option<Cursor> {
        self.way().passed()
    }

    fn now(&self) -> Timestamp {
        match &self.way {
            Way::Subscribes(reader) => reader.now(),
            Way::Polls(reader) => reader.now(),
            Way::Changing => unreachable!("it changes within one call, without an await"),
        }
    }

    fn horizon(&self) -> Option<Timestamp> {
        match &self.way {
            Way::Subscribes(reader) => reader.horizon(),
            Way::Polls(reader) => reader.horizon(),
            Way::Changing => unreachable!("it changes within one call, without an await"),
        }
    }

    fn gap(&mut self) -> Option<Gap> {
        let former = self.gap.take();
        self.way().gap().or(former)
    }
}
