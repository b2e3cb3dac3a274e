//! Watches, on both sides. A watch says only "look again". What breaks it, the process that holds it opens it again, and that
//! wakes too, because something may have been missed. A watch that is silent is asked for every few seconds, as the pings of
//! an etcd connection do, so none stays dead for ever.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::stream::{BoxStream, StreamExt as _, unfold};
use store::{Key, Result};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::client::Client;
use crate::place::Place;

/// How often a connection is pinged, and how long a ping may take: the product's settings of its etcd client.
const PING_INTERVAL: Duration = Duration::from_secs(6);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Where the wake-ups of one watch arrive in the process that holds it. One that waits stands for all.
#[derive(Debug)]
pub(super) struct Inbox(Mutex<Option<mpsc::Sender<()>>>);

impl Inbox {
    fn new() -> (Arc<Self>, mpsc::Receiver<()>) {
        let (wake, woken) = mpsc::channel(1);
        (Arc::new(Self(Mutex::new(Some(wake)))), woken)
    }

    fn wake(&self) {
        if let Some(wake) = &*self.slot() {
            // Full: a wake-up is waiting already.
            wake.try_send(()).ok();
        }
    }

    /// The connection is gone, and the process knows it.
    fn close(&self) {
        *self.slot() = None;
    }

    fn slot(&self) -> MutexGuard<'_, Option<mpsc::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One watch as the server knows it. The process that held it may be gone.
#[derive(Debug)]
struct Watch {
    owner: Place,
    prefix: Key,
    inbox: Weak<Inbox>,
}

/// A message of the server to one who watches. If the network loses it, the connection it was on is lost too.
pub(super) struct Push {
    pub to: Place,
    inbox: Weak<Inbox>,
    arrived: bool,
}

impl Push {
    fn new(watch: &Watch) -> Self {
        Self { to: watch.owner, inbox: watch.inbox.clone(), arrived: false }
    }

    /// "Look again."
    pub fn wake(mut self) {
        self.arrived = true;
        if let Some(inbox) = self.inbox.upgrade() {
            inbox.wake();
        }
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        if !self.arrived
            && let Some(inbox) = self.inbox.upgrade()
        {
            inbox.close();
        }
    }
}

/// The watches that a server keeps.
#[derive(Debug, Default)]
pub(super) struct Watches {
    last: u64,
    open: BTreeMap<u64, Watch>,
}

impl Watches {
    pub fn open(&mut self, owner: Place, prefix: Key, inbox: Weak<Inbox>) -> u64 {
        self.last += 1;
        self.open.insert(self.last, Watch { owner, prefix, inbox });
        self.last
    }

    pub fn is_open(&self, id: u64) -> bool {
        self.open.contains_key(&id)
    }

    /// A message to each that is to hear of one of these keys. Forgets the watches whose process is gone.
    pub fn of(&mut self, keys: &[Key]) -> Vec<Push> {
        self.open.retain(|_, watch| watch.inbox.strong_count() > 0);
        let hears = |watch: &&Watch| keys.iter().any(|key| key.as_str().starts_with(watch.prefix.as_str()));
        self.open.values().filter(hears).map(Push::new).collect()
    }

    /// Ends all; each message, dropped where it arrives, tells of the end.
    pub fn end_all(&mut self) -> Vec<Push> {
        std::mem::take(&mut self.open).values().map(Push::new).collect()
    }
}

/// An open watch as its process knows it.
pub(super) struct Line {
    id: u64,
    woken: mpsc::Receiver<()>,
    /// When the connection is pinged next.
    ping_at: Instant,
    /// The server holds it weakly: it lives as long as the process cares.
    _inbox: Arc<Inbox>,
}

/// A line that the server has confirmed.
pub(super) async fn open(client: &Client, prefix: &Key) -> Result<Line> {
    let opened = client.read("watch", || {
        let (inbox, woken) = Inbox::new();
        let (server, place, prefix) = (client.server().clone(), client.place(), prefix.clone());
        async move {
            let kept = Arc::downgrade(&inbox);
            let id =
                server.ask(place, move |_, model, _| Ok(model.watches.open(place, prefix, kept))).await?;
            Ok(Line { id, woken, ping_at: Instant::now() + PING_INTERVAL, _inbox: inbox })
        }
    });
    opened.await.map_err(|failed| failed.error)
}

/// Wakes for ever.
pub(super) fn stream(client: Client, prefix: Key, line: Line) -> BoxStream<'static, ()> {
    let watching = Watching { client, prefix, line: Some(line), attempts: 0 };
    unfold(watching, |mut watching| async move {
        watching.woken().await;
        Some(((), watching))
    })
    .boxed()
}

struct Watching {
    client: Client,
    prefix: Key,
    /// Empty while broken.
    line: Option<Line>,
    /// Attempts to open it since it last worked.
    attempts: u32,
}

impl Watching {
    /// Returns when something may have changed.
    async fn woken(&mut self) {
        loop {
            let Some(line) = &mut self.line else {
                sleep(self.client.pause(self.attempts)).await;
                self.attempts = self.attempts.saturating_add(1);
                if let Ok(line) = open(&self.client, &self.prefix).await {
                    self.line = Some(line);
                    return;
                }
                continue;
            };
            tokio::select! {
                biased;
                woken = line.woken.recv() => match woken {
                    Some(()) => {
                        self.attempts = 0;
                        return;
                    }
                    None => self.line = None,
                },
                () = sleep_until(line.ping_at) => {
                    let id = line.id;
                    let ping = self.client.server().ask(self.client.place(), move |_, model, _| {
                        Ok(model.watches.is_open(id))
                    });
                    match timeout(PING_TIMEOUT, ping).await {
                        Ok(Ok(true)) => line.ping_at = Instant::now() + PING_INTERVAL,
                        _ => self.line = None,
                    }
                }
            }
        }
    }
}
