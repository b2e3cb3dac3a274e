//! The way of a subscription's events to its subscriber: a connection on the simulated network with a window as HTTP/2 has
//! one, so that a subscriber who does not read stops the sender. The body of the answer is its end.
//!
//! Frames are numbered. What overtook is put in order again; when a frame was lost for good, the connection breaks as soon as
//! that can be noticed at the subscriber's end, which on a quiet shard is late: half-open until then. When it is lost that the
//! subscriber has read, the window stays smaller: a connection that may stall without breaking.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::mpsc;

use super::{Model, Push, frame};
use crate::{net::Net, place::Place};

/// How often the service looks for something to send.
const PUSH_EVERY: Duration = Duration::from_millis(50);
/// So much may be under way or unread.
const WINDOW_BYTES: usize = 1024 * 1024;
const WINDOW_FRAMES: usize = 64;
/// So much of a message is handed over at once.
const CHUNK: usize = 16 * 1024;
/// A missing frame breaks the connection after this.
const GAP_MAX: Duration = Duration::from_secs(1);

/// The connection broke.
#[derive(Debug)]
pub struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection reset")
    }
}

impl std::error::Error for Reset {}

/// `None` is the orderly end.
type Sent = Option<Bytes>;

/// Both ends of a connection, as each knows it.
pub(super) struct Pipe {
    net: Net,
    place: Place,
    model: Arc<Mutex<Model>>,
    sender: Mutex<Sender>,
    receiver: Mutex<Receiver>,
}

/// At the service.
#[derive(Default)]
struct Sender {
    hung_up: bool,
    unread: (usize, usize),
    frames: u64,
}

/// At the subscriber.
struct Receiver {
    next: u64,
    early: BTreeMap<u64, Sent>,
    gap_since: Option<Duration>,
    body: Option<mpsc::Sender<Sent>>,
}

impl Pipe {
    /// A connection of a process, and its end there.
    pub(super) fn new(net: &Net, place: Place, model: &Arc<Mutex<Model>>) -> (Arc<Self>, Events) {
        // Room for a full window and the end.
        let (body, frames) = mpsc::channel(WINDOW_FRAMES + 2);
        let receiver = Receiver { next: 0, early: BTreeMap::new(), gap_since: None, body: Some(body) };
        let pipe = Arc::new(Self {
            net: net.clone(),
            place,
            model: model.clone(),
            sender: Mutex::default(),
            receiver: Mutex::new(receiver),
        });
        (pipe.clone(), Events { pipe, frames, rest: Bytes::new(), over: false })
    }

    /// The service begins to send.
    pub(super) fn open(self: Arc<Self>, subscription: u64) {
        self.send(Some(frame::initial()));
        self.pump(subscription);
    }

    /// Sends what there is and what there is room for, and looks again later.
    fn pump(self: Arc<Self>, subscription: u64) {
        loop {
            let now = self.net.now();
            let (hung_up, room) = {
                let sender = lock(&self.sender);
                (sender.hung_up, sender.unread.0 < WINDOW_BYTES && sender.unread.1 < WINDOW_FRAMES)
            };
            if hung_up {
                self.note(subscription, "hung up");
                lock(&self.model).hang_up(subscription);
                return;
            }
            let push = lock(&self.model).push(now, subscription, room);
            match push {
                Push::Event(body, _) => self.send(Some(frame::event(&body))),
                Push::Nothing => break,
                Push::End => {
                    self.note(subscription, "ended");
                    return self.send(None);
                }
                Push::Refused(refusal) => {
                    self.note(subscription, &format!("ended: {}", refusal.code));
                    self.send(Some(frame::exception(&refusal)));
                    return self.send(None);
                }
            }
        }
        let net = self.net.clone();
        net.after(PUSH_EVERY, move || self.pump(subscription));
    }

    fn note(&self, subscription: u64, what: &str) {
        self.net.note(Place::Kinesis, format!("{} subscription {subscription} {what}", self.place));
    }

    fn send(self: &Arc<Self>, sent: Sent) {
        let mut sender = lock(&self.sender);
        sender.unread.0 += sent.as_ref().map_or(0, Bytes::len);
        sender.unread.1 += 1;
        let number = sender.frames;
        sender.frames += 1;
        let pipe = self.clone();
        self.net.carry(Place::Kinesis, self.place, move || pipe.arrive(number, sent));
    }

    fn arrive(&self, number: u64, sent: Sent) {
        let mut receiver = lock(&self.receiver);
        receiver.early.insert(number, sent);
        let next = receiver.next;
        loop {
            let expected = receiver.next;
            let Some(sent) = receiver.early.remove(&expected) else { break };
            receiver.next += 1;
            if let Some(body) = &receiver.body {
                // No room cannot be, as the window is smaller; nobody there hangs up by itself.
                drop(body.try_send(sent));
            }
        }
        let now = self.net.now();
        if receiver.early.is_empty() {
            receiver.gap_since = None;
        } else if receiver.next > next {
            receiver.gap_since = Some(now);
        } else if now > *receiver.gap_since.get_or_insert(now) + GAP_MAX {
            receiver.body = None;
        }
    }

    /// Tells the service something that changes what it may send.
    fn tell(self: &Arc<Self>, change: impl FnOnce(&mut Sender) + Send + 'static) {
        let pipe = self.clone();
        self.net.carry(self.place, Place::Kinesis, move || change(&mut lock(&pipe.sender)));
    }
}

/// The subscriber's end: the body of the answer.
pub(super) struct Events {
    pipe: Arc<Pipe>,
    frames: mpsc::Receiver<Sent>,
    /// What is left of a frame.
    rest: Bytes,
    /// The end was read. The SDK asks again, for trailers.
    over: bool,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Reset;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reset>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.rest.is_empty() {
            match ready!(self.frames.poll_recv(cx)) {
                Some(Some(bytes)) => self.rest = bytes,
                Some(None) => {
                    self.over = true;
                    return Poll::Ready(None);
                }
                None => return Poll::Ready(Some(Err(Reset))),
            }
        }
        // As HTTP/2 cuts it, without regard to where a message ends.
        let count = self.rest.len().min(CHUNK);
        let chunk = self.rest.split_to(count);
        let last = self.rest.is_empty();
        self.pipe.tell(move |sender| {
            sender.unread.0 -= count;
            sender.unread.1 -= usize::from(last);
        });
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.pipe.tell(|sender| sender.hung_up = true);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
