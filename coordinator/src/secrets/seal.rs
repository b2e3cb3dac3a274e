//! A catalog record as it is stored: `{"sealed": {…}, "record": {…}}`. The record lies open without its secrets; those are one
//! ciphertext beside it.
//!
//! The ciphertext is bound to the cluster, to the object's id and to every byte of the record: it opens in no other place, and in
//! a record whose endpoint somebody else has changed it does not open at all. So even a record without secrets of its own is
//! sealed if it names a credential: otherwise whoever can write to the store could send that credential where he likes.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use model::{ObjectId, Options};
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use store::{Error, ErrorKind, Key, ObjectRecord, Result};

use super::Vault;

/// What the ciphertext is bound to begins with this: it names the purpose and the layout.
const CONTEXT: &[u8] = b"shardwright record secrets 1\0";

/// The length of a ciphertext tells that of the secrets only up to this many bytes.
const PADDING: usize = 64;

/// The secrets of a record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Seal {
    /// The master key that wrapped the data key.
    pub key: String,
    /// The data key, wrapped; base64.
    pub data_key: String,
    /// Nonce, ciphertext and tag; base64.
    pub text: String,
}

/// A record with its secrets sealed.
#[derive(Serialize, Deserialize)]
struct Sealed {
    sealed: Seal,
    record: Box<RawValue>,
}

/// Which options of which list are secret.
type Secrets = BTreeMap<String, Options>;

/// How the secrets of a record are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kept {
    /// As they are: there was no key.
    Plain,
    /// Sealed, by the master key of this id.
    Sealed(String),
}

/// The bytes to store for the record in `plain`, and how its secrets are kept; nothing if it has none and uses none.
pub(super) async fn seal(
    vault: &Vault,
    cluster: &str,
    (key, id): (&Key, ObjectId),
    plain: &[u8],
) -> Result<(Option<Vec<u8>>, Option<Kept>)> {
    let mut record: ObjectRecord = store::decode(key, plain)?;
    if !needs(&record) {
        return Ok((None, None));
    }
    if !vault.has_key() {
        return Ok((None, Some(Kept::Plain)));
    }
    let mut secrets = Secrets::new();
    for (place, options) in record.spec.options_mut() {
        let taken: Options =
            options.take_secrets().into_iter().map(|(name, value)| (name, expose(&value))).collect();
        if !taken.is_empty() {
            secrets.insert(place.to_owned(), taken);
        }
    }
    let unreadable =
        |error: serde_json::Error| Error::new(ErrorKind::Corrupt, format!("key `{key}`: {error}"));
    let record = serde_json::value::to_raw_value(&record).map_err(unreadable)?;
    let mut text = Zeroizing::new(serde_json::to_vec(&secrets).map_err(unreadable)?);
    let padded = text.len().next_multiple_of(PADDING);
    text.resize(padded, b' ');
    let sealed = vault.seal(&bound_to(cluster, id, record.get()), text).await?;
    let kept = Kept::Sealed(sealed.key.clone());
    let bytes = serde_json::to_vec(&Sealed { sealed, record }).map_err(unreadable)?;
    Ok((Some(bytes), Some(kept)))
}

/// The record that is stored in `bytes`, with its secrets, and how they are kept; nothing instead of bytes that need no change.
///
/// # Errors
/// `Config` if no key opens it, if it was changed, or if it is plain and must not be.
pub(super) async fn open(
    vault: &Vault,
    cluster: &str,
    (key, id): (&Key, ObjectId),
    bytes: &[u8],
) -> Result<(Option<Vec<u8>>, Option<Kept>)> {
    let Ok(Sealed { sealed, record }) = serde_json::from_slice::<Sealed>(bytes) else {
        let record: ObjectRecord = store::decode(key, bytes)?;
        let kept = needs(&record).then_some(Kept::Plain);
        if kept.is_some() && vault.refuses_plain() {
            let text = format!(
                "{} \"{}\" is stored in plain text, and `secrets.plaintext` is `never`: with `always`, \
                 `shardwright secrets rotate` encrypts it; if it was encrypted before, somebody else wrote it",
                record.spec.kind().as_str(),
                record.spec.name()
            );
            return Err(Error::new(ErrorKind::Config, text));
        }
        return Ok((None, kept));
    };
    let refused = |error: Error| {
        let text = format!("secrets at key `{key}` cannot be decrypted: {}", error.context);
        Error::new(error.kind, text)
    };
    let mut plain: ObjectRecord = store::decode(key, record.get().as_bytes())?;
    let text = match vault.open_seal(&bound_to(cluster, id, record.get()), &sealed).await {
        Ok(text) => text,
        Err(error) if error.kind == ErrorKind::Config && vault.forgets() => {
            return forgotten(key, plain, &refused(error)).map(|bytes| (Some(bytes), None));
        }
        Err(error) => return Err(refused(error)),
    };
    let secrets: Secrets = store::decode(key, &text)?;
    for (place, options) in plain.spec.options_mut() {
        for (name, value) in secrets.get(place).into_iter().flat_map(Options::iter) {
            options.insert(name, value);
        }
    }
    let bytes = serde_json::to_vec(&plain)
        .map_err(|error| Error::new(ErrorKind::Corrupt, format!("key `{key}`: {error}")))?;
    Ok((Some(bytes), Some(Kept::Sealed(sealed.key))))
}

/// The record without its secrets, and without the name of a credential: nobody vouches for where it would be sent.
fn forgotten(key: &Key, mut record: ObjectRecord, why: &Error) -> Result<Vec<u8>> {
    let (kind, name) = (record.spec.kind().as_str(), record.spec.name().to_owned());
    tracing::error!("the secrets of {kind} `{name}` are forgotten, as `secrets.unreadable` says: {why}");
    for (_, options) in record.spec.options_mut() {
        options.forget_credentials();
    }
    serde_json::to_vec(&record)
        .map_err(|error| Error::new(ErrorKind::Corrupt, format!("key `{key}`: {error}")))
}

/// True if a record holds secrets, or sends those of a credential somewhere.
pub(crate) fn needs(record: &ObjectRecord) -> bool {
    record.spec.has_secrets() || record.spec.credentials().next().is_some()
}

fn expose(secret: &secrecy::SecretString) -> String {
    secrecy::ExposeSecret::expose_secret(secret).to_owned()
}

/// Cluster, object and the whole record: what a ciphertext cannot be taken away from.
fn bound_to(cluster: &str, id: ObjectId, record: &str) -> Vec<u8> {
    let mut bound = CONTEXT.to_vec();
    for part in [cluster, &id.to_string()] {
        bound.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        bound.extend_from_slice(part.as_bytes());
    }
    bound.extend_from_slice(digest(&SHA256, record.as_bytes()).as_ref());
    bound
}
