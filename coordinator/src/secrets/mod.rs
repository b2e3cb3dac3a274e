//! Secrets at rest: what the catalog says of keys and passwords is encrypted before it reaches the metadata store (I9,
//! docs/adr/0013-secrets-are-sealed-before-they-are-stored.md).
//!
//! * [`Vault`] holds the master keys of `[secrets]`, current and previous, and the data keys that they wrapped.
//! * `seal` says what of a record is sealed and what the ciphertext is bound to.
//! * `store` puts both between the coordinator and its store, so that nobody else knows of it.
//! * `rotate` writes every record again that another key sealed, or none.

mod key;
mod kms;
mod rotate;
mod seal;
mod store;

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex as Lock, PoisonError},
};

use ::store::{Error, ErrorKind, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use serde::Deserialize;
use tokio::sync::Mutex;

use key::{DataKey, LocalKey, MasterKey};
use kms::KmsKey;
use seal::Seal;

pub use key::new_master_key;
pub(crate) use seal::Kept;
pub(crate) use store::SealedStore;

/// Unwrapped data keys that are kept: as many as there were terms that sealed something since the last rotation.
const DATA_KEYS_MAX: usize = 1024;

/// Where secrets may be stored though there is no key to encrypt them with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plaintext {
    /// In an embedded store, or an etcd on the same machine.
    #[default]
    Loopback,
    /// Nowhere; nor is any read that was stored so.
    Never,
    /// Anywhere.
    Always,
}

/// What happens to secrets that no key opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unreadable {
    /// The coordinator does not lead.
    #[default]
    Refuse,
    /// They are left out, and so is the name of a credential beside them: for when the master key is lost.
    Forget,
}

/// `[secrets]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretsConfig {
    /// Base64 of 32 bytes; `master_key_file` names a file that holds it.
    pub master_key: Option<SecretString>,
    /// Keys that decrypt only, each as `master_key` or as `kms:` and the name of a key.
    pub previous_keys: Vec<SecretString>,
    /// A file with such keys, one a line.
    pub previous_keys_file: Option<PathBuf>,
    /// A key of AWS KMS instead of `master_key`: its id, ARN or alias.
    pub kms_key: Option<String>,
    /// Where AWS KMS is, if not where the region says.
    pub kms_endpoint: Option<String>,
    /// Where secrets may be stored without a key.
    pub plaintext: Plaintext,
    /// What happens to secrets that no key opens.
    pub unreadable: Unreadable,
}

/// Encrypts and decrypts. The default has no key. Cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    current: Option<Arc<dyn MasterKey>>,
    previous: Vec<Arc<dyn MasterKey>>,
    plaintext: Plaintext,
    unreadable: Unreadable,
    /// The store is on this machine.
    local: bool,
    /// What seals now, wrapped.
    sealing: Mutex<Option<(Arc<DataKey>, String)>>,
    /// Data keys by their wrapped form.
    opened: Lock<HashMap<String, Arc<DataKey>>>,
}

impl Default for Vault {
    fn default() -> Self {
        Self::of(None, Vec::new(), Plaintext::Loopback, true)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("key", &self.key()).finish_non_exhaustive()
    }
}

impl PartialEq for Vault {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.key() == other.key() && self.0.plaintext == other.0.plaintext
    }
}

impl Vault {
    fn of(
        current: Option<Arc<dyn MasterKey>>,
        previous: Vec<Arc<dyn MasterKey>>,
        plaintext: Plaintext,
        local: bool,
    ) -> Self {
        let (sealing, opened) = (Mutex::new(None), Lock::default());
        let unreadable = Unreadable::Refuse;
        Self(Arc::new(Inner { current, previous, plaintext, unreadable, local, sealing, opened }))
    }

    /// The vault of a cluster. `local` says that the store is on this machine. Asks nobody.
    ///
    /// # Errors
    /// `Config`: a key that is none, a file that cannot be read, two current keys.
    pub async fn open(config: &SecretsConfig, cluster: &str, local: bool) -> crate::Result<Self> {
        let endpoint = config.kms_endpoint.as_deref();
        let current: Option<Arc<dyn MasterKey>> = match (&config.master_key, &config.kms_key) {
            (Some(_), Some(_)) => {
                let text = "give `secrets.master_key` or `secrets.kms_key`: the one that is replaced goes under \
                            `secrets.previous_keys` (a key of KMS as `kms:NAME`)";
                return Err(Error::new(ErrorKind::Config, text).into());
            }
            (Some(text), None) => Some(Arc::new(LocalKey::parse(text, cluster, "secrets.master_key")?)),
            (None, Some(name)) => Some(Arc::new(KmsKey::new(name, endpoint, cluster).await)),
            (None, None) => None,
        };
        let mut previous: Vec<Arc<dyn MasterKey>> = Vec::new();
        for text in previous_keys(config)? {
            previous.push(match text.expose_secret().strip_prefix(kms::PREFIX) {
                Some(name) => Arc::new(KmsKey::new(name, endpoint, cluster).await),
                None => Arc::new(LocalKey::parse(&text, cluster, "secrets.previous_keys")?),
            });
        }
        let mut vault = Self::of(current, previous, config.plaintext, local);
        Arc::get_mut(&mut vault.0).expect("nobody else has it yet").unreadable = config.unreadable;
        Ok(vault)
    }

    /// A store as the coordinator sees it: what is sealed there is opened. For tools that look at the catalog themselves.
    #[must_use]
    pub fn over(
        &self,
        store: Arc<dyn ::store::MetadataStore>,
        cluster: &str,
    ) -> Arc<dyn ::store::MetadataStore> {
        Arc::new(SealedStore::new(store, cluster, self.clone()))
    }

    /// What the current master key is called; nothing without one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.0.current.as_ref().map(|key| key.id())
    }

    fn has_key(&self) -> bool {
        self.0.current.is_some()
    }

    fn is_local(&self) -> bool {
        self.0.local
    }

    fn forgets(&self) -> bool {
        self.0.unreadable == Unreadable::Forget
    }

    fn refuses_plain(&self) -> bool {
        self.0.plaintext == Plaintext::Never
    }

    /// Whether a new secret may be stored though there is no key.
    pub(crate) fn allows_plain(&self) -> bool {
        match self.0.plaintext {
            Plaintext::Always => true,
            Plaintext::Never => false,
            Plaintext::Loopback => self.0.local,
        }
    }

    /// Seals with the current key, which there must be.
    async fn seal(&self, aad: &[u8], text: Zeroizing<Vec<u8>>) -> Result<Seal> {
        let master =
            self.0.current.as_ref().ok_or_else(|| Error::new(ErrorKind::Config, "there is no master key"))?;
        let mut sealing = self.0.sealing.lock().await;
        if sealing.as_ref().is_none_or(|(key, _)| key.is_worn()) {
            let (key, wrapped) = master.new_data_key().await?;
            let (key, wrapped) = (Arc::new(key), STANDARD.encode(wrapped));
            self.keep(&wrapped, &key);
            *sealing = Some((key, wrapped));
        }
        let (key, data_key) = sealing.as_ref().expect("it was just made if it was not there");
        let text = STANDARD.encode(key.seal(aad, text)?);
        Ok(Seal { key: master.id().to_owned(), data_key: data_key.clone(), text })
    }

    /// What was sealed, if it is what it was, where it was.
    async fn open_seal(&self, aad: &[u8], seal: &Seal) -> Result<Zeroizing<Vec<u8>>> {
        let changed = || {
            let text = "the record, its place or its secrets are not what was encrypted: somebody else has changed them";
            Error::new(ErrorKind::Config, text)
        };
        let key = self.data_key(seal).await?;
        let text = STANDARD.decode(&seal.text).map_err(|_| changed())?;
        key.open(aad, &text).ok_or_else(changed)
    }

    async fn data_key(&self, seal: &Seal) -> Result<Arc<DataKey>> {
        if let Some(known) = self.opened().get(&seal.data_key) {
            return Ok(Arc::clone(known));
        }
        let wrapped = STANDARD
            .decode(&seal.data_key)
            .map_err(|_| Error::new(ErrorKind::Config, "the data key is not base64"))?;
        let masters: Vec<_> = self.0.current.iter().chain(&self.0.previous).collect();
        // A key of KMS may be named by an alias at one time and by its ARN at another.
        let alike =
            |id: &str| id == seal.key || (id.starts_with(kms::PREFIX) && seal.key.starts_with(kms::PREFIX));
        let mut fitting: Vec<_> = masters.into_iter().filter(|master| alike(master.id())).collect();
        fitting.sort_by_key(|master| master.id() != seal.key);
        let mut last = Error::new(
            ErrorKind::Config,
            format!(
                "master key {} is neither `secrets.master_key` nor among `secrets.previous_keys`",
                seal.key
            ),
        );
        for master in fitting {
            match master.unwrap(&wrapped).await {
                Ok(key) => {
                    let key = Arc::new(key);
                    self.keep(&seal.data_key, &key);
                    return Ok(key);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<DataKey>>> {
        self.0.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, wrapped: &str, key: &Arc<DataKey>) {
        let mut opened = self.opened();
        if opened.len() >= DATA_KEYS_MAX {
            opened.clear();
        }
        opened.insert(wrapped.to_owned(), Arc::clone(key));
    }

    /// The next record is sealed with a new data key.
    pub(crate) async fn renew(&self) {
        *self.0.sealing.lock().await = None;
    }
}

/// The keys of the list and of the file.
fn previous_keys(config: &SecretsConfig) -> Result<Vec<SecretString>> {
    let mut keys = config.previous_keys.clone();
    if let Some(path) = &config.previous_keys_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let text = format!("`secrets.previous_keys_file`: cannot read `{}`: {error}", path.display());
            Error::new(ErrorKind::Config, text)
        })?;
        let text = Zeroizing::new(text);
        keys.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(SecretString::from));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests;
