//! The two targets of a run's dead letters: one for records that could not be decoded, one for rows that the sink refused.

use std::{future::pending, sync::Arc};

use logic::ack::ChunkId;
use model::SplitId;

use super::{Buried, DeadLetters};
use crate::task::{BuiltSink, Letter, Tenure};

/// The dead letters of a run, to either target.
pub(crate) struct Desks {
    source: Option<DeadLetters>,
    sink: Option<DeadLetters>,
}

impl Desks {
    /// `source`: where records go that could not be decoded; without a target of their own, where the sink's rows go.
    pub(crate) fn new(tenure: &Arc<Tenure>, source: Option<&Arc<BuiltSink>>) -> Self {
        let sink = tenure.sink.letters.as_ref();
        let desk = |target| DeadLetters::new(tenure, target);
        Self { source: source.or(sink).map(desk), sink: sink.map(desk) }
    }

    /// True when nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        [&self.source, &self.sink].into_iter().flatten().all(DeadLetters::is_empty)
    }

    /// Records that could not be decoded.
    pub(crate) fn of_source(&mut self, chunk: ChunkId, split: &SplitId, letters: Vec<Letter>) {
        if let Some(desk) = &mut self.source {
            letters.into_iter().for_each(|letter| desk.push(chunk, split.clone(), letter));
        }
    }

    /// Records of rows that the sink does not take.
    pub(crate) fn of_sink(&mut self, chunk: ChunkId, split: &SplitId, letters: Vec<Letter>) {
        if let Some(desk) = &mut self.sink {
            letters.into_iter().for_each(|letter| desk.push(chunk, split.clone(), letter));
        }
    }

    /// Whether refused rows have a target.
    pub(crate) fn takes_rows(&self) -> bool {
        self.sink.is_some()
    }

    /// What comes of the next letters. Cancel safe; never resolves without letters.
    pub(crate) async fn buried(&mut self) -> Buried {
        let Self { source, sink } = self;
        tokio::select! { biased;
            buried = of(source) => buried,
            buried = of(sink) => buried,
        }
    }
}

async fn of(desk: &mut Option<DeadLetters>) -> Buried {
    match desk {
        Some(desk) => desk.buried().await,
        None => pending().await,
    }
}
