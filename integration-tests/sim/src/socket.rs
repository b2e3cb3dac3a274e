//! Connections between simulated processes: bytes in order, each write a parcel of `net`. A partition delays them; a parcel that
//! the network gives up breaks its connection, on both sides.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use bytes::{Buf as _, Bytes};
use proto::{Dialing, Io, Wire};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{mpsc, oneshot},
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{net::Net, place::Place};

/// Bytes that may be on their way in one direction before a writer waits.
const WINDOW: usize = 256 << 10;

/// Connections that may wait to be accepted.
const BACKLOG: usize = 128;

/// One direction of a connection.
#[derive(Default)]
struct Half {
    /// What arrived in order and was not read.
    arrived: VecDeque<Bytes>,
    /// What arrived before something that was sent earlier.
    early: BTreeMap<u64, Option<Bytes>>,
    /// Number of the next parcel in order, and of the next to be sent.
    next: u64,
    sent: u64,
    /// Sent and not read.
    in_flight: usize,
    finished: bool,
    broken: bool,
    /// Nothing arrives any more, not even what is under way.
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Half {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

type Shared = Arc<Mutex<Half>>;

fn lock(half: &Shared) -> MutexGuard<'_, Half> {
    half.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Some bytes, or the end, under way. Dropped before it arrived, it takes the connection with it.
struct Parcel {
    half: Shared,
    other: Shared,
    number: u64,
    bytes: Option<Bytes>,
    arrived: bool,
}

impl Parcel {
    fn arrive(mut self) {
        self.arrived = true;
        let mut half = lock(&self.half);
        if half.reset {
            return;
        }
        let bytes = self.bytes.take();
        half.early.insert(self.number, bytes);
        loop {
            let next = half.next;
            let Some(parcel) = half.early.remove(&next) else { break };
            half.next += 1;
            match parcel {
                Some(bytes) => half.arrived.push_back(bytes),
                None => half.finished = true,
            }
        }
        half.wake();
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if !self.arrived {
            for half in [&self.half, &self.other] {
                let mut half = lock(half);
                half.broken = true;
                half.wake();
            }
        }
    }
}

/// One end of a connection.
pub struct Socket {
    net: Net,
    here: Place,
    there: Place,
    incoming: Shared,
    outgoing: Shared,
}

impl Socket {
    fn pair(net: &Net, a: Place, b: Place) -> (Self, Self) {
        let (ab, ba) = (Shared::default(), Shared::default());
        let end = |here, there, incoming: &Shared, outgoing: &Shared| Self {
            net: net.clone(),
            here,
            there,
            incoming: Arc::clone(incoming),
            outgoing: Arc::clone(outgoing),
        };
        (end(a, b, &ba, &ab), end(b, a, &ab, &ba))
    }

    fn send(&self, half: &mut Half, bytes: Option<Bytes>) {
        let number = half.sent;
        half.sent += 1;
        let (half, other) = (Arc::clone(&self.outgoing), Arc::clone(&self.incoming));
        let parcel = Parcel { half, other, number, bytes, arrived: false };
        self.net.carry(self.here, self.there, move || parcel.arrive());
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let outgoing = Arc::clone(&self.outgoing);
        let mut half = lock(&outgoing);
        if !half.finished {
            self.send(&mut half, None);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut half = lock(&self.incoming);
        if let Some(bytes) = half.arrived.front_mut() {
            let count = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes[..count]);
            bytes.advance(count);
            if bytes.is_empty() {
                half.arrived.pop_front();
            }
            half.in_flight -= count;
            if let Some(writer) = half.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
        if half.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if half.finished {
            return Poll::Ready(Ok(()));
        }
        half.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut half = lock(&self.outgoing);
        if half.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if half.in_flight >= WINDOW {
            half.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        half.in_flight += bytes.len();
        self.send(&mut half, Some(Bytes::copy_from_slice(bytes)));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut half = lock(&self.outgoing);
        self.send(&mut half, None);
        Poll::Ready(Ok(()))
    }
}

/// The two directions of a connection.
type Halves = [Weak<Mutex<Half>>; 2];

/// With the places at its ends.
type Connections = Vec<([Place; 2], Halves)>;

type Listeners = BTreeMap<String, (Place, mpsc::Sender<io::Result<Io>>)>;

/// Who listens where.
#[derive(Clone)]
pub struct Sockets {
    net: Net,
    listeners: Arc<Mutex<Listeners>>,
    connections: Arc<Mutex<Connections>>,
}

impl Sockets {
    /// Nobody yet.
    #[must_use]
    pub fn new(net: Net) -> Self {
        Self { net, listeners: Arc::default(), connections: Arc::default() }
    }

    /// Breaks every connection between two places, with all that is under way on it.
    pub fn reset(&self, a: Place, b: Place) {
        for (ends, halves) in self.connections().iter() {
            if *ends != [a, b] && *ends != [b, a] {
                continue;
            }
            for half in halves.iter().filter_map(Weak::upgrade) {
                let mut half = lock(&half);
                (half.broken, half.reset) = (true, true);
                half.arrived.clear();
                half.early.clear();
                half.wake();
            }
        }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens at `host:port`. A later listener of the same place replaces an earlier one.
    #[must_use]
    pub fn listen(&self, place: Place, authority: &str) -> ReceiverStream<io::Result<Io>> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        self.listeners().insert(authority.to_owned(), (place, sender));
        ReceiverStream::new(receiver)
    }

    /// How a process at `place` reaches listeners.
    #[must_use]
    pub fn wire(&self, place: Place) -> Wire {
        let sockets = self.clone();
        Wire::over(move |uri| {
            let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
            sockets.dial(place, authority)
        })
    }

    fn dial(&self, from: Place, authority: String) -> Dialing {
        let to = self.listeners().get(&authority).map(|(place, _)| *place);
        let sockets = self.clone();
        Box::pin(async move {
            let to = to.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            let (tell, told) = oneshot::channel();
            let net = sockets.net.clone();
            net.clone().carry(from, to, move || {
                let accepted = sockets.accept(from, to, &authority);
                net.carry(to, from, move || drop(tell.send(accepted)));
            });
            let answer = told.await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?;
            answer.map(|socket| Box::new(socket) as Io)
        })
    }

    fn accept(&self, from: Place, to: Place, authority: &str) -> io::Result<Socket> {
        let listener = self.listeners().get(authority).map(|(_, listener)| listener.clone());
        let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (near, far) = Socket::pair(&self.net, from, to);
        let mut connections = self.connections();
        connections.retain(|(_, halves)| halves.iter().all(|half| half.strong_count() > 0));
        connections.push(([from, to], [&near.incoming, &near.outgoing].map(Arc::downgrade)));
        drop(connections);
        match listener.try_send(Ok(Box::new(far))) {
            Ok(()) => Ok(near),
            Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_reset_takes_everything_with_it_that_is_under_way() {
        let net = Net::new(1);
        let sockets = Sockets::new(net.clone());
        let (near, far) = (Place::Worker(0), Place::Worker(1));
        let mut incoming = sockets.listen(far, "w1:1");
        let dialing = sockets.dial(near, "w1:1".to_owned());
        let step = |seconds| net.run_until(Duration::from_secs(seconds));
        let (dialed, ()) = tokio::join!(dialing, async {
            for second in 1..4 {
                step(second);
                tokio::task::yield_now().await;
            }
        });
        let mut dialed = dialed.unwrap();
        let mut accepted = tokio_stream::StreamExt::next(&mut incoming).await.unwrap().unwrap();
        dialed.write_all(b"arrives").await.unwrap();
        step(5);
        let mut buffer = [0; 7];
        accepted.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"arrives");
        dialed.write_all(b"is lost").await.unwrap();
        sockets.reset(far, near);
        step(6);
        assert!(accepted.read(&mut buffer).await.is_err());
        assert!(dialed.write(b"more").await.is_err());
    }
}
