//! What was delivered, and what is to fail.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use connector::{Error, ErrorKind, Result};
use model::{Epoch, Work};

static NAMED: LazyLock<Mutex<HashMap<String, Arc<Memory>>>> = LazyLock::new(Mutex::default);

/// A delivered message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The task that wrote it.
    pub work: Work,
    /// The run that wrote it.
    pub epoch: Epoch,
    /// Its key.
    pub key: Option<Bytes>,
    /// The encoded row.
    pub value: Bytes,
}

/// What becomes of one write.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing bad.
    Pass,
    /// It fails and nothing is stored.
    Error(ErrorKind),
    /// It is stored, and yet it fails, its outcome unknown (P12).
    Ambiguous,
    /// These rows fail, the others are stored.
    Rows(Vec<usize>, ErrorKind),
    /// Its delivery takes so long; it is stored at the end.
    Delay(Duration),
}

/// See the module.
#[derive(Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stored: Vec<Stored>,
    faults: VecDeque<Fault>,
    /// Why nobody answers at present.
    outage: Option<ErrorKind>,
    poison: Option<Bytes>,
}

impl Memory {
    /// The memory of this name, made when it is first asked for.
    #[must_use]
    pub fn named(name: &str) -> Arc<Self> {
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(named.entry(name.to_owned()).or_default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything stored, in the order in which it became durable.
    #[must_use]
    pub fn stored(&self) -> Vec<Stored> {
        self.state().stored.clone()
    }

    /// How many messages are stored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().stored.len()
    }

    /// True when nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything, faults too.
    pub fn clear(&self) {
        *self.state() = State::default();
    }

    /// What becomes of the next writes, one each; after them all is well.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    /// Every write fails with this kind until it is lifted with `None`.
    pub fn set_outage(&self, kind: Option<ErrorKind>) {
        self.state().outage = kind;
    }

    /// Every row whose message contains these bytes is refused (`Rejected`) until lifted with `None`.
    pub fn set_poison(&self, bytes: Option<Bytes>) {
        self.state().poison = bytes;
    }

    pub(super) fn reach(&self) -> Result<()> {
        self.state().outage.map_or(Ok(()), |kind| Err(told_to(kind)))
    }

    pub(super) fn next_fault(&self) -> Fault {
        let mut state = self.state();
        match state.outage {
            Some(kind) => Fault::Error(kind),
            None => state.faults.pop_front().unwrap_or(Fault::Pass),
        }
    }

    pub(super) fn is_poison(&self, value: &[u8]) -> bool {
        let state = self.state();
        state.poison.as_ref().is_some_and(|p| !p.is_empty() && value.windows(p.len()).any(|w| w == p))
    }

    pub(super) fn store(&self, messages: Vec<Stored>) {
        self.state().stored.extend(messages);
    }
}

pub(super) fn told_to(kind: ErrorKind) -> Error {
    Error::new(kind, format!("the memory was told to fail ({})", kind.as_str()))
}
