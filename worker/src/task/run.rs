//! One run from its start to its end: the writer is opened, the start is settled, reader and writer work side by side in one
//! tokio task, so that dropping that task drops everything the run has under way.

use std::{future::Future, sync::Arc, time::Duration};

use connector::{Error, ErrorKind, SinkWriter};
use model::{Position, SplitId};
use tokio::{sync::mpsc, time::Instant};

use super::{
    chunk::Failure,
    decode::Stage,
    forward::Forwarder,
    job::{Control, Ending, Job, Tenure},
    parts::Parts,
    prefix::Prefix,
    reader::Reader,
    retry::Retry,
    shown::{Part, Trouble},
    writer::Writer,
};
use crate::exchange::Door;

/// Chunks between reader and writer; the byte budget bounds what they hold.
const FEED: usize = 8;

/// How long opening a sink's writer may take before it is tried again.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs one epoch of a task that reads a split until it is told to stop or must fail (P6).
pub(crate) async fn run(job: Arc<Job>, control: Control) -> Ending {
    let fence = Arc::clone(&job.fence);
    let ending = work(job, control).await;
    // P2: a run that was cut off by the fence is stopped, whatever it thought was left in flight.
    Ending { drained: ending.drained && fence.holds(), ..ending }
}

/// The same of a task that writes a partition.
pub(crate) async fn run_partition(tenure: Arc<Tenure>, door: Arc<Door>, mut control: Control) -> Ending {
    // From now on streams are taken in: what they bring waits for the sink to open.
    let parts = Parts::new(&tenure, &door);
    let opened = tokio::select! { biased;
        _ = control.stopping() => return Ending::drained(),
        opened = open(&tenure, None) => opened,
    };
    let ending = match opened {
        Ok((sink, _)) => Writer::new(&tenure, None, sink, parts).run(control).await,
        Err(failure) => Ending::failed(failure),
    };
    Ending { drained: ending.drained && tenure.fence.holds(), ..ending }
}

async fn work(job: Arc<Job>, mut control: Control) -> Ending {
    let (feed, fed) = mpsc::channel(FEED);
    if let Some(partitions) = &job.partitions {
        job.shown.starts_at(job.start.clone());
        return match Stage::new(&job, job.start.clone()) {
            Ok(stage) => {
                let forwarding = Forwarder::new(&job, partitions, fed).run(control);
                together(forwarding, Reader::new(&job, stage, feed).run()).await
            }
            Err(failure) => Ending::failed(failure),
        };
    }
    let opened = tokio::select! { biased;
        _ = control.stopping() => return Ending::drained(),
        opened = open(&job.tenure, Some(&job.split)) => opened,
    };
    let prepared = opened.and_then(|(sink, remembered)| {
        let start = remembered.unwrap_or_else(|| job.start.clone());
        job.shown.starts_at(start.clone());
        Ok((sink, Stage::new(&job, start.clone())?, start))
    });
    match prepared {
        Ok((sink, stage, start)) => {
            let intake = Prefix::new(&job, start, fed);
            let writing = Writer::new(&job.tenure, Some(&job.source), sink, intake).run(control);
            together(writing, Reader::new(&job, stage, feed).run()).await
        }
        Err(failure) => Ending::failed(failure),
    }
}

/// Reads and delivers side by side: what was read is delivered after the end of reading too.
async fn together(delivering: impl Future<Output = Ending>, reading: impl Future<Output = ()>) -> Ending {
    let (mut delivering, mut reading) = (Box::pin(delivering), Box::pin(reading));
    tokio::select! { biased;
        ending = &mut delivering => return ending,
        () = &mut reading => {}
    }
    delivering.await
}

type Opened = (Box<dyn SinkWriter>, Option<Position>);

/// Opens the sink's writer and asks where the destination itself wants to go on.
async fn open(tenure: &Arc<Tenure>, split: Option<&SplitId>) -> Result<Opened, Failure> {
    let mut retry = Retry::default();
    loop {
        let late = |_| Error::new(ErrorKind::Unavailable, "the destination did not open in time");
        let attempted = tokio::time::timeout(OPEN_TIMEOUT, attempt(tenure, split)).await.map_err(late);
        match attempted.flatten() {
            Ok(opened) => {
                if retry.worked() {
                    tenure.shown.trouble(Part::Sink, None);
                }
                return Ok(opened);
            }
            Err(error) => {
                let kind = error.kind();
                if matches!(kind, ErrorKind::Bug | ErrorKind::Fenced | ErrorKind::Rejected) {
                    return Err(Failure { error: error.to_string(), kind: kind.as_str() });
                }
                let pause = retry.failed(kind).max(Duration::from_millis(50));
                tracing::debug!(task = %tenure.task, %error, ?pause, "the destination cannot be opened yet");
                let retry_at = Instant::now() + pause;
                let trouble = Trouble { error: error.to_string(), kind: kind.as_str(), retry_at };
                tenure.shown.trouble(Part::Sink, Some(trouble));
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn attempt(tenure: &Arc<Tenure>, split: Option<&SplitId>) -> connector::Result<Opened> {
    let run = tenure.run();
    let mut sink = tenure.fence.guard(tenure.sink.sink.open(&tenure.task, &run)).await?;
    let Some(split) = split.filter(|_| tenure.sink.sink.capability().transactional) else {
        return Ok((sink, None));
    };
    let mut remembered = tenure.fence.guard(sink.resume_from()).await?;
    Ok((sink, remembered.remove(split)))
}
