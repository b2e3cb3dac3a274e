//! Which store a configuration names, and the connection to it. Called by the command line.

use std::{path::PathBuf, sync::Arc, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

use crate::{EmbeddedStore, Error, ErrorKind, EtcdConfig, EtcdStore, MetadataStore, Result};

/// Where the metadata lives. `Debug` shows no password.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// `etcd://host:port,…` (TLS if `ca` or `cert` is given), `http://…` or `https://…` lists (the same etcd, scheme
    /// spelled out), `embedded:PATH` (one local file), or `memory:` (gone with the process).
    pub url: String,
    /// etcd's user.
    #[serde(default)]
    pub user: Option<String>,
    /// That user's password.
    #[serde(default)]
    pub password: Option<SecretString>,
    /// A file that holds the password; a line end at its end is not part of it. It and the PEM files are read again when they
    /// change.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// PEM file of the authority that signed etcd's certificates.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// PEM file of our certificate.
    #[serde(default)]
    pub cert: Option<PathBuf>,
    /// PEM file of its key.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Deadline of the first call, in seconds (5 if absent).
    #[serde(default)]
    pub connect_timeout_seconds: Option<u64>,
}

impl StoreConfig {
    /// This URL and nothing else.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            user: None,
            password: None,
            password_file: None,
            ca: None,
            cert: None,
            key: None,
            connect_timeout_seconds: None,
        }
    }

    /// True if the store is on this machine: a file, the process's own memory, or an etcd at loopback addresses alone.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let loopback = |endpoint: &String| {
            let authority = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, rest)| rest);
            let authority = authority.split('/').next().unwrap_or_default();
            let host =
                authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']']);
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        };
        match place(&self.url, false) {
            Ok(Place::Etcd(endpoints)) => endpoints.iter().all(loopback),
            Ok(Place::File(_) | Place::Memory) => true,
            Err(_) => false,
        }
    }

    fn has_etcd_settings(&self) -> bool {
        self.user.is_some()
            || self.password.is_some()
            || self.password_file.is_some()
            || self.ca.is_some()
            || self.cert.is_some()
            || self.key.is_some()
    }

    fn etcd(&self, endpoints: Vec<String>) -> EtcdConfig {
        let mut config = EtcdConfig::new(endpoints);
        config.user = self.user.clone();
        (config.password, config.password_file) = (self.password.clone(), self.password_file.clone());
        (config.ca, config.cert, config.key) = (self.ca.clone(), self.cert.clone(), self.key.clone());
        if let Some(seconds) = self.connect_timeout_seconds {
            config.connect_timeout = Duration::from_secs(seconds);
        }
        config
    }
}

/// What a URL names.
#[derive(PartialEq, Eq, Debug)]
enum Place {
    Etcd(Vec<String>),
    File(PathBuf),
    Memory,
}

/// Opens the store that the configuration names.
///
/// # Errors
/// `Config` for a URL that names no store or settings that do not fit it; those of the store's own opening.
pub async fn connect(config: &StoreConfig) -> Result<Arc<dyn MetadataStore>> {
    let place = place(&config.url, config.ca.is_some() || config.cert.is_some())?;
    if !matches!(place, Place::Etcd(_)) && config.has_etcd_settings() {
        return refuse(format!("store `{}` takes no user, password or certificate", config.url));
    }
    Ok(match place {
        Place::Etcd(endpoints) => Arc::new(EtcdStore::connect(config.etcd(endpoints)).await?),
        Place::File(path) => Arc::new(EmbeddedStore::open(path).await?),
        Place::Memory => Arc::new(EmbeddedStore::in_memory()),
    })
}

fn place(url: &str, tls: bool) -> Result<Place> {
    if let Some(path) = url.strip_prefix("embedded:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.is_empty() {
            refuse("store `embedded:` names no file, write `embedded:PATH`")
        } else {
            Ok(Place::File(path.into()))
        };
    }
    if matches!(url, "memory:" | "memory") {
        return Ok(Place::Memory);
    }
    let scheme = match url.split_once("://") {
        Some(("etcd", _)) => {
            if tls {
                "https"
            } else {
                "http"
            }
        }
        Some(("http", _)) => "http",
        Some(("https", _)) => "https",
        _ => {
            let shown = model::mask_url(url);
            return refuse(format!(
                "store `{shown}` is none we know: write `etcd://HOST:PORT[,HOST:PORT…]`, `http://…`, `https://…`, \
                 `embedded:PATH` or `memory:`"
            ));
        }
    };
    url.split(',').map(|part| endpoint(part.trim(), scheme)).collect::<Result<_>>().map(Place::Etcd)
}

fn endpoint(part: &str, scheme: &str) -> Result<String> {
    let host = match part.split_once("://") {
        Some((own, _)) if own != "etcd" && own != scheme => {
            return refuse(format!(
                "etcd endpoint `{}` is not {scheme}:// as the first one",
                model::mask_url(part)
            ));
        }
        Some((_, host)) => host,
        None => part,
    };
    let host = host.trim_end_matches('/');
    if host.contains('@') {
        return refuse(
            "etcd endpoints carry no user: set `user` and `password` (or `password_file`) of the store",
        );
    }
    let port = host.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)));
    match port {
        Some((name, _)) if !name.is_empty() && !name.contains('/') => Ok(format!("{scheme}://{host}")),
        _ => refuse(format!("etcd endpoint `{host}` is not HOST:PORT")),
    }
}

fn refuse<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::new(ErrorKind::Config, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etcd(url: &str, tls: bool) -> Vec<String> {
        match place(url, tls).unwrap() {
            Place::Etcd(endpoints) => endpoints,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn urls_name_their_store() {
        assert_eq!(etcd("etcd://a:1,b:2", false), ["http://a:1", "http://b:2"]);
        assert_eq!(etcd("etcd://a:1,etcd://b:2", true), ["https://a:1", "https://b:2"]);
        assert_eq!(etcd("http://a:1, http://b:2/", false), ["http://a:1", "http://b:2"]);
        assert_eq!(etcd("https://a:1,b:2", false), ["https://a:1", "https://b:2"]);
        assert_eq!(etcd("etcd://[::1]:2379", false), ["http://[::1]:2379"]);
        assert_eq!(place("embedded:/var/x.redb", false).unwrap(), Place::File("/var/x.redb".into()));
        assert_eq!(place("embedded:x.redb", false).unwrap(), Place::File("x.redb".into()));
        assert_eq!(place("memory:", false).unwrap(), Place::Memory);
    }

    #[test]
    fn a_store_on_this_machine_is_known_by_its_addresses() {
        for url in ["memory:", "embedded:x.redb", "etcd://127.0.0.1:1,localhost:2", "http://[::1]:2379"] {
            assert!(StoreConfig::new(url).is_local(), "{url}");
        }
        for url in
            ["etcd://127.0.0.1:1,etcd-0:2", "https://10.0.0.1:1", "etcd://localhost.example:1", "nonsense"]
        {
            assert!(!StoreConfig::new(url).is_local(), "{url}");
        }
    }

    #[test]
    fn wrong_urls_say_what_is_wrong() {
        let text = |url: &str| place(url, false).unwrap_err().to_string();
        assert!(text("ectd://a:1").contains("`etcd://HOST:PORT"), "{}", text("ectd://a:1"));
        assert!(text("etcd://a").contains("`a` is not HOST:PORT"));
        assert!(text("etcd://a:1,").contains("is not HOST:PORT"));
        assert!(text("http://a:1,https://b:1").contains("is not http://"));
        assert!(text("embedded:").contains("embedded:PATH"));
        for url in ["etcd://me:hunter2@a:1", "ectd://me:hunter2@a:1", "http://a:1,https://me:hunter2@a:1"] {
            assert!(!text(url).contains("hunter2"), "{}", text(url));
        }
    }

    #[tokio::test]
    async fn settings_that_do_not_fit_are_refused() {
        let mut config = StoreConfig::new("memory:");
        config.user = Some("me".to_owned());
        let error = connect(&config).await.err().unwrap();
        assert!(error.to_string().contains("takes no user"), "{error}");
        let mut config = StoreConfig::new("etcd://127.0.0.1:1");
        config.user = Some("me".to_owned());
        let error = connect(&config).await.err().unwrap();
        assert!(error.to_string().contains("user is given without a password"), "{error}");
    }

    #[test]
    fn a_password_is_never_printed() {
        let config: StoreConfig =
            serde_json::from_str(r#"{"url": "etcd://a:1", "user": "me", "password": "hunter2"}"#).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(serde_json::from_str::<StoreConfig>(r#"{"url": "memory:", "usr": "x"}"#).is_err());
    }
}
