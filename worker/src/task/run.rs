//! One run from its start to its end: the writer is opened, the start is settled, reader and writer work side by side in one
//! tokio task, so that dropping that task drops everything the run has under way.

use std::{sync::Arc, time::Duration};

use connector::{Error, ErrorKind, SinkWriter};
use model::Position;
use tokio::{sync::mpsc, time::Instant};

use super::{
    chunk::Failure,
    decode::Stage,
    job::{Control, Ending, Job},
    reader::Reader,
    retry::Retry,
    shown::{Part, Trouble},
    writer::Writer,
};

/// Chunks between reader and writer; the byte budget bounds what they hold.
const FEED: usize = 8;

/// How long opening a sink's writer may take before it is tried again.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs one epoch of a task until it is told to stop or must fail (P6).
pub(crate) async fn run(job: Arc<Job>, control: Control) -> Ending {
    let fence = Arc::clone(&job.fence);
    let ending = work(job, control).await;
    // P2: a run that was cut off by the fence is stopped, whatever it thought was left in flight.
    Ending { drained: ending.drained && fence.holds(), ..ending }
}

async fn work(job: Arc<Job>, mut control: Control) -> Ending {
    let opened = tokio::select! { biased;
        _ = control.stopping() => return Ending::drained(),
        opened = open(&job) => opened,
    };
    let prepared = opened.and_then(|(sink, start)| Ok((sink, Stage::new(&job, start.clone())?, start)));
    let (sink, stage, start) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => return Ending::failed(failure),
    };
    let (feed, fed) = mpsc::channel(FEED);
    let mut writing = Box::pin(Writer::new(&job, sink, start).run(fed, control));
    let mut reading = Box::pin(Reader::new(&job, stage, feed).run());
    tokio::select! { biased;
        ending = &mut writing => return ending,
        () = &mut reading => {}
    }
    writing.await
}

/// Opens the sink's writer and asks where the destination itself wants to go on.
async fn open(job: &Arc<Job>) -> Result<(Box<dyn SinkWriter>, Position), Failure> {
    let mut retry = Retry::default();
    loop {
        let late = |_| Error::new(ErrorKind::Unavailable, "the destination did not open in time");
        let attempted = tokio::time::timeout(OPEN_TIMEOUT, attempt(job)).await.map_err(late);
        match attempted.flatten() {
            Ok((sink, remembered)) => {
                if retry.worked() {
                    job.shown.trouble(Part::Sink, None);
                }
                let start = remembered.unwrap_or_else(|| job.start.clone());
                job.shown.starts_at(start.clone());
                return Ok((sink, start));
            }
            Err(error) => {
                let kind = error.kind();
                if matches!(kind, ErrorKind::Bug | ErrorKind::Fenced | ErrorKind::Rejected) {
                    return Err(Failure { error: error.to_string(), kind: kind.as_str() });
                }
                let pause = retry.failed(kind).max(Duration::from_millis(50));
                tracing::debug!(task = %job.task, %error, ?pause, "the destination cannot be opened yet");
                let retry_at = Instant::now() + pause;
                let trouble = Trouble { error: error.to_string(), kind: kind.as_str(), retry_at };
                job.shown.trouble(Part::Sink, Some(trouble));
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn attempt(job: &Arc<Job>) -> connector::Result<(Box<dyn SinkWriter>, Option<Position>)> {
    let run = job.run();
    let mut sink = job.fence.guard(job.sink.sink.open(&job.task, &run)).await?;
    if !job.sink.sink.capability().transactional {
        return Ok((sink, None));
    }
    let mut remembered = job.fence.guard(sink.resume_from()).await?;
    Ok((sink, remembered.remove(&job.split)))
}
