//! The sessions of workers: one bidirectional stream each (P1–P4, P7).
//!
//! ```text
//!   hello ──▶ candidate ──(heartbeat after Welcome, term loaded, name free)──▶ joined ──▶ over (stream, newer session, term)
//!                 └──(name taken by a live process)──▶ refused
//! ```
//!
//! Everything sent goes through one bounded channel per session, written under the term's lock: so a list that takes a task
//! away is in the stream before the answer that would keep its run alive (P3). A session too slow to take it is cut; its
//! worker reconnects or fences itself. Until the term has loaded, heartbeats are answered and nothing else happens.

mod hear;
mod list;
mod service;

use std::time::Duration;

use logic::plan::TaskList;
use model::{Epoch, TaskId};
use proto::v1::{self, coordinator_message::Message};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

pub(crate) use hear::run_of;
pub(crate) use list::{Lists, to_wire};
pub(crate) use service::SessionService;

use crate::{
    events::Level,
    term::{State, Term},
};

/// Messages that may wait for a slow worker before its session is cut.
const OUTBOUND_MAX: usize = 1 << 13;

/// What goes down a session.
type Outbound = mpsc::Sender<Result<v1::CoordinatorMessage, Status>>;

/// One stream, as the term sees it.
pub(crate) struct Session {
    /// Its first message.
    pub hello: v1::Hello,
    /// True once its process speaks for the worker's name.
    pub joined: bool,
    /// It asked to be emptied: it is stopping in order.
    pub leaving: bool,
    /// Bytes of its memory budget in use, and its size.
    pub budget: (u64, u64),
    /// CPU seconds a second, and the cores it may use.
    pub cpu: (f64, u32),
    /// When it was last heard, also before it joined.
    pub heard_at: Duration,
    out: Outbound,
    end: CancellationToken,
    /// The newest heartbeat seen.
    heartbeat: u64,
    /// The newest list in the stream, with the version of the memory it was made from.
    sent: Option<Sent>,
    /// Runs it said it had when it came, of which no assignment knows: it must stop them.
    strays: Vec<(TaskId, Epoch)>,
}

struct Sent {
    version: u64,
    list: TaskList,
    readers: Vec<u32>,
}

impl Session {
    /// Puts a message into the stream; `false` cuts the session, because it is over or does not keep up.
    fn send(&self, leader: v1::Leader, message: Message) -> bool {
        let v1::Leader { generation, revision } = leader;
        let message = v1::CoordinatorMessage {
            leader_revision: revision,
            leader_generation: generation,
            message: Some(message),
        };
        let taken = self.out.try_send(Ok(message)).is_ok();
        if !taken {
            self.end.cancel();
        }
        taken
    }
}

impl State {
    /// The session through which a joined process is reached.
    pub fn session_of(&self, process: &str) -> Option<(u64, &Session)> {
        self.sessions
            .iter()
            .find(|(_, session)| session.joined && session.hello.process == process)
            .map(|(id, session)| (*id, session))
    }
}

impl Term {
    /// Refuses a stream that has not become a session: asking again would not help.
    fn refuse_stream(&self, worker: &str, out: &Outbound, reason: String) {
        self.events.tell(Level::Warn, "worker_refused", reason.as_str(), &[("worker", worker)]);
        let message = Some(Message::Refused(v1::Refused { reason, retry: false }));
        // Cannot fail: nothing was sent before.
        let _ = out.try_send(Ok(v1::CoordinatorMessage { message, ..v1::CoordinatorMessage::default() }));
    }

    /// Tells a process which of its positions are durable.
    pub fn tell_committed(&self, state: &State, process: &str, tasks: Vec<v1::TaskProgress>) {
        if let Some((_, session)) = state.session_of(process) {
            session.send(self.leader(), Message::Committed(v1::Committed { tasks }));
        }
    }

    /// Puts the current list into every stream that lacks it.
    pub fn push_lists(&self) {
        let mut state = self.state();
        if !state.loaded {
            return;
        }
        if std::mem::take(&mut state.memory.fresh) {
            state.memory.lists += 1;
        }
        let joined: Vec<u64> = state.sessions.iter().filter(|(_, s)| s.joined).map(|(id, _)| *id).collect();
        for id in joined {
            self.send_list(&mut state, id);
        }
    }
}
