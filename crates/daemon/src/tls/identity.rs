//! Who this process is among the others of its cluster: its certificate, its key and the authority that it trusts. The files
//! are looked at again and again, by what they hold; connections that are made after a change use the new ones, those that
//! stand live on. Files that cannot be used change nothing but a metric and the log.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    time::Duration,
};

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge},
};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{
    expiry::{self, Use},
    files::{named, now},
    material::{Contents, Files, Material},
    peer::Demands,
};
use crate::{Error, Result};

/// How often the files are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where processes of the cluster are listened to without certificates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plaintext {
    /// On loopback addresses.
    #[default]
    Loopback,
    /// Wherever the settings say: who reaches the port can join the cluster.
    Always,
}

/// `[tls]`: this process among the others of its cluster. On as soon as one of the files is named; then all three are needed.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate of this process, and those between it and the authority. Read again when it changes.
    pub cert_path: Option<PathBuf>,
    /// PEM file with its private key. Read again when it changes.
    pub key_path: Option<PathBuf>,
    /// PEM file with the authorities whose certificates belong to this cluster. Read again when it changes.
    pub ca_path: Option<PathBuf>,
    /// Whether names are compared: a worker's certificate must bear its `worker.name`, a coordinator's the host at which it is
    /// reached. If not, any certificate of the authority will do.
    pub verify_names: bool,
    /// Where others are listened to while none of the files is named: `loopback` or `always`.
    pub plaintext: Plaintext,
}

impl Default for TlsConfig {
    fn default() -> Self {
        let plaintext = Plaintext::default();
        Self { cert_path: None, key_path: None, ca_path: None, verify_names: true, plaintext }
    }
}

impl TlsConfig {
    /// Whether a file is named.
    #[must_use]
    pub fn is_on(&self) -> bool {
        [&self.cert_path, &self.key_path, &self.ca_path]
            .into_iter()
            .flatten()
            .any(|path| !path.as_os_str().is_empty())
    }

    /// The files; `None` if TLS is off.
    fn files(&self) -> Result<Option<Files>> {
        let cert = named("tls.cert_path", self.cert_path.as_deref());
        let key = named("tls.key_path", self.key_path.as_deref());
        let ca = named("tls.ca_path", self.ca_path.as_deref());
        match (cert, key, ca) {
            (None, None, None) => Ok(None),
            (Some(cert), Some(key), Some(ca)) => Ok(Some(Files { cert, key, ca })),
            (cert, key, _) => {
                let missing = match (cert, key) {
                    (None, _) => "cert_path",
                    (_, None) => "key_path",
                    _ => "ca_path",
                };
                Err(Error::config(format!(
                    "[tls] needs cert_path, key_path and ca_path: `tls.{missing}` is missing"
                )))
            }
        }
    }
}

/// The identity of this process. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    shared: Arc<Shared>,
}

struct Shared {
    files: Files,
    verify_names: bool,
    now: RwLock<Arc<Material>>,
    seen: Mutex<Seen>,
    meters: Meters,
}

/// What was found at the last look.
struct Seen {
    /// What the material is made of.
    used: Contents,
    /// Why what lies there now is not used, and whether that was said. Files are written one after the other: what fits
    /// together a moment later is no trouble.
    trouble: Option<(String, bool)>,
}

/// What a look at the files came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Look {
    /// Nothing has changed.
    Same,
    /// New connections use what was found.
    Changed,
    /// What was found cannot be used: the old one is kept.
    Broken(String),
}

struct Meters {
    reloads: Counter<u64>,
    failing: Gauge<u64>,
}

impl Tls {
    /// Reads the files, and looks at them again until `cancel`. `None` if TLS is off. Inside the runtime, after telemetry.
    ///
    /// # Errors
    /// A file that is missing, cannot be read or understood, does not fit the others, or is not valid now.
    pub fn start(config: &TlsConfig, cancel: CancellationToken) -> Result<Option<Self>> {
        let Some(tls) = Self::open(config)? else { return Ok(None) };
        tracing::info!(
            certificate = %tls.shared.files.cert.path.display(),
            names = ?tls.names(),
            expires_in_days = (tls.shared.material().said.not_after - now()) / 86_400,
            verify_names = tls.shared.verify_names,
            "TLS is on"
        );
        if !config.verify_names {
            tracing::warn!(
                "tls.verify_names is off: any certificate of the authority may say that it is any worker"
            );
        }
        let weak = Arc::downgrade(&tls.shared);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                let Some(shared) = weak.upgrade() else { return };
                let tls = Self { shared };
                // Files may lie on a disk that hangs.
                if tokio::task::spawn_blocking(move || tls.look()).await.is_err() {
                    return;
                }
            }
        });
        Ok(Some(tls))
    }

    /// Reads the files once. `None` if TLS is off.
    ///
    /// # Errors
    /// As [`Tls::start`].
    pub fn open(config: &TlsConfig) -> Result<Option<Self>> {
        let Some(files) = config.files()? else { return Ok(None) };
        let used = files.read().map_err(Error::config)?;
        let material = Material::of(&files, &used).map_err(Error::config)?;
        warn_of_usage(&files, &material);
        let meter = global::meter("shardwright");
        let meters = Meters {
            reloads: meter.u64_counter("certificate_reloads").build(),
            failing: meter.u64_gauge("certificate_reload_failing").build(),
        };
        meters.failing.record(0, &[]);
        let shared = Arc::new(Shared {
            files,
            verify_names: config.verify_names,
            now: RwLock::new(Arc::new(material)),
            seen: Mutex::new(Seen { used, trouble: None }),
            meters,
        });
        measure_expiry(Arc::downgrade(&shared));
        Ok(Some(Self { shared }))
    }

    /// Looks at the files now.
    pub fn look(&self) -> Look {
        let shared = &self.shared;
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = shared.files.read().and_then(|contents| match contents == seen.used {
            true => Ok(None),
            false => Material::of(&shared.files, &contents).map(|material| Some((contents, material))),
        });
        match found {
            Ok(None) => {
                shared.meters.failing.record(0, &[]);
                seen.trouble = None;
                Look::Same
            }
            Ok(Some((contents, material))) => {
                warn_of_usage(&shared.files, &material);
                tracing::info!(
                    certificate = %shared.files.cert.path.display(),
                    names = ?material.said.names,
                    expires_in_days = (material.said.not_after - now()) / 86_400,
                    "the certificate was read again"
                );
                (seen.used, seen.trouble) = (contents, None);
                *shared.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(material);
                shared.meters.failing.record(0, &[]);
                shared.meters.reloads.add(1, &[KeyValue::new("outcome", "ok")]);
                Look::Changed
            }
            Err(error) => {
                let said = shared.trouble(&error, seen.trouble.take());
                seen.trouble = Some((error.clone(), said));
                Look::Broken(error)
            }
        }
    }

    /// The names in its own certificate: DNS names first, then the common name.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.shared.material().said.names.clone()
    }

    /// Whether names are compared.
    #[must_use]
    pub fn verifies_names(&self) -> bool {
        self.shared.verify_names
    }

    pub(super) fn demands(&self) -> Demands {
        Demands { certificate: true, names: self.shared.verify_names }
    }

    pub(super) fn material(&self) -> Arc<Material> {
        self.shared.material()
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.shared.files).finish_non_exhaustive()
    }
}

impl Shared {
    fn material(&self) -> Arc<Material> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says what is wrong with the files, once, and only if it is still wrong at the second look. Whether it has been said.
    fn trouble(&self, error: &str, before: Option<(String, bool)>) -> bool {
        let Some((known, said)) = before.filter(|(known, _)| known == error) else { return false };
        if !said {
            tracing::error!(
                reason = known,
                "the certificate on disk cannot be used, the one that was read before is kept"
            );
            self.meters.failing.record(1, &[]);
            self.meters.reloads.add(1, &[KeyValue::new("outcome", "failed")]);
        }
        true
    }
}

/// Every process of a cluster is a server and a client.
fn warn_of_usage(files: &Files, material: &Material) {
    for (allowed, usage) in [(material.said.server, "server auth"), (material.said.client, "client auth")] {
        if !allowed {
            tracing::warn!(
                certificate = %files.cert.path.display(),
                "the certificate is not one for {usage} (extended key usage): others of the cluster will refuse it"
            );
        }
    }
}

/// `certificate_expiry_seconds` of what is used.
fn measure_expiry(shared: Weak<Shared>) {
    expiry::gauge(move |observe| {
        let Some(shared) = shared.upgrade() else { return };
        let material = shared.material();
        observe(&shared.files.cert.path, Use::Certificate, material.said.not_after);
        observe(&shared.files.ca.path, Use::Authority, material.authorities_expire);
    });
}
