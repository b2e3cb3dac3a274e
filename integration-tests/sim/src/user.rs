//! Whoever types statements: a process of its own that reaches the coordinators over the network like any other, and asks
//! again while nobody leads.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use proto::{
    Wire,
    v1::{self, admin_client::AdminClient},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::StreamExt as _;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{net::Net, place::Place};

/// How long somebody who leads is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the user is to do.
#[derive(Clone, Debug)]
pub enum Order {
    /// Statements; forms that may be said twice.
    Sql(String),
    /// Drain a worker.
    Drain(String),
    /// See what happened and where each split stands.
    Look,
}

/// What the user has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Everything that leaders told of.
    pub events: Vec<v1::Event>,
    /// The splits as they stood at the last look.
    pub splits: Vec<v1::SplitStatus>,
    /// What was refused, and why.
    pub refused: Vec<String>,
}

/// The user, seen from the world.
#[derive(Clone)]
pub struct User {
    orders: mpsc::Sender<Order>,
    open: Arc<AtomicUsize>,
    seen: Arc<Mutex<Seen>>,
}

impl User {
    /// Makes the user's process: its future is to be started at [`Place::User`].
    pub fn new(net: Net, wire: Wire, urls: Vec<String>) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (orders, receiver) = mpsc::channel(256);
        let open = Arc::new(AtomicUsize::new(0));
        let seen = Arc::default();
        let desk = Desk { net, wire, urls, next: 0, seen: Arc::clone(&seen) };
        (Self { orders, open: Arc::clone(&open), seen }, desk.work(receiver, open))
    }

    /// Asks for something; it is done in order.
    pub fn ask(&self, order: Order) {
        if self.orders.try_send(order).is_ok() {
            self.open.fetch_add(1, Relaxed);
        }
    }

    /// What was seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// Whether everything asked for is done or refused.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open.load(Relaxed) == 0
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Desk {
    net: Net,
    wire: Wire,
    urls: Vec<String>,
    next: usize,
    seen: Arc<Mutex<Seen>>,
}

impl Desk {
    async fn work(mut self, mut orders: mpsc::Receiver<Order>, open: Arc<AtomicUsize>) {
        while let Some(order) = orders.recv().await {
            let deadline = Instant::now() + PATIENCE;
            let outcome = loop {
                match self.attempt(&order).await {
                    Err(status) if again(&status) && Instant::now() < deadline => {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                    Err(status) => {
                        let refused = format!("was refused {order:?}: {}", status.message());
                        lock(&self.seen).refused.push(refused.clone());
                        break refused;
                    }
                    Ok(()) => break format!("did {order:?}"),
                }
            };
            self.net.note(Place::User, outcome);
            open.fetch_sub(1, Relaxed);
        }
    }

    async fn attempt(&mut self, order: &Order) -> Result<(), Status> {
        let mut client = self.client().await?;
        match order {
            Order::Sql(sql) => {
                let request = v1::ExecuteRequest { statement: sql.clone(), request_id: String::new() };
                let mut replies = client.execute(request).await?.into_inner();
                while replies.next().await.transpose()?.is_some() {}
            }
            Order::Drain(worker) => {
                let request = v1::DrainWorkerRequest { worker: worker.clone(), ..Default::default() };
                // The first word is enough: the drain is stored then.
                client.drain_worker(request).await?.into_inner().next().await.transpose()?;
            }
            Order::Look => self.look(client).await?,
        }
        Ok(())
    }

    async fn look(&self, mut client: AdminClient<Channel>) -> Result<(), Status> {
        let request = v1::WatchEventsRequest { after_event: 0, follow: false };
        let mut history = client.watch_events(request).await?.into_inner();
        while let Some(event) = history.next().await.transpose()? {
            let mut seen = lock(&self.seen);
            if !seen.events.contains(&event) {
                seen.events.push(event);
            }
        }
        let request = v1::ListSplitsRequest { ended: true, ..Default::default() };
        let mut list = client.list_splits(request).await?.into_inner();
        let mut splits = Vec::new();
        while let Some(split) = list.next().await.transpose()? {
            splits.push(split);
        }
        lock(&self.seen).splits = splits;
        Ok(())
    }

    /// The next coordinator that can be reached.
    async fn client(&mut self) -> Result<AdminClient<Channel>, Status> {
        let url = self.urls[self.next % self.urls.len()].clone();
        self.next += 1;
        let endpoint = Endpoint::from_shared(url)
            .map_err(|e| Status::internal(e.to_string()))?
            .connect_timeout(Duration::from_secs(1))
            .timeout(Duration::from_secs(20));
        let channel = self.wire.connect(&endpoint).await.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(AdminClient::new(channel))
    }
}

/// Whether somebody at a keyboard would try the same once more: what broke was the way, not the wish. A stream that is cut off
/// after the first bytes comes as `Internal`, and only its source tells that no coordinator said so.
fn again(status: &Status) -> bool {
    let cut = std::error::Error::source(status).is_some();
    cut || matches!(
        status.code(),
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown
    )
}
