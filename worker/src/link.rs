//! Reaching the leader: one coordinator after the other, following redirects, with short pauses, since nothing here stops the
//! data: runs go on while no leader answers, until the fence.

use std::time::Duration;

use futures::future::BoxFuture;
use logic::backoff::Backoff;
use proto::{MESSAGE_BYTES_MAX, Wire, v1};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::trace;

/// How long one coordinator may take to answer at all.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages on their way up; a stream that takes no more is dead.
const UP: usize = 1 << 16;

/// One open session stream.
pub(crate) struct Link {
    /// Counts the streams of this process.
    pub(crate) id: u64,
    pub(crate) up: mpsc::Sender<v1::WorkerMessage>,
    pub(crate) down: Streaming<v1::CoordinatorMessage>,
    /// The coordinator said hello.
    pub(crate) welcomed: bool,
    /// It sent a list: it leads, has loaded, and hears this process. What was said before may have been lost.
    pub(crate) listed: bool,
}

/// Where the worker stands with the coordinators.
pub(crate) enum Phase {
    /// Nobody is asked until then.
    Waiting(Instant),
    /// A connection is being made.
    Dialing(BoxFuture<'static, Result<Channel, String>>),
    /// The hello is on its way.
    Attaching(BoxFuture<'static, Result<Link, String>>),
    /// There is a stream.
    Linked(Box<Link>),
}

/// What the phase came to.
pub(crate) enum Reached {
    Time,
    Dialed(Result<Channel, String>),
    Attached(Result<Link, String>),
    /// `None`: the stream is over.
    Message(Option<v1::CoordinatorMessage>),
}

impl Phase {
    /// What comes next. Cancel safe.
    pub(crate) async fn next(&mut self) -> Reached {
        match self {
            Self::Waiting(until) => {
                tokio::time::sleep_until(*until).await;
                Reached::Time
            }
            Self::Dialing(dialing) => Reached::Dialed(dialing.await),
            Self::Attaching(attaching) => Reached::Attached(attaching.await),
            Self::Linked(link) => match link.down.message().await {
                Ok(message) => Reached::Message(message),
                // Of the certificate, mostly: it is there that a human is needed.
                Err(status) if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) => {
                    Reached::Attached(Err(refused(&status)))
                }
                Err(status) => {
                    tracing::debug!(%status, "the session broke");
                    Reached::Message(None)
                }
            },
        }
    }

    pub(crate) fn link(&mut self) -> Option<&mut Link> {
        match self {
            Self::Linked(link) => Some(link),
            _ => None,
        }
    }
}

/// Which coordinator is asked next.
#[derive(Debug)]
pub(crate) struct Targets {
    known: Vec<String>,
    next: usize,
    leader: Option<String>,
    backoff: Backoff,
    current: String,
    wire: Wire,
}

impl Targets {
    pub(crate) fn new(known: Vec<String>, wire: Wire) -> Self {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        Self { known, next: 0, leader: None, backoff, current: String::new(), wire }
    }

    /// Somebody said who leads.
    pub(crate) fn redirect(&mut self, leader: String) {
        self.leader = (!leader.is_empty()).then_some(leader);
    }

    /// The session stands.
    pub(crate) fn worked(&mut self) {
        self.backoff.worked();
        self.leader = Some(self.current.clone());
    }

    /// It did not work: the others are asked, after a pause.
    pub(crate) fn failed(&mut self) -> Phase {
        if self.leader.as_ref() == Some(&self.current) {
            self.leader = None;
        }
        let pause = self.backoff.failed(0.5 + rand::random::<f64>() / 2.0);
        Phase::Waiting(Instant::now() + pause)
    }

    /// Asks the next one.
    pub(crate) fn dial(&mut self) -> Phase {
        self.current = match self.leader.take() {
            Some(leader) => leader,
            None => {
                let next = self.known[self.next % self.known.len()].clone();
                self.next += 1;
                next
            }
        };
        Phase::Dialing(Box::pin(dial(self.current.clone(), self.wire.clone())))
    }

    pub(crate) fn wire(&self) -> Wire {
        self.wire.clone()
    }

    pub(crate) fn current(&self) -> &str {
        &self.current
    }
}

async fn dial(url: String, wire: Wire) -> Result<Channel, String> {
    let endpoint = wire
        .endpoint(&url)?
        .connect_timeout(DIAL_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true);
    let connected = wire.connect(&endpoint).await;
    connected.map_err(|error| format!("cannot reach the coordinator at {url}: {}", chain(&error)))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Opens the stream over a connection of `wire`; the hello is its first message (P1, P2).
pub(crate) fn attach(wire: Wire, channel: Channel, hello: v1::Hello, id: u64) -> Phase {
    Phase::Attaching(Box::pin(async move {
        let (up, messages) = mpsc::channel(UP);
        let hello = v1::WorkerMessage { message: Some(v1::worker_message::Message::Hello(hello)) };
        up.send(hello).await.map_err(|_| "the session cannot be opened".to_owned())?;
        let mut client = v1::session_client::SessionClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let span = trace::calling("shardwright.v1.Session/Attach");
        let call = client.attach(trace::along(ReceiverStream::new(messages), span.as_ref()));
        let attached = tokio::time::timeout(DIAL_TIMEOUT, call).await;
        let response = attached.map_err(|_| "the coordinator did not answer the hello".to_owned())?.map_err(
            |status| match wire.complaint() {
                Some(complaint) => format!("the session did not come about: {complaint}"),
                None => refused(&status),
            },
        )?;
        Ok(Link { id, up, down: response.into_inner(), welcomed: false, listed: false })
    }))
}

/// Why there is no session. What broke on the way says more than the status around it.
fn refused(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(error) => format!("the session did not come about: {}", chain(error)),
        None => format!("the coordinator refused the session: {}", status.message()),
    }
}
