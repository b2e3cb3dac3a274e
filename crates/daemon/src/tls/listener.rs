//! Connections that come in. Before one is handed on it has to be somebody: its TLS handshake done within a few seconds, its
//! certificate verified, room for it; and it has to begin to speak HTTP/2 soon after. Who only takes room is turned away, the
//! one that has taken it for longest first, so that strangers who keep silent do not keep others out.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use opentelemetry::{KeyValue, global, metrics::Counter};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinSet},
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use super::{certificate, explain, identity::Tls, peer::Peer};

/// How long a TLS handshake may take, from the first byte awaited to the last one sent.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes under way.
const HANDSHAKES_MAX: usize = 256;
/// How long the first words of HTTP/2 may take on a connection that stands.
const OPENING: Duration = Duration::from_secs(10);
/// Those words: `PRI * HTTP/2.0` and what belongs to it.
const OPENING_BYTES: usize = 24;
/// Connections of one listener, where the system allows that many files.
const CONNECTIONS_MAX: usize = 4096;
/// How long one who is turned away may take to listen to the reason.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long accepting rests when the system refuses (no files left).
const REST: Duration = Duration::from_millis(100);
/// One line of the log in so much time about those who are turned away.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// "Unexpected message", fatal: what TLS says to those who speak something else.
const ALERT: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x0a];

/// Whose connections are taken.
#[derive(Clone, Debug)]
pub enum Guard {
    /// Anybody's, without TLS.
    Plain,
    /// Over TLS; a certificate is verified if one is shown.
    Asks(Tls),
    /// Over TLS, of those who show a certificate of the cluster's authority.
    Demands(Tls),
}

impl Guard {
    /// For a listener that others than the cluster use too.
    #[must_use]
    pub fn asks(tls: Option<&Tls>) -> Self {
        tls.map_or(Self::Plain, |tls| Self::Asks(tls.clone()))
    }

    /// For a listener that only the cluster uses.
    #[must_use]
    pub fn demands(tls: Option<&Tls>) -> Self {
        tls.map_or(Self::Plain, |tls| Self::Demands(tls.clone()))
    }
}

/// The connections of a listener, each ready to be served. Never ends by itself; dropping it closes the port.
pub struct Incoming {
    tcp: TcpListener,
    gate: Arc<Gate>,
    room: Arc<Semaphore>,
    shaking: JoinSet<Option<Connection>>,
    /// The oldest first; those that are over are swept out when there are many.
    oldest: VecDeque<AbortHandle>,
    resting: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    /// Takes connections of `tcp`. `name` is what metrics and the log call it.
    #[must_use]
    pub fn new(tcp: TcpListener, guard: Guard, name: &'static str) -> Self {
        Self {
            tcp,
            gate: Arc::new(Gate::new(guard, name)),
            room: Arc::new(Semaphore::new(connections_max())),
            shaking: JoinSet::new(),
            oldest: VecDeque::new(),
            resting: None,
        }
    }

    /// A connection that has just come: ready at once, under way, or turned away.
    fn take(&mut self, tcp: TcpStream, address: SocketAddr) -> Option<Connection> {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            self.gate.refuse(address, "full", "there are too many connections");
            return None;
        };
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "connection keeps Nagle's delay");
        }
        if matches!(self.gate.guard, Guard::Plain) {
            return Some(Connection::new(Way::Plain(tcp), Peer::plain(address), room));
        }
        while self.shaking.len() >= HANDSHAKES_MAX
            && let Some(oldest) = self.oldest.pop_front()
        {
            if !oldest.is_finished() {
                oldest.abort();
                self.gate.refuse(address, "crowded", "another handshake had to make room");
                break;
            }
        }
        if self.oldest.len() > 2 * HANDSHAKES_MAX {
            self.oldest.retain(|handle| !handle.is_finished());
        }
        let gate = Arc::clone(&self.gate);
        self.oldest.push_back(self.shaking.spawn(async move { gate.admit(tcp, address, room).await }));
        None
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match this.shaking.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Some(connection)))) => return Poll::Ready(Some(Ok(connection))),
                // Turned away.
                Poll::Ready(Some(_)) => continue,
                Poll::Ready(None) | Poll::Pending => {}
            }
            if let Some(resting) = &mut this.resting {
                if resting.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                this.resting = None;
            }
            match this.tcp.poll_accept(cx) {
                Poll::Ready(Ok((tcp, address))) => {
                    if let Some(connection) = this.take(tcp, address) {
                        return Poll::Ready(Some(Ok(connection)));
                    }
                }
                Poll::Ready(Err(error)) => {
                    this.gate.trouble(&error);
                    this.resting = Some(Box::pin(sleep(REST)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Half of the files that this process may have open, if the system says how many that is.
fn connections_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = files.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    soft.map_or(CONNECTIONS_MAX, |soft| (soft / 2).clamp(64, CONNECTIONS_MAX))
}

/// What every handshake shares.
struct Gate {
    guard: Guard,
    name: &'static str,
    refused: Counter<u64>,
    /// When somebody was last spoken of, and how many since.
    said: Mutex<(Option<Instant>, u64)>,
}

impl Gate {
    fn new(guard: Guard, name: &'static str) -> Self {
        let refused = global::meter("shardwright").u64_counter("connections_refused").build();
        Self { guard, name, refused, said: Mutex::new((None, 0)) }
    }

    /// One handshake. `None`: turned away.
    async fn admit(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        room: OwnedSemaphorePermit,
    ) -> Option<Connection> {
        let (tls, config) = match &self.guard {
            Guard::Plain => return Some(Connection::new(Way::Plain(tcp), Peer::plain(address), room)),
            Guard::Asks(tls) => (tls, Arc::clone(&tls.material().server_asks)),
            Guard::Demands(tls) => (tls, Arc::clone(&tls.material().server_demands)),
        };
        let shaking = async {
            let mut first = [0];
            match tcp.peek(&mut first).await {
                Ok(1) if first[0] != TLS_HANDSHAKE => Err((None, tcp)),
                Err(error) => Err((Some(error), tcp)),
                Ok(_) => {
                    let accepted = TlsAcceptor::from(config).accept(tcp).into_fallible().await;
                    accepted.map_err(|(error, tcp)| (Some(error), tcp))
                }
            }
        };
        match timeout(HANDSHAKE, shaking).await {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                // One that rustls verified can be read; if not, it bears no name that anybody could compare.
                let names =
                    shown.map(|leaf| certificate::read(leaf).map(|said| said.names).unwrap_or_default());
                let peer = Peer::secured(address, names, tls.demands());
                Some(Connection::new(Way::Secured(Box::new(stream)), peer, room))
            }
            Ok(Err((error, tcp))) => {
                let (last_words, (reason, text)) = match &error {
                    None => (&ALERT[..], ("plain", "it does not speak TLS".to_owned())),
                    // TLS has said its own.
                    Some(error) => (&[][..], explain::refusing(error)),
                };
                self.refuse(address, reason, &text);
                timeout(LAST_WORDS, hang_up(tcp, last_words)).await.ok();
                None
            }
            Err(_) => {
                self.refuse(address, "timeout", "its TLS handshake took too long");
                None
            }
        }
    }

    /// Counts one that is turned away, and says so now and then: strangers must not fill the log.
    fn refuse(&self, address: SocketAddr, reason: &'static str, text: &str) {
        self.refused.add(1, &[KeyValue::new("listener", self.name), KeyValue::new("reason", reason)]);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.0.is_some_and(|at| at.elapsed() < SAY_EVERY) {
            said.1 += 1;
            return;
        }
        let unsaid = std::mem::take(&mut said.1);
        said.0 = Some(Instant::now());
        tracing::warn!(listener = self.name, from = %address, reason = text, unsaid, "a connection was turned away");
    }

    fn trouble(&self, error: &io::Error) {
        self.refused.add(1, &[KeyValue::new("listener", self.name), KeyValue::new("reason", "system")]);
        tracing::warn!(listener = self.name, %error, "a connection cannot be taken");
    }
}

/// Hangs up so that the other side can still read why.
async fn hang_up(mut tcp: TcpStream, last_words: &[u8]) -> io::Result<()> {
    tcp.write_all(last_words).await?;
    tcp.shutdown().await?;
    // Closing with bytes unread would take back what was said; more than this nobody says before listening.
    let mut rest = [0; 4096];
    for _ in 0..16 {
        if tcp.read(&mut rest).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// A connection that came in.
pub struct Connection {
    way: Way,
    peer: Peer,
    /// Until HTTP/2 has begun.
    opening: Option<Opening>,
    _room: OwnedSemaphorePermit,
}

enum Way {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

struct Opening {
    until: Pin<Box<Sleep>>,
    seen: usize,
}

impl Connection {
    fn new(way: Way, peer: Peer, room: OwnedSemaphorePermit) -> Self {
        let opening = Some(Opening { until: Box::pin(sleep(OPENING)), seen: 0 });
        Self { way, peer, opening, _room: room }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = match &mut this.way {
            Way::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Way::Secured(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        let Some(opening) = &mut this.opening else { return read };
        match read {
            Poll::Pending if opening.until.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "HTTP/2 did not begin in time")))
            }
            Poll::Pending => Poll::Pending,
            read => {
                opening.seen += buf.filled().len() - before;
                if opening.seen >= OPENING_BYTES {
                    this.opening = None;
                }
                read
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().way {
            Way::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Way::Secured(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().way {
            Way::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Way::Secured(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.way {
            Way::Plain(tcp) => tcp.is_write_vectored(),
            Way::Secured(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().way {
            Way::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Way::Secured(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().way {
            Way::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Way::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
