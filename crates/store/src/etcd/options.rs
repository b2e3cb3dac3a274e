//! How to reach an etcd cluster.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use secrecy::{ExposeSecret, SecretString};

use crate::{Error, ErrorKind, Result};

/// Where the cluster is and who we are. `Debug` shows no password.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// URLs, `http://host:port` or `https://host:port`, at least one.
    pub endpoints: Vec<String>,
    /// The user, if the cluster authenticates.
    pub user: Option<String>,
    /// That user's password.
    pub password: Option<SecretString>,
    /// A file that holds it instead; a line end at its end is not part of it. Read again when it changes.
    pub password_file: Option<PathBuf>,
    /// PEM file of the authority that signed the servers' certificates; the system's if absent. Read again when it
    /// changes.
    pub ca: Option<PathBuf>,
    /// PEM file of our certificate. Read again when it changes.
    pub cert: Option<PathBuf>,
    /// PEM file of its key. Read again when it changes.
    pub key: Option<PathBuf>,
    /// Deadline of every call.
    pub call_timeout: Duration,
    /// Deadline of the first one.
    pub connect_timeout: Duration,
}

impl EtcdConfig {
    /// These endpoints, without authentication, default deadlines (3 s a call, 5 s to connect).
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            user: None,
            password: None,
            password_file: None,
            ca: None,
            cert: None,
            key: None,
            call_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(5),
        }
    }

    pub(super) async fn client_options(&self) -> Result<ConnectOptions> {
        let refuse = |what: &str| Err(Error::new(ErrorKind::Config, what.to_owned()));
        if self.endpoints.is_empty() {
            return refuse("no etcd endpoint is given");
        }
        // etcd closes connections that are pinged more often than every 5 s (`--grpc-keepalive-min-time`), or while no call
        // is open. https://etcd.io/docs/v3.4/op-guide/configuration/
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.call_timeout.min(Duration::from_secs(2)))
            .with_keep_alive(Duration::from_secs(6), Duration::from_secs(3))
            .with_keep_alive_while_idle(false)
            .with_tcp_keepalive(Duration::from_secs(30))
            // A member that lost its cluster says so at once instead of holding our calls and watches.
            .with_require_leader(true);
        match (&self.user, &self.password().await?) {
            (Some(user), Some(password)) => {
                options = options.with_user(user, password.expose_secret()).with_auto_token_refresh(true);
            }
            (None, None) => {}
            (Some(_), None) => return refuse("etcd user is given without a password"),
            (None, Some(_)) => return refuse("etcd password is given without a user"),
        }
        let tls = self.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
        if tls {
            options = options.with_tls(self.tls().await?);
        } else if self.ca.is_some() || self.cert.is_some() || self.key.is_some() {
            return refuse("etcd certificates are given but its endpoints are not https://");
        }
        Ok(options)
    }

    /// The files that say who we are and whom we trust.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.ca, &self.cert, &self.key, &self.password_file].into_iter().filter_map(|file| file.as_deref())
    }

    async fn password(&self) -> Result<Option<SecretString>> {
        match (&self.password, &self.password_file) {
            (Some(_), Some(_)) => {
                let text = "give `password` or `password_file` of the store, not both";
                Err(Error::new(ErrorKind::Config, text))
            }
            (password, None) => Ok(password.clone()),
            (None, Some(file)) => {
                let text = String::from_utf8(read(file).await?).map_err(|_| {
                    let text = format!("password file `{}` is not text", file.display());
                    Error::new(ErrorKind::Config, text)
                })?;
                Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned().into()))
            }
        }
    }

    async fn tls(&self) -> Result<TlsOptions> {
        let mut tls = TlsOptions::new().with_native_roots();
        if let Some(ca) = &self.ca {
            tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca).await?));
        }
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                Ok(tls.identity(Identity::from_pem(read(cert).await?, read(key).await?)))
            }
            (None, None) => Ok(tls),
            _ => Err(Error::new(ErrorKind::Config, "etcd certificate and key must be given together")),
        }
    }
}

pub(super) async fn read(path: &Path) -> Result<Vec<u8>> {
    tokio::fs::read(path).await.map_err(|error| {
        Error::new(ErrorKind::Config, format!("file `{}` cannot be read: {error}", path.display()))
    })
}
