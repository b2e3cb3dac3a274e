//! A TCP proxy: delay, cut, refuse, partition. It knows no protocol: etcd, Kafka and gRPC are alike to it.
//!
//! Two kinds of broken line. *Held* is a partition that heals: nothing gets through, TCP would send it again, so what was
//! said meanwhile arrives late. *Swallowed* is a line whose middle forgot it: what was said is lost, and once the line is
//! sound again the connection is reset. Either may be so in one direction only. New connections are accepted meanwhile (the
//! system does that before any program is asked), and meet the same.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// What happens to bytes that go one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// They arrive.
    #[default]
    Pass,
    /// They arrive so many ms later.
    Delay(u64),
    /// They arrive when the line is sound again.
    Hold,
    /// They never arrive; the connection is reset when the line is sound again.
    Swallow,
}

/// The state of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Line {
    /// From the caller to the server.
    pub there: Flow,
    /// From the server to the caller.
    pub back: Flow,
    /// New connections are reset at once.
    pub refuse: bool,
    /// Connections that were made before the last cut are reset.
    cuts: u64,
}

/// A proxy for one server; ends with this value, and so do its connections.
pub struct Link {
    address: SocketAddr,
    handle: Handle,
    server: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Drives a link. Clones are the same.
#[derive(Clone)]
pub struct Handle {
    line: Arc<watch::Sender<Line>>,
}

impl Handle {
    /// The line as it is.
    #[must_use]
    pub fn line(&self) -> Line {
        *self.line.borrow()
    }

    /// Makes it so; connections stay.
    pub fn set(&self, there: Flow, back: Flow, refuse: bool) {
        self.line.send_modify(|line| *line = Line { there, back, refuse, cuts: line.cuts });
    }

    /// A sound line.
    pub fn heal(&self) {
        self.set(Flow::Pass, Flow::Pass, false);
    }

    /// Both ways take so much longer.
    pub fn delay(&self, by: Duration) {
        let flow = Flow::Delay(u64::try_from(by.as_millis()).unwrap_or(u64::MAX));
        self.set(flow, flow, false);
    }

    /// Nothing gets through either way until it heals.
    pub fn partition(&self) {
        self.set(Flow::Hold, Flow::Hold, false);
    }

    /// What is said either way is lost; nobody is told.
    pub fn half_open(&self) {
        self.set(Flow::Swallow, Flow::Swallow, false);
    }

    /// Resets every connection that there is.
    pub fn cut(&self) {
        self.line.send_modify(|line| line.cuts += 1);
    }

    /// Resets every connection, and every new one.
    pub fn refuse(&self) {
        self.set(Flow::Pass, Flow::Pass, true);
        self.cut();
    }
}

impl Link {
    /// A link on a free loopback port to the server at `target`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), target).await
    }

    /// A link there.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn listen(at: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(at).await?;
        let address = listener.local_addr()?;
        let handle = Handle { line: Arc::new(watch::Sender::new(Line::default())) };
        let server = tokio::spawn(accept(listener, target, handle.line.subscribe()));
        Ok(Self { address, handle, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:port`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Drives it.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, line: watch::Receiver<Line>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, target, line.clone()));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Why a connection ends.
enum End {
    /// Both sides have said all they had to say.
    Orderly,
    Reset,
}

async fn connection(caller: TcpStream, target: SocketAddr, line: watch::Receiver<Line>) {
    let now = *line.borrow();
    if now.refuse {
        caller.set_zero_linger().ok();
        return;
    }
    let Some(server) = connect(&caller, target, line.clone()).await else {
        caller.set_zero_linger().ok();
        return;
    };
    caller.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (mut caller_in, mut caller_out) = caller.into_split();
    let (mut server_in, mut server_out) = server.into_split();
    let mut cut = line.clone();
    let end = {
        let there = carry(&mut caller_in, &mut server_out, line.clone(), |line| line.there);
        let back = carry(&mut server_in, &mut caller_out, line, |line| line.back);
        let both = async {
            let (there, back) = tokio::join!(there, back);
            if matches!((there, back), (End::Orderly, End::Orderly)) { End::Orderly } else { End::Reset }
        };
        tokio::select! {
            end = both => end,
            _ = cut.wait_for(|line| line.cuts != now.cuts) => End::Reset,
        }
    };
    if matches!(end, End::Reset) {
        caller_in.as_ref().set_zero_linger().ok();
        server_in.as_ref().set_zero_linger().ok();
        // Dropped, they would say an orderly end first.
        caller_out.forget();
        server_out.forget();
    }
}

/// A connection to the server, made once the line lets a caller through.
async fn connect(
    caller: &TcpStream,
    target: SocketAddr,
    mut line: watch::Receiver<Line>,
) -> Option<TcpStream> {
    let cuts = line.borrow().cuts;
    let sound = |flow: Flow| !matches!(flow, Flow::Hold | Flow::Swallow);
    let swallowed = line.borrow().there == Flow::Swallow;
    let passes = line.wait_for(|line| line.cuts != cuts || sound(line.there));
    let gone = async {
        // A caller that gave up is not connected later.
        let mut byte = [0];
        loop {
            match caller.peek(&mut byte).await {
                Ok(0) | Err(_) => return,
                Ok(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    tokio::select! {
        passed = passes => {
            let cut = passed.ok()?.cuts != cuts;
            if cut || swallowed {
                return None;
            }
        }
        () = gone => return None,
    }
    TcpStream::connect(target).await.ok()
}

/// Carries bytes one way until that side has ended.
async fn carry(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
    way: impl Fn(&Line) -> Flow,
) -> End {
    let mut buffer = vec![0; 64 << 10];
    let mut lost = false;
    loop {
        let read = tokio::select! {
            biased;
            // What was swallowed is missing from now on: a sound line cannot go on with the rest.
            Ok(_) = line.wait_for(|line| way(line) != Flow::Swallow), if lost => return End::Reset,
            read = from.read(&mut buffer) => match read {
                Ok(0) => None,
                Ok(length) => Some(length),
                Err(_) => return End::Reset,
            },
        };
        let Ok(flow) = line.wait_for(|line| way(line) != Flow::Hold).await.map(|line| way(&line)) else {
            return End::Reset;
        };
        match (flow, read) {
            (Flow::Swallow, None) => {
                line.wait_for(|line| way(line) != Flow::Swallow).await.ok();
                return End::Reset;
            }
            (Flow::Swallow, Some(_)) => lost = true,
            (_, None) => {
                to.shutdown().await.ok();
                return End::Orderly;
            }
            (flow, Some(length)) => {
                if let Flow::Delay(ms) = flow {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                }
                if to.write_all(&buffer[..length]).await.is_err() {
                    return End::Reset;
                }
            }
        }
    }
}
