//! Data keys, and the master keys that wrap them. A data key seals records; wrapped by a master key it lies beside what it
//! sealed, so that nothing but the master key has to be kept.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
    rand,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use store::{Error, ErrorKind, Result};

/// Bytes of every key.
pub(super) const KEY_LEN: usize = 32;

/// How often a data key seals before there is a new one: nonces are random, and far from the 2^32 that a key of AES-GCM may see.
const SEALS_MAX: u32 = 1 << 20;

/// Tells a wrapped data key from anything else that a master key could have sealed.
const WRAP_CONTEXT: &[u8] = b"shardwright data key 1\0";

/// Seals records, in memory only.
pub(super) struct DataKey {
    key: RandomizedNonceKey,
    seals: AtomicU32,
}

impl DataKey {
    /// A key of these bytes.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes)
            .map_err(|_| Error::new(ErrorKind::Corrupt, "a data key does not have 256 bits"))?;
        Ok(Self { key, seals: AtomicU32::new(0) })
    }

    /// Nonce, ciphertext and tag in a row.
    pub fn seal(&self, aad: &[u8], mut text: Zeroizing<Vec<u8>>) -> Result<Vec<u8>> {
        self.seals.fetch_add(1, Ordering::Relaxed);
        let (nonce, tag) = self
            .key
            .seal_in_place_separate_tag(Aad::from(aad), text.as_mut_slice())
            .map_err(|_| Error::new(ErrorKind::Config, "the cryptographic library cannot encrypt"))?;
        Ok([nonce.as_ref(), text.as_slice(), tag.as_ref()].concat())
    }

    /// What was sealed under the same `aad`; nothing if it was not, or was changed since.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = self.key.open_in_place(nonce, Aad::from(aad), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }

    /// True when it has sealed enough.
    pub fn is_worn(&self) -> bool {
        self.seals.load(Ordering::Relaxed) >= SEALS_MAX
    }
}

/// Wraps and unwraps data keys.
#[async_trait]
pub(super) trait MasterKey: Send + Sync {
    /// What the records that it protects call it. Says nothing about the key.
    fn id(&self) -> &str;
    /// A new data key, and the same wrapped.
    async fn new_data_key(&self) -> Result<(DataKey, Vec<u8>)>;
    /// A data key that it wrapped. Errors: `Config` if it did not.
    async fn unwrap(&self, wrapped: &[u8]) -> Result<DataKey>;
}

/// A master key that the settings hold.
pub(super) struct LocalKey {
    id: String,
    key: DataKey,
    aad: Vec<u8>,
}

impl LocalKey {
    /// The key in this base64 text, for a cluster. `named` is the setting, for messages.
    pub fn parse(text: &SecretString, cluster: &str, named: &str) -> Result<Self> {
        let wrong = || {
            let text =
                format!("`{named}` is not the base64 of 32 bytes: `shardwright secrets new-key` makes one");
            Error::new(ErrorKind::Config, text)
        };
        let bytes = Zeroizing::new(STANDARD.decode(text.expose_secret().trim()).map_err(|_| wrong())?);
        if bytes.len() != KEY_LEN {
            return Err(wrong());
        }
        // A digest of 256 random bits tells nothing of them.
        let id = digest(&SHA256, &[b"shardwright master key id\0", bytes.as_slice()].concat());
        let id: String = id.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let aad = [WRAP_CONTEXT, cluster.as_bytes()].concat();
        Ok(Self { id, key: DataKey::new(&bytes)?, aad })
    }
}

#[async_trait]
impl MasterKey for LocalKey {
    fn id(&self) -> &str {
        &self.id
    }

    async fn new_data_key(&self) -> Result<(DataKey, Vec<u8>)> {
        let bytes = random()?;
        let data_key = DataKey::new(bytes.as_slice())?;
        let wrapped = self.key.seal(&self.aad, Zeroizing::new(bytes.to_vec()))?;
        Ok((data_key, wrapped))
    }

    async fn unwrap(&self, wrapped: &[u8]) -> Result<DataKey> {
        let bytes = self.key.open(&self.aad, wrapped).ok_or_else(|| {
            let text = format!("master key {} did not make this data key, or it was changed", self.id);
            Error::new(ErrorKind::Config, text)
        })?;
        DataKey::new(&bytes)
    }
}

/// New random bytes for a key.
fn random() -> Result<Zeroizing<[u8; KEY_LEN]>> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    rand::fill(bytes.as_mut_slice())
        .map_err(|_| Error::new(ErrorKind::Config, "the system gives no random bytes"))?;
    Ok(bytes)
}

/// A new master key, as the setting wants it.
///
/// # Errors
/// The system gives no random bytes.
pub fn new_master_key() -> crate::Result<SecretString> {
    Ok(STANDARD.encode(random()?.as_slice()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_only_as_it_was_sealed() {
        let (key, other) = (DataKey::new(&[7; 32]).unwrap(), DataKey::new(&[8; 32]).unwrap());
        let sealed = key.seal(b"here", Zeroizing::new(b"hunter2".to_vec())).unwrap();
        assert_eq!(key.open(b"here", &sealed).unwrap().as_slice(), b"hunter2");
        assert!(key.open(b"there", &sealed).is_none());
        assert!(other.open(b"here", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open(b"here", &changed).is_none(), "byte {at} does not matter");
            assert!(key.open(b"here", &sealed[..at]).is_none());
        }
        assert_ne!(sealed, key.seal(b"here", Zeroizing::new(b"hunter2".to_vec())).unwrap());
    }

    #[tokio::test]
    async fn a_data_key_is_unwrapped_by_its_master_key_and_cluster_alone() {
        let text = new_master_key().unwrap();
        let ours = LocalKey::parse(&text, "a", "key").unwrap();
        let (key, wrapped) = ours.new_data_key().await.unwrap();
        let sealed = key.seal(b"", Zeroizing::new(b"hunter2".to_vec())).unwrap();
        let again = LocalKey::parse(&text, "a", "key").unwrap();
        assert_eq!(again.id(), ours.id());
        assert!(again.unwrap(&wrapped).await.unwrap().open(b"", &sealed).is_some());
        for other in [
            LocalKey::parse(&text, "b", "key").unwrap(),
            LocalKey::parse(&new_master_key().unwrap(), "a", "key").unwrap(),
        ] {
            assert_eq!(other.unwrap(&wrapped).await.err().unwrap().kind, ErrorKind::Config);
        }
    }

    #[test]
    fn a_key_of_another_length_is_refused_without_being_shown() {
        for text in ["", "hunter2", "aHVudGVyMg=="] {
            let error = LocalKey::parse(&text.into(), "c", "secrets.master_key").err().unwrap().to_string();
            assert!(error.contains("`secrets.master_key` is not the base64 of 32 bytes"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains("aHVud"), "{error}");
        }
    }
}
