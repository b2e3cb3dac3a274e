//! The `WITH ( … )` options of an object, and the rule that no secret among them is ever printed (I9).

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// What is printed in place of a secret.
pub const MASK: &str = "********";

/// Options by name. `Debug` masks secrets; `serde` does not, because the catalog must be able to use them.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets `name`, returning what was there.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) -> Option<String> {
        self.0.insert(name.into(), value.into())
    }

    /// Takes `name` out.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Names and values, sorted by name. The values are not masked.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Names and values, sorted by name, secrets masked: what may be shown.
    pub fn masked(&self) -> impl Iterator<Item = (&str, String)> {
        self.iter().map(|(k, v)| (k, if is_secret_option(k) { MASK.to_owned() } else { mask_url(v) }))
    }

    /// The options whose name starts with `prefix`, without it (`dead_letter.` gives those of the dead-letter sink).
    #[must_use]
    pub fn under(&self, prefix: &str) -> Self {
        self.0.iter().filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.to_owned(), v.clone()))).collect()
    }

    /// True without options.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Options {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(pairs: T) -> Self {
        Self(pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.masked()).finish()
    }
}

/// Whether the value of this option must never be printed, logged or returned.
#[must_use]
pub fn is_secret_option(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or(&name);
    matches!(
        last,
        "password"
            | "token"
            | "jwt"
            | "nkey"
            | "secret"
            | "secret_access_key"
            | "session_token"
            | "service_account"
            | "pem"
    ) || name.ends_with("ssl.key.pem")
        || name.ends_with("s3.secret.key")
        || name.ends_with("gcs.service.account")
        || name.ends_with("credentials.secret")
        || matches!(
            name.as_str(),
            "gcs_service_account_keys" | "sas token" | "delegation token" | "azure_oauth_token"
        )
}

/// A URL without its user-info part: `http://user:pw@host` becomes `http://********@host`. Other texts stay as they are.
#[must_use]
pub fn mask_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..authority_end].rfind('@') {
        Some(at) => format!("{scheme}://{MASK}{}", &rest[at..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_masks_secrets_and_urls() {
        let options: Options = [
            ("aws.credentials.secret_access_key", "hunter2"),
            ("dead_letter.properties.sasl.password", "hunter2"),
            ("endpoint", "http://u:hunter2@127.0.0.1:1/x@y"),
            ("stream", "clicks"),
        ]
        .into_iter()
        .collect();
        let shown = format!("{options:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("clicks") && shown.contains("127.0.0.1:1/x@y"), "{shown}");
    }

    #[test]
    fn access_key_id_is_not_a_secret() {
        assert!(!is_secret_option("aws.credentials.access_key_id"));
        assert!(!is_secret_option("primary_key"));
        assert!(is_secret_option("kinesis.credentials.secret"));
        assert!(is_secret_option("kinesis.credentials.session_token"));
    }
}
