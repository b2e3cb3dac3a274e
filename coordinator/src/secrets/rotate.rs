//! `shardwright secrets rotate`: every record that another key sealed, or none, is written again, under the guard that it is what
//! was read. One record at a time: what was done stays done when it is interrupted, and doing it again does the rest.

use model::ObjectId;
use proto::v1;
use store::{Guard, ObjectKey};

use super::seal::{Kept, needs};
use crate::{
    error::{Error, ErrorKind, Result},
    events::Level,
    handle::Leader,
    term::{Outcome, Term},
};

/// How often one record is tried again when others change it.
const ATTEMPTS_MAX: u32 = 8;

/// How the secrets of the catalog are kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// What the current master key is called; nothing without one.
    pub key: Option<String>,
    /// Records that were written again.
    pub rewritten: u32,
    /// Records that the current key protects.
    pub current: u32,
    /// Records that a previous key protects.
    pub previous: u32,
    /// Records in plain text.
    pub plain: u32,
}

impl From<Standing> for v1::RotateSecretsReply {
    fn from(standing: Standing) -> Self {
        let Standing { key, rewritten, current, previous, plain } = standing;
        Self { key: key.unwrap_or_default(), rewritten, current, previous, plain }
    }
}

impl Leader {
    /// How the secrets of the catalog are kept.
    #[must_use]
    pub fn secrets(&self) -> Standing {
        let secrets = &self.term.secrets;
        let key = secrets.vault().key();
        let mut standing = Standing { key: key.map(str::to_owned), ..Standing::default() };
        for (_, kept) in holders(&self.term) {
            match kept {
                Some(Kept::Sealed(by)) if Some(by.as_str()) == key => standing.current += 1,
                Some(Kept::Sealed(_)) => standing.previous += 1,
                Some(Kept::Plain) | None => standing.plain += 1,
            }
        }
        standing
    }

    /// Seals every record with the current key that it does not protect yet; `all`: those that it does, too, with a new data key.
    /// Errors: `State` without a key.
    pub async fn rotate_secrets(&self, all: bool) -> Result<Standing> {
        let term = &self.term;
        let Some(key) = term.secrets.vault().key().map(str::to_owned) else {
            let text = "there is no key to encrypt with: set `secrets.master_key_file` or `secrets.kms_key` of every \
                        coordinator";
            return Err(Error::new(ErrorKind::State, text));
        };
        let due = |kept: Option<&Kept>| all || kept != Some(&Kept::Sealed(key.clone()));
        if holders(term).iter().any(|(_, kept)| due(kept.as_ref())) {
            term.secrets.vault().renew().await;
        }
        let mut rewritten = 0;
        for (id, kept) in holders(term) {
            if due(kept.as_ref()) && rewrite(term, id).await? {
                rewritten += 1;
            }
        }
        let standing = Standing { rewritten, ..self.secrets() };
        if rewritten > 0 {
            let message = format!("secrets of {rewritten} object(s) are encrypted with key {key} now");
            term.events.tell(Level::Info, "secrets_rotated", message, &[("key", &key)]);
        }
        Ok(standing)
    }
}

/// Every object that has or uses secrets, and how they are kept.
fn holders(term: &Term) -> Vec<(ObjectId, Option<Kept>)> {
    let state = term.state();
    let objects = state.memory.view.objects.iter().filter(|(_, object)| needs(&object.value));
    objects.map(|(id, _)| (*id, term.secrets.kept(*id))).collect()
}

/// Writes a record as it is. `false` if it is gone.
async fn rewrite(term: &Term, id: ObjectId) -> Result<bool> {
    for _ in 0..ATTEMPTS_MAX {
        let (guard, write) = {
            let state = term.state();
            let Some(object) = state.memory.view.objects.get(&id) else { return Ok(false) };
            let guard = Guard::Unchanged(state.memory.keys.object(id), object.mod_revision);
            (guard, state.memory.keys.put::<ObjectKey>(&id, &object.value))
        };
        if let Outcome::Done(_) = term.commit(vec![guard], vec![write]).await? {
            return Ok(true);
        }
    }
    Err(Error::new(ErrorKind::Unavailable, format!("object {id} is being changed by others, try again")))
}
