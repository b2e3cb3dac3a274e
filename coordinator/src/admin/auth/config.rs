//! `[auth]`: who callers of the admin API may be, and by what they show it.

use std::{fmt, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// Who a caller without credentials is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anonymous {
    /// The administrator, if the coordinator listens on a loopback address; else nobody.
    #[default]
    Loopback,
    /// Nobody.
    Never,
    /// The administrator, wherever the call comes from.
    Always,
}

/// A text that is never shown (I9).
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(model::MASK)
    }
}

/// Settings of `[auth]`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Who a caller without credentials is: `loopback`, `never` or `always`.
    pub anonymous: Anonymous,
    /// Name of the first administrator.
    pub admin_user: String,
    /// Its password. A leader that finds no user with `SYSTEM_ADMIN` creates this one.
    pub admin_password: Option<Secret>,
    /// Names in the certificates of coordinators that are believed when they say whose certificate their own caller showed.
    pub peers: Vec<String>,
    /// `[auth.jwt]`
    pub jwt: JwtConfig,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            anonymous: Anonymous::default(),
            admin_user: "admin".to_owned(),
            admin_password: None,
            peers: Vec::new(),
            jwt: JwtConfig::default(),
        }
    }
}

/// Settings of `[auth.jwt]`: whose tokens are taken. Off while `issuer` is absent.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JwtConfig {
    /// What the claim `iss` must be.
    pub issuer: Option<String>,
    /// Where the issuer publishes its keys: `https://…`, or `http://` on this machine.
    pub jwks_url: Option<String>,
    /// What must be among the claim `aud`.
    pub audience: Option<String>,
    /// The claim that names the user.
    pub user_claim: String,
    /// The claim that names roles, by a path with dots; absent: tokens bring none.
    pub roles_claim: Option<String>,
    /// PEM file of the authorities that `jwks_url` is trusted by; absent: those of the system.
    pub jwks_ca_path: Option<PathBuf>,
    /// File of a token that is shown to `jwks_url`, read at each fetch: a Kubernetes API server wants one.
    pub jwks_token_path: Option<PathBuf>,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            issuer: None,
            jwks_url: None,
            audience: None,
            user_claim: "sub".to_owned(),
            roles_claim: None,
            jwks_ca_path: None,
            jwks_token_path: None,
        }
    }
}

impl AuthConfig {
    /// Whether these settings can work together.
    ///
    /// # Errors
    /// `Config`: the setting, in words.
    pub fn check(&self) -> Result<()> {
        let wrong = |text: &str| Err(Error::new(ErrorKind::Config, text));
        if self.admin_user.is_empty() || self.admin_user.contains(':') {
            return wrong("`auth.admin_user` must be a name without a colon");
        }
        if self.admin_password.as_ref().is_some_and(|password| password.reveal().is_empty()) {
            return wrong("`auth.admin_password` is empty");
        }
        let jwt = &self.jwt;
        let given = [&jwt.issuer, &jwt.jwks_url, &jwt.audience].map(Option::is_some);
        if given != [true; 3] && given != [false; 3] {
            return wrong("`auth.jwt` needs all of issuer, jwks_url and audience, or none of them");
        }
        if jwt.user_claim.is_empty() {
            return wrong("`auth.jwt.user_claim` is empty");
        }
        match &jwt.jwks_url {
            Some(url) if !is_safe(url) => wrong(
                "`auth.jwt.jwks_url` must be https (or http on this machine): whoever changes the keys on their way is everybody",
            ),
            _ => Ok(()),
        }
    }

    /// Whether a caller without credentials is the administrator on such a listener.
    #[must_use]
    pub fn admits_anonymous(&self, listener: SocketAddr) -> bool {
        match self.anonymous {
            Anonymous::Always => true,
            Anonymous::Never => false,
            Anonymous::Loopback => listener.ip().to_canonical().is_loopback(),
        }
    }

    /// Says in the log what an operator should know about this listener.
    pub(crate) fn announce(&self, listener: SocketAddr, tls: bool) {
        let loopback = listener.ip().to_canonical().is_loopback();
        if self.anonymous == Anonymous::Always && !loopback {
            tracing::warn!(%listener, "whoever reaches this address is the administrator: auth.anonymous = \"always\"");
        }
        let nothing = self.admin_password.is_none() && self.jwt.issuer.is_none() && !tls;
        if !self.admits_anonymous(listener) && nothing {
            tracing::warn!(
                %listener,
                "there is nothing in the settings to log in by, callers without a password of their own are refused: \
                 set auth.admin_password (or SHARDWRIGHT_AUTH_ADMIN_PASSWORD_FILE), [auth.jwt] or [tls]; \
                 auth.anonymous = \"always\" makes every caller the administrator"
            );
        }
        if !loopback && !tls {
            tracing::warn!(%listener, "passwords and tokens of callers are not encrypted on their way here: set [tls]");
        }
    }
}

/// Nobody between us and this URL can change what it answers.
fn is_safe(url: &str) -> bool {
    if url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty()) {
        return true;
    }
    let Some(uri) = url.strip_prefix("http://").and_then(|_| url.parse::<tonic::codegen::http::Uri>().ok())
    else {
        return false;
    };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(url: &str) -> AuthConfig {
        let some = |text: &str| Some(text.to_owned());
        let jwt =
            JwtConfig { issuer: some("i"), jwks_url: some(url), audience: some("a"), ..JwtConfig::default() };
        AuthConfig { jwt, ..AuthConfig::default() }
    }

    #[test]
    fn keys_come_by_a_way_that_nobody_can_change() {
        assert!(jwt("https://issuer.example/keys").check().is_ok());
        for url in ["http://127.0.0.1:1/keys", "http://[::1]:1/keys", "http://localhost/keys"] {
            assert!(jwt(url).check().is_ok(), "{url}");
        }
        for url in [
            "http://issuer.example/keys",
            "file:///keys",
            "keys",
            "http://127.0.0.1@evil.example/",
            "https://",
        ] {
            assert!(jwt(url).check().is_err(), "{url}");
        }
    }

    #[test]
    fn half_of_an_issuer_is_refused() {
        let mut config = jwt("https://issuer.example/keys");
        config.jwt.audience = None;
        assert!(config.check().unwrap_err().to_string().contains("audience"));
    }

    #[test]
    fn only_a_loopback_listener_admits_the_anonymous() {
        let config = AuthConfig::default();
        for (listener, admitted) in [
            ("127.0.0.1:7070", true),
            ("[::1]:7070", true),
            ("[::ffff:127.0.0.1]:7070", true),
            ("0.0.0.0:7070", false),
            ("[::]:7070", false),
            ("10.0.0.1:7070", false),
        ] {
            assert_eq!(config.admits_anonymous(listener.parse().unwrap()), admitted, "{listener}");
        }
    }

    #[test]
    fn a_password_in_the_settings_is_never_shown() {
        let config: AuthConfig = serde_json::from_str(r#"{"admin_password": "hunter2"}"#).unwrap();
        assert_eq!(config.admin_password.as_ref().map(Secret::reveal), Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
