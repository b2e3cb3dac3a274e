//! Passwords: hashed with argon2id, on threads that may block, few at a time, so that a flood of logins takes neither the
//! runtime nor the memory of the machine. A user that is not there costs the same work as one whose password is wrong.
//!
//! A tool asks often, and argon2 is slow on purpose: a password that was right is known again for some minutes by a digest
//! under a key of this process. The lockout is asked before that, so the digest is no faster way to guess.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use argon2::{
    Argon2, Params,
    password_hash::{PasswordHasher, PasswordVerifier, phc},
};
use aws_lc_rs::digest::{Context, SHA256};
use model::PasswordHash;
use rand::Rng;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    config::Secret,
    denied::Denied,
    lockout::{Attempt, Lockout},
};

/// Hashes that are worked out at the same time; each takes 19 MiB (OWASP's second choice of parameters, argon2's own default).
const AT_ONCE: usize = 2;

/// Logins that wait for that, and how many of them may come from one address: a flood from there leaves room for others.
const QUEUE: usize = 64;
const QUEUE_OF_ADDRESS: usize = 16;

/// Logins of one user are looked at one after the other: who guesses in parallel is counted, too.
const TURNS: usize = 64;

/// How long a right password is known again.
const REMEMBERED: Duration = Duration::from_secs(300);

/// How many of them.
const REMEMBERED_MAX: usize = 1024;

/// Longer ones are refused: hashing them costs the caller nothing and us much.
pub(crate) const PASSWORD_BYTES_MAX: usize = 1024;

/// Looks at passwords.
pub(super) struct Passwords {
    lockout: Lockout,
    /// Logins that wait, by address.
    queue: Mutex<HashMap<Option<IpAddr>, usize>>,
    turns: [tokio::sync::Mutex<()>; TURNS],
    turn_of: RandomState,
    key: [u8; 32],
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            lockout: Lockout::default(),
            queue: Mutex::default(),
            turns: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
            turn_of: RandomState::new(),
            key: rand::rng().random(),
            remembered: Mutex::default(),
        }
    }
}

impl Passwords {
    /// Whether `password` is the one behind `stored`; without one it never is, after the same work.
    ///
    /// # Errors
    /// Why not.
    pub async fn verify(
        &self,
        attempt: &Attempt,
        user: &str,
        password: &Secret,
        stored: Option<&PasswordHash>,
    ) -> Result<(), Denied> {
        let locked = |wait| Denied::LockedOut { wait };
        self.lockout.check(attempt, Instant::now()).map_err(locked)?;
        let digest = stored.map(|stored| self.digest(user, password, stored));
        if self.remembers(digest.as_ref()) {
            self.lockout.succeeded(attempt, Instant::now());
            return Ok(());
        }
        let _place = self.place(attempt)?;
        let turn = usize::try_from(self.turn_of.hash_one(user) % TURNS as u64).unwrap_or_default();
        let _turn = self.turns[turn].lock().await;
        // Others of this user may have been looked at meanwhile.
        self.lockout.check(attempt, Instant::now()).map_err(locked)?;
        if self.remembers(digest.as_ref()) {
            return Ok(());
        }
        if is_right(password.clone(), stored.cloned()).await {
            self.lockout.succeeded(attempt, Instant::now());
            if let Some(digest) = digest {
                self.remember(digest);
            }
            return Ok(());
        }
        self.lockout.failed(attempt, Instant::now());
        Err(Denied::Password { user: user.chars().take(128).collect() })
    }

    fn place(&self, attempt: &Attempt) -> Result<Place<'_>, Denied> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, address) = (queue.values().sum::<usize>(), attempt.address());
        let places = queue.entry(address).or_insert(0);
        if all >= QUEUE || *places >= QUEUE_OF_ADDRESS {
            return Err(Denied::Busy);
        }
        *places += 1;
        Ok(Place { passwords: self, address })
    }

    /// Of the stored hash, too: a changed password is another one.
    fn digest(&self, user: &str, password: &Secret, stored: &PasswordHash) -> [u8; 32] {
        let mut digest = Context::new(&SHA256);
        digest.update(&self.key);
        for part in [user, stored.reveal(), password.reveal()] {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        digest.finish().as_ref().try_into().expect("this digest has 32 bytes")
    }

    fn remembers(&self, digest: Option<&[u8; 32]>) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        digest.and_then(|digest| remembered.get(digest)).is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    fn remember(&self, digest: [u8; 32]) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, at| at.elapsed() < REMEMBERED);
        }
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(digest, Instant::now());
    }
}

/// A place among the logins that wait.
struct Place<'a> {
    passwords: &'a Passwords,
    address: Option<IpAddr>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queue = self.passwords.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = queue.get_mut(&self.address) {
            *places -= 1;
        }
        queue.retain(|_, places| *places > 0);
    }
}

/// Hashes of all coordinators in this process together.
fn workers() -> &'static Arc<Semaphore> {
    static WORKERS: OnceLock<Arc<Semaphore>> = OnceLock::new();
    WORKERS.get_or_init(|| Arc::new(Semaphore::new(AT_ONCE)))
}

/// Works a hash out away from the runtime's own threads.
async fn hashing<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let permit = Arc::clone(workers()).acquire_owned().await.ok()?;
    tokio::task::spawn_blocking(move || {
        // Held until the work is over, though nobody may wait for it any more.
        let _permit = permit;
        work()
    })
    .await
    .ok()
}

async fn is_right(password: Secret, stored: Option<PasswordHash>) -> bool {
    let compared = hashing(move || {
        let known = stored.is_some() && password.reveal().len() <= PASSWORD_BYTES_MAX;
        let hash = stored.as_ref().map_or(NOBODY, PasswordHash::reveal);
        let shown = &password.reveal().as_bytes()[..password.reveal().len().min(PASSWORD_BYTES_MAX)];
        let Ok(hash) = phc::PasswordHash::new(hash) else { return false };
        // Compares in constant time.
        Argon2::default().verify_password(shown, &hash).is_ok() && known
    });
    compared.await.unwrap_or(false)
}

/// What the password of a user that is not there is compared with: of the same cost as every other, and of no password.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn hashed(password: &[u8]) -> String {
    let salt: [u8; 16] = rand::rng().random();
    let argon2 = Argon2::from(Params::default());
    let hash = argon2
        .hash_password_with_salt(password, &salt)
        .expect("argon2's own parameters and a salt of 16 bytes fit");
    hash.to_string()
}

/// The hash of a new password.
///
/// # Errors
/// The process ends.
pub(crate) async fn hash(password: String) -> Option<PasswordHash> {
    hashing(move || PasswordHash::new(hashed(password.as_bytes()))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn look(
        passwords: &Passwords,
        password: &str,
        stored: Option<&PasswordHash>,
    ) -> Result<(), Denied> {
        let attempt = Attempt::new("alice", None);
        passwords.verify(&attempt, "alice", &Secret::new(password), stored).await
    }

    #[tokio::test]
    async fn a_password_is_right_or_wrong_and_never_empty_by_accident() {
        let (passwords, stored) = (Passwords::default(), hash("correct horse".to_owned()).await.unwrap());
        assert!(stored.reveal().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", stored.reveal());
        assert_eq!(look(&passwords, "correct horse", Some(&stored)).await, Ok(()));
        let wrong = Err(Denied::Password { user: "alice".to_owned() });
        assert_eq!(look(&passwords, "correct hors", Some(&stored)).await, wrong);
        assert_eq!(look(&passwords, "", Some(&stored)).await, wrong);
        assert_eq!(look(&passwords, "correct horse", None).await, wrong);
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
        assert_eq!(look(&passwords, &long, Some(&stored)).await, wrong);
    }

    #[tokio::test]
    async fn a_flood_from_one_address_leaves_room_for_others() {
        let passwords = Passwords::default();
        let from = |address: &str| Attempt::new("x", Some(address.parse().unwrap()));
        let flood: Vec<_> =
            (0..QUEUE_OF_ADDRESS).map(|_| passwords.place(&from("10.0.0.1")).ok().unwrap()).collect();
        assert!(passwords.place(&from("10.0.0.1")).is_err());
        assert!(passwords.place(&from("10.0.0.2")).is_ok());
        drop(flood);
        assert!(passwords.place(&from("10.0.0.1")).is_ok());
        assert!(passwords.queue.lock().unwrap().is_empty(), "nobody waits, nothing is kept");
    }

    #[tokio::test]
    async fn who_is_not_there_costs_what_everybody_costs() {
        let real = hash("x".to_owned()).await.unwrap();
        let costs = |text: &str| text.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(costs(NOBODY), costs(real.reveal()));
        assert!(phc::PasswordHash::new(NOBODY).is_ok());
    }

    #[tokio::test]
    async fn a_changed_password_is_not_known_from_before() {
        let passwords = Passwords::default();
        let (first, second) = (hash("one".to_owned()).await.unwrap(), hash("two".to_owned()).await.unwrap());
        assert!(look(&passwords, "one", Some(&first)).await.is_ok());
        assert!(look(&passwords, "one", Some(&second)).await.is_err());
        assert!(look(&passwords, "one", None).await.is_err(), "the user was dropped");
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_at_once_are_counted_one_by_one() {
        let (passwords, stored) = (Passwords::default(), hash("one".to_owned()).await.unwrap());
        let guesses = (0..12).map(|_| look(&passwords, "two", Some(&stored)));
        let answers = futures::future::join_all(guesses).await;
        let looked_at = answers.iter().filter(|a| matches!(a, Err(Denied::Password { .. }))).count();
        assert_eq!(looked_at, 5, "{answers:?}");
        assert!(matches!(look(&passwords, "one", Some(&stored)).await, Err(Denied::LockedOut { .. })));
    }
}
