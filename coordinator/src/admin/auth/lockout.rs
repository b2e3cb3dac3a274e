//! How often a password may be guessed. Failures are counted per user and per address; past a few of them each further one
//! doubles the time for which nothing more is looked at, up to a minute. A user who logged in from an address lately is
//! counted apart there, so that strangers who guess cannot lock out who knows the password.
//!
//! All tables are bounded: when one is full, the entry with the fewest failures goes, the oldest of those first.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Failures of a user, and of a user at an address, that cost nothing.
const FREE_OF_USER: u32 = 5;

/// The same of an address: many users may sit behind one.
const FREE_OF_ADDRESS: u32 = 20;

/// The first wait, and the longest.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Failures are forgotten when none has come for this long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);

/// A login from an address is remembered for this long.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);

/// Entries of each table.
const ENTRIES_MAX: usize = 4096;

/// Who tries to log in, and from where.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Attempt {
    user: String,
    address: Option<IpAddr>,
}

impl Attempt {
    /// Of a user, from an address. Of IPv6 the network counts: who has one address there has all of it.
    pub fn new(user: &str, address: Option<IpAddr>) -> Self {
        let network = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
        };
        // Names that no user can have share an entry.
        let user = if user.len() > 256 { String::new() } else { user.to_owned() };
        Self { user, address: address.map(network) }
    }
}

impl Attempt {
    /// From where.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }
}

#[derive(Clone, Copy, Debug)]
struct Strikes {
    failures: u32,
    last: Instant,
    until: Instant,
}

/// The tables of one coordinator.
#[derive(Default)]
pub(super) struct Lockout {
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    users: HashMap<String, Strikes>,
    addresses: HashMap<IpAddr, Strikes>,
    pairs: HashMap<Attempt, Strikes>,
    known: HashMap<Attempt, Instant>,
}

impl Lockout {
    /// Whether a password may be looked at now.
    ///
    /// # Errors
    /// How long to wait.
    pub fn check(&self, attempt: &Attempt, now: Instant) -> Result<(), Duration> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |strikes: Option<&Strikes>| {
            strikes.map_or(Duration::ZERO, |strikes| strikes.until.saturating_duration_since(now))
        };
        let wait = if tables.knows(attempt, now) {
            waits(tables.pairs.get(attempt))
        } else {
            let address = attempt.address.and_then(|address| tables.addresses.get(&address));
            waits(tables.users.get(&attempt.user)).max(waits(address))
        };
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// The password was wrong.
    pub fn failed(&self, attempt: &Attempt, now: Instant) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.knows(attempt, now) {
            strike(&mut tables.pairs, attempt.clone(), FREE_OF_USER, now);
            return;
        }
        strike(&mut tables.users, attempt.user.clone(), FREE_OF_USER, now);
        if let Some(address) = attempt.address {
            strike(&mut tables.addresses, address, FREE_OF_ADDRESS, now);
        }
    }

    /// It was right. The address keeps its failures: somebody there guesses the passwords of others.
    pub fn succeeded(&self, attempt: &Attempt, now: Instant) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.pairs.remove(attempt);
        tables.users.remove(&attempt.user);
        if tables.known.len() >= ENTRIES_MAX && !tables.known.contains_key(attempt) {
            let oldest = tables.known.iter().min_by_key(|(_, at)| **at).map(|(attempt, _)| attempt.clone());
            oldest.map(|oldest| tables.known.remove(&oldest));
        }
        tables.known.insert(attempt.clone(), now);
    }
}

impl Tables {
    fn knows(&self, attempt: &Attempt, now: Instant) -> bool {
        self.known.get(attempt).is_some_and(|at| now.saturating_duration_since(*at) < KNOWN_FOR)
    }
}

fn strike<K: Hash + Eq + Clone>(table: &mut HashMap<K, Strikes>, key: K, free: u32, now: Instant) {
    if table.len() >= ENTRIES_MAX && !table.contains_key(&key) {
        table.retain(|_, strikes| now.saturating_duration_since(strikes.last) < FORGOTTEN_AFTER);
        if table.len() >= ENTRIES_MAX {
            let least = table.iter().min_by_key(|(_, s)| (s.failures, s.last)).map(|(key, _)| key.clone());
            least.map(|least| table.remove(&least));
        }
    }
    let strikes = table.entry(key).or_insert(Strikes { failures: 0, last: now, until: now });
    if now.saturating_duration_since(strikes.last) >= FORGOTTEN_AFTER {
        strikes.failures = 0;
    }
    strikes.failures = strikes.failures.saturating_add(1);
    strikes.last = now;
    if let Some(beyond) = strikes.failures.checked_sub(free) {
        let wait = WAIT.0.saturating_mul(1_u32.checked_shl(beyond).unwrap_or(u32::MAX));
        strikes.until = now + wait.min(WAIT.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(user: &str, address: &str) -> Attempt {
        Attempt::new(user, Some(address.parse().unwrap()))
    }

    fn fail(lockout: &Lockout, attempt: &Attempt, times: u32, now: Instant) {
        for _ in 0..times {
            lockout.failed(attempt, now);
        }
    }

    #[test]
    fn waits_double_up_to_a_minute_and_end() {
        let (lockout, alice, now) = (Lockout::default(), attempt("alice", "10.0.0.1"), Instant::now());
        fail(&lockout, &alice, 4, now);
        assert_eq!(lockout.check(&alice, now), Ok(()));
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            lockout.failed(&alice, now);
            assert_eq!(lockout.check(&alice, now), Err(Duration::from_secs(seconds)));
            assert_eq!(lockout.check(&alice, now + Duration::from_secs(seconds)), Ok(()));
        }
        let later = now + FORGOTTEN_AFTER;
        lockout.failed(&alice, later);
        assert_eq!(lockout.check(&alice, later), Ok(()), "old failures are forgotten");
    }

    #[test]
    fn a_user_is_locked_whatever_the_address_and_an_address_whatever_the_user() {
        let (lockout, now) = (Lockout::default(), Instant::now());
        for n in 0..5 {
            lockout.failed(&attempt("alice", &format!("10.0.0.{n}")), now);
        }
        assert!(lockout.check(&attempt("alice", "10.0.1.1"), now).is_err());
        assert!(lockout.check(&attempt("bob", "10.0.1.1"), now).is_ok());
        for n in 0..20 {
            lockout.failed(&attempt(&format!("user{n}"), "10.0.2.1"), now);
        }
        assert!(lockout.check(&attempt("carol", "10.0.2.1"), now).is_err());
        assert!(lockout.check(&attempt("carol", "10.0.2.2"), now).is_ok());
    }

    #[test]
    fn who_logged_in_from_an_address_is_not_locked_out_by_strangers() {
        let (lockout, home, now) = (Lockout::default(), attempt("alice", "10.0.0.1"), Instant::now());
        lockout.succeeded(&home, now);
        fail(&lockout, &attempt("alice", "10.0.0.9"), 30, now);
        assert!(lockout.check(&attempt("alice", "10.0.0.9"), now).is_err());
        assert!(lockout.check(&home, now).is_ok());
        fail(&lockout, &home, 5, now);
        assert!(lockout.check(&home, now).is_err(), "guesses from there count as well");
    }

    #[test]
    fn one_network_is_one_address() {
        let (lockout, now) = (Lockout::default(), Instant::now());
        for n in 0..20 {
            lockout.failed(&attempt(&format!("user{n}"), &format!("2001:db8:0:1::{n:x}")), now);
        }
        assert!(lockout.check(&attempt("x", "2001:db8:0:1:ffff::1"), now).is_err());
        assert!(lockout.check(&attempt("x", "2001:db8:0:2::1"), now).is_ok());
    }

    #[test]
    fn a_flood_of_names_frees_nobody_who_is_locked_and_takes_no_more_memory() {
        let (lockout, now) = (Lockout::default(), Instant::now());
        fail(&lockout, &attempt("alice", "10.0.0.1"), 6, now);
        for n in 0..ENTRIES_MAX + 100 {
            lockout.failed(&Attempt::new(&format!("user{n}"), None), now);
        }
        assert_eq!(lockout.tables.lock().unwrap().users.len(), ENTRIES_MAX);
        assert!(lockout.check(&attempt("alice", "10.0.0.1"), now).is_err());
    }
}
