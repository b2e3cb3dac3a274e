//! The three PEM files: read, understood, and found to fit together. Every error names the file and the way out.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    sign::CertifiedKey,
};

use super::{
    certificate::{self, Said, date},
    expiry::Use,
};

/// No PEM file of ours is larger.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Where a file was named, and where it is: a setting or a flag, for messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Named {
    pub(super) setting: &'static str,
    pub(super) path: PathBuf,
}

impl Named {
    pub(super) fn new(setting: &'static str, path: impl Into<PathBuf>) -> Self {
        Self { setting, path: path.into() }
    }

    /// Begins every message about it.
    fn says(&self, what: impl std::fmt::Display) -> String {
        format!("`{}` ({}) {what}", self.path.display(), self.setting)
    }

    /// Its bytes.
    pub(super) fn read(&self) -> Result<Vec<u8>, String> {
        let failed = |error: std::io::Error| {
            self.says(match error.kind() {
                ErrorKind::NotFound => "does not exist".to_owned(),
                ErrorKind::PermissionDenied => {
                    "cannot be read: this process may not; give its user or group the right to".to_owned()
                }
                ErrorKind::IsADirectory => "is a directory: name a file in it".to_owned(),
                _ => format!("cannot be read: {error}"),
            })
        };
        let mut bytes = Vec::new();
        let file = File::open(&self.path).map_err(failed)?;
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        match bytes.len() as u64 > FILE_BYTES_MAX {
            true => Err(self.says("is larger than 4 MiB: it is no PEM file")),
            false => Ok(bytes),
        }
    }
}

/// A certificate with its chain and its key.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) said: Said,
}

/// Reads the pair out of what the two files hold.
pub(super) fn pair(
    cert: (&Named, &[u8]),
    key: (&Named, &[u8]),
    provider: &CryptoProvider,
) -> Result<Pair, String> {
    let chain = certificates(cert)?;
    let leaf = chain.first().map_or(&[][..], AsRef::as_ref);
    let said = certificate::read(leaf)
        .map_err(|error| cert.0.says(format!("holds no certificate that can be read: {error}")))?;
    let secret = private_key(key)?;
    let certified = CertifiedKey::from_der(chain, secret, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => key.0.says(format!(
            "does not belong to the certificate `{}`: name the key that it was requested with",
            cert.0.path.display()
        )),
        error => key.0.says(format!("holds a key that cannot be used: {error}")),
    })?;
    valid_now(cert.0, &said)?;
    Ok(Pair { certified: Arc::new(certified), said })
}

fn valid_now(file: &Named, said: &Said) -> Result<(), String> {
    let now = now();
    if now > said.not_after {
        return Err(file.says(format!("expired on {}: put a new one there", date(said.not_after))));
    }
    if now < said.not_before {
        return Err(file.says(format!(
            "is not valid before {}, and it is {}: is the clock of this machine right?",
            date(said.not_before),
            date(now)
        )));
    }
    Ok(())
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The authorities of a file, and when the first of them expires.
pub(super) fn authorities(file: (&Named, &[u8])) -> Result<(RootCertStore, i64), String> {
    let (mut roots, mut expires) = (RootCertStore::empty(), i64::MAX);
    for der in certificates(file)? {
        let broken = |error: &dyn std::fmt::Display| {
            file.0.says(format!("holds an authority that cannot be used: {error}"))
        };
        expires = expires.min(certificate::read(&der).map_err(|error| broken(&error))?.not_after);
        roots.add(der).map_err(|error| broken(&error))?;
    }
    Ok((roots, expires))
}

/// The second at which the first certificate of a file, or the first authority to end, expires.
pub(super) fn expires(file: (&Named, &[u8]), used: Use) -> Result<i64, String> {
    match used {
        Use::Authority => Ok(authorities(file)?.1),
        Use::Certificate => {
            let chain = certificates(file)?;
            let leaf = chain.first().map_or(&[][..], AsRef::as_ref);
            Ok(certificate::read(leaf)?.not_after)
        }
    }
}

fn certificates((file, bytes): (&Named, &[u8])) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let all = all.map_err(|error| not_pem(file, &error))?;
    if !all.is_empty() {
        return Ok(all);
    }
    Err(file.says(match bytes {
        [] => "is empty".to_owned(),
        [0x30, ..] => {
            "is DER, not PEM: convert it with `openssl x509 -inform der -in FILE -out FILE.pem`".to_owned()
        }
        _ if holds(bytes, "PRIVATE KEY-----") => {
            "holds a private key and no certificate: are the two files exchanged?".to_owned()
        }
        _ => "holds no PEM certificate (-----BEGIN CERTIFICATE-----)".to_owned(),
    }))
}

fn private_key((file, bytes): (&Named, &[u8])) -> Result<PrivateKeyDer<'static>, String> {
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(file.says(match bytes {
            [] => "is empty".to_owned(),
            [0x30, ..] => {
                "is DER, not PEM: convert it with `openssl pkey -inform der -in FILE -out FILE.pem`"
                    .to_owned()
            }
            _ if holds(bytes, "ENCRYPTED PRIVATE KEY-----") => {
                "is encrypted: decrypt it with `openssl pkey -in FILE -out FILE.pem`".to_owned()
            }
            _ if holds(bytes, "BEGIN CERTIFICATE-----") => {
                "holds a certificate and no private key: are the two files exchanged?".to_owned()
            }
            _ => "holds no PEM private key (-----BEGIN PRIVATE KEY-----)".to_owned(),
        })),
        Err(error) => Err(not_pem(file, &error)),
    }
}

/// What the parser says of bytes is not printed: they may be those of a key.
fn not_pem(file: &Named, error: &pem::Error) -> String {
    file.says(match error {
        pem::Error::MissingSectionEnd { .. } => "is cut short: a section of it has no end",
        _ => "is not PEM: a section of it cannot be read",
    })
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A file that may be named.
pub(super) fn named(setting: &'static str, path: Option<&Path>) -> Option<Named> {
    path.filter(|path| !path.as_os_str().is_empty()).map(|path| Named::new(setting, path))
}
