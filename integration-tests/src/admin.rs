//! An operator's view of the cluster: SQL and status over the admin API, asked of whichever coordinator answers.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use proto::v1::{self, admin_client::AdminClient, execute_reply::Answer};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::{
    Code, Request, Status,
    transport::{Channel, ClientTlsConfig},
};

const CALL: Duration = Duration::from_secs(10);

/// The admin API of a cluster.
#[derive(Clone, Debug)]
pub struct Admin {
    urls: Vec<String>,
    tls: Option<ClientTlsConfig>,
}

impl Admin {
    /// Of the cluster whose coordinators listen there.
    #[must_use]
    pub fn new(urls: Vec<String>) -> Self {
        Self { urls, tls: None }
    }

    /// The same, asked over TLS.
    #[must_use]
    pub fn secured(self, tls: ClientTlsConfig) -> Self {
        Self { tls: Some(tls), ..self }
    }

    async fn client(&self, url: &str) -> Result<AdminClient<Channel>> {
        let mut channel =
            Channel::from_shared(url.to_owned())?.connect_timeout(Duration::from_millis(500)).timeout(CALL);
        if let Some(tls) = &self.tls {
            channel = channel.tls_config(tls.clone())?;
        }
        let channel = channel.connect().await.with_context(|| format!("connecting to {url}"))?;
        Ok(AdminClient::new(channel).max_decoding_message_size(proto::MESSAGE_BYTES_MAX))
    }

    /// Runs SQL, once, on the first coordinator that answers: all replies.
    ///
    /// # Errors
    /// The status of the statement that failed.
    pub async fn try_execute(&self, sql: &str) -> Result<Vec<Answer>, Status> {
        let mut last = Status::unavailable("no coordinator answers");
        for url in &self.urls {
            let Ok(mut client) = self.client(url).await else { continue };
            let request = v1::ExecuteRequest { statement: sql.to_owned(), request_id: String::new() };
            match client.execute(Request::new(request)).await {
                Ok(replies) => return collect(replies.into_inner()).await,
                Err(status) if status.code() == Code::Unavailable => last = status,
                Err(status) => return Err(status),
            }
        }
        Err(last)
    }

    /// Runs SQL; waits up to 20 s for somebody who leads.
    ///
    /// # Errors
    /// The statement's own error, or that nobody answered.
    pub async fn execute(&self, sql: &str) -> Result<Vec<Answer>> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.try_execute(sql).await {
                Ok(answers) => return Ok(answers),
                Err(status) if status.code() == Code::Unavailable && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(status) => return Err(anyhow!("{sql}\n{}", status.message())),
            }
        }
    }

    /// The first column of a result set.
    ///
    /// # Errors
    /// As [`Admin::execute`].
    pub async fn column(&self, sql: &str) -> Result<Vec<String>> {
        let mut values = Vec::new();
        for answer in self.execute(sql).await? {
            let Answer::Rows(set) = answer else { continue };
            let first = |row: v1::Row| row.values.into_iter().next().and_then(|v| v.text).unwrap_or_default();
            values.extend(set.rows.into_iter().map(first));
        }
        Ok(values)
    }

    /// The state of the cluster, from the first coordinator that knows it.
    ///
    /// # Errors
    /// When none does.
    pub async fn status(&self) -> Result<v1::StatusReply> {
        let mut last = anyhow!("no coordinator given");
        for url in &self.urls {
            let asked =
                async { Ok::<_, anyhow::Error>(self.client(url).await?.status(v1::StatusRequest {}).await?) };
            match asked.await {
                Ok(reply) => return Ok(reply.into_inner()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Waits until `settled` finds nothing to wait for; the time that took.
    ///
    /// # Errors
    /// After `deadline`, with what it waited for last.
    pub async fn wait(
        &self,
        what: &str,
        deadline: Duration,
        mut settled: impl FnMut(&v1::StatusReply) -> Result<(), String>,
    ) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let waits_for = match self.status().await {
                Ok(status) => match settled(&status) {
                    Ok(()) => return Ok(start.elapsed()),
                    Err(reason) => reason,
                },
                Err(error) => format!("{error:#}"),
            };
            if start.elapsed() > deadline {
                bail!("{what}: not after {deadline:?}: {waits_for}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for an event of this kind, past ones included.
    ///
    /// # Errors
    /// When there is none within `deadline`.
    pub async fn event(&self, kind: &str, deadline: Duration) -> Result<v1::Event> {
        let told = async {
            loop {
                for url in &self.urls {
                    let Ok(mut client) = self.client(url).await else { continue };
                    let Ok(events) = client.watch_events(v1::WatchEventsRequest::default()).await else {
                        continue;
                    };
                    let mut events = events.into_inner();
                    while let Some(Ok(event)) = events.next().await {
                        if event.kind == kind {
                            return event;
                        }
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(deadline, told).await.with_context(|| format!("no event {kind} in {deadline:?}"))
    }

    /// Drains a worker and waits until it holds nothing.
    ///
    /// # Errors
    /// When it still holds tasks after `deadline`.
    pub async fn drain(&self, worker: &str, deadline: Duration) -> Result<()> {
        self.set_drain(worker, false, deadline).await
    }

    /// Lets a drained worker take tasks again.
    ///
    /// # Errors
    /// When nobody who leads answers within `deadline`.
    pub async fn undo_drain(&self, worker: &str, deadline: Duration) -> Result<()> {
        self.set_drain(worker, true, deadline).await
    }

    async fn set_drain(&self, worker: &str, undo: bool, deadline: Duration) -> Result<()> {
        let drained = async {
            let mut last = anyhow!("no coordinator given");
            for url in &self.urls {
                let Ok(mut client) = self.client(url).await else { continue };
                let request = v1::DrainWorkerRequest { worker: worker.to_owned(), undo };
                match client.drain_worker(request).await {
                    Ok(stream) => {
                        let mut stream = stream.into_inner();
                        while let Some(progress) = stream.next().await {
                            progress?;
                        }
                        return Ok(());
                    }
                    Err(status) => last = status.into(),
                }
            }
            Err(last)
        };
        tokio::time::timeout(deadline, drained).await.with_context(|| format!("draining {worker}"))?
    }
}

async fn collect(mut replies: tonic::Streaming<v1::ExecuteReply>) -> Result<Vec<Answer>, Status> {
    let mut answers = Vec::new();
    while let Some(reply) = replies.next().await {
        answers.extend(reply?.answer);
    }
    Ok(answers)
}

/// Every split that is not ended is read and written by one of these workers, which are all live.
///
/// # Errors
/// What is not so, in words.
pub fn all_reading(status: &v1::StatusReply, workers: &[&str]) -> Result<(), String> {
    for name in workers {
        let live = status.workers.iter().any(|w| w.name == *name && w.state == "live");
        if !live {
            return Err(format!("worker {name} is not live"));
        }
    }
    if status.splits.is_empty() {
        return Err("no split is known".to_owned());
    }
    for split in status.splits.iter().filter(|s| s.state != "drained") {
        if !matches!(split.state.as_str(), "reading" | "writing") {
            return Err(format!("{} of {}: {} {}", split.split, split.sink, split.state, split.waits_for));
        }
        if !workers.contains(&split.worker.as_str()) {
            return Err(format!("{} of {} is still with {}", split.split, split.sink, split.worker));
        }
    }
    Ok(())
}
