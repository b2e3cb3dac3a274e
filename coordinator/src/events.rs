//! What happened, for `WatchEvents`: a ring of the newest events of this term and a broadcast of what comes.
//!
//! Every room of the coordinator writes here; the admin room reads. Nothing is decided from events.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

use proto::v1;
use tokio::sync::broadcast;

/// How many events are kept.
const KEPT: usize = 10_000;

/// How far a follower may fall behind before it misses events.
const BEHIND_MAX: usize = 1024;

/// How loud an event is: ERROR data at risk or an operator must act, WARN we recovered, INFO a state changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// A state changed.
    Info,
    /// Something went wrong and was mended.
    Warn,
    /// Data is at risk or an operator must act.
    Error,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// The events of one term.
pub struct Events {
    ring: Mutex<Ring>,
    live: broadcast::Sender<v1::Event>,
}

struct Ring {
    next: u64,
    kept: VecDeque<v1::Event>,
}

impl Events {
    /// An empty history. Numbers start above those of every earlier leader, so that a watcher may go on after a change.
    #[must_use]
    pub fn new(leader_revision: u64) -> Self {
        let ring = Ring { next: (leader_revision << 20) + 1, kept: VecDeque::new() };
        Self { ring: Mutex::new(ring), live: broadcast::Sender::new(BEHIND_MAX) }
    }

    /// Keeps an event, tells the watchers, and writes it to the log.
    pub fn tell(&self, level: Level, kind: &str, message: impl Into<String>, labels: &[(&str, &str)]) {
        let message = message.into();
        match level {
            Level::Info => tracing::info!(kind, ?labels, "{message}"),
            Level::Warn => tracing::warn!(kind, ?labels, "{message}"),
            Level::Error => tracing::error!(kind, ?labels, "{message}"),
        }
        let labels: HashMap<String, String> =
            labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut ring = self.ring.lock().expect("no code panics while it holds the events");
        let event = v1::Event {
            number: ring.next,
            at_ms: crate::clock::wall_ms(),
            kind: kind.to_owned(),
            level: level.as_str().to_owned(),
            message,
            labels,
        };
        ring.next += 1;
        if ring.kept.len() == KEPT {
            ring.kept.pop_front();
        }
        ring.kept.push_back(event.clone());
        // Sent under the lock, so that a subscriber sees each event exactly once: kept or live. No receiver is no error.
        let _ = self.live.send(event);
    }

    /// The kept events after number `after`, and what comes from now on. A number that is still to come is of a store that was
    /// restored since: then everything is new.
    pub fn watch(&self, after: u64) -> (Vec<v1::Event>, broadcast::Receiver<v1::Event>) {
        let ring = self.ring.lock().expect("no code panics while it holds the events");
        let after = if after >= ring.next { 0 } else { after };
        let kept = ring.kept.iter().filter(|event| event.number > after).cloned().collect();
        (kept, self.live.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_sees_each_event_once() {
        let events = Events::new(3);
        events.tell(Level::Info, "a", "first", &[("worker", "w1")]);
        let (kept, mut live) = events.watch(0);
        events.tell(Level::Warn, "b", "second", &[]);
        assert_eq!(kept.iter().map(|e| e.kind.as_str()).collect::<Vec<_>>(), ["a"]);
        let second = live.try_recv().unwrap();
        assert_eq!((second.kind.as_str(), second.number), ("b", kept[0].number + 1));
        assert!(live.try_recv().is_err());
        assert_eq!(events.watch(kept[0].number).0.len(), 1);
        assert_eq!(events.watch(u64::MAX).0.len(), 2, "of a store that was restored");
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let events = Events::new(0);
        for n in 0..KEPT + 5 {
            events.tell(Level::Info, "n", n.to_string(), &[]);
        }
        let (kept, _) = events.watch(0);
        assert_eq!((kept.len(), kept[0].message.as_str()), (KEPT, "5"));
    }
}
