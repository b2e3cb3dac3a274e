//! The `WITH ( … )` options of an object, and the rule that no secret among them is ever printed (I9).
//!
//! Which option is a secret is known by its name, so that a text can be masked by those who know no connector (the parser's
//! errors, the history of the command line); the connectors declare theirs besides, and a test compares the two.

use std::{collections::BTreeMap, fmt};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is printed in place of a secret.
pub const MASK: &str = "********";

/// The option by which an object names a credential.
pub const CREDENTIAL: &str = "credential";

/// The same of its dead-letter sink.
const DEAD_LETTER_CREDENTIAL: &str = "dead_letter.credential";

/// Options by name. `Debug` masks secrets, and their memory is wiped; `serde` does not mask, because the catalog must be able to
/// use them (on its way to the store it is sealed).
#[derive(Clone, Default)]
pub struct Options(BTreeMap<String, Value>);

/// What an option is set to.
#[derive(Clone)]
enum Value {
    Plain(String),
    Secret(SecretString),
}

impl Value {
    fn new(name: &str, value: String) -> Self {
        if is_secret_value(name, &value) { Self::Secret(value.into()) } else { Self::Plain(value) }
    }

    fn expose(&self) -> &str {
        match self {
            Self::Plain(value) => value,
            Self::Secret(value) => value.expose_secret(),
        }
    }
}

impl Options {
    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Value::expose)
    }

    /// Sets `name`, returning what was there.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) -> Option<String> {
        let name = name.into();
        let value = Value::new(&name, value.into());
        self.0.insert(name, value).map(|old| old.expose().to_owned())
    }

    /// Takes `name` out.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).map(|old| old.expose().to_owned())
    }

    /// Names and values, sorted by name. The values are not masked.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.expose()))
    }

    /// Names and values, sorted by name, secrets masked: what may be shown.
    pub fn masked(&self) -> impl Iterator<Item = (&str, String)> {
        self.iter().map(|(k, v)| (k, shown_value(k, v)))
    }

    /// The options whose name starts with `prefix`, without it (`dead_letter.` gives those of the dead-letter sink).
    #[must_use]
    pub fn under(&self, prefix: &str) -> Self {
        self.iter().filter_map(|(k, v)| Some((k.strip_prefix(prefix)?, v))).collect()
    }

    /// True without options.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if there is a secret among them.
    #[must_use]
    pub fn has_secrets(&self) -> bool {
        self.0.values().any(|value| matches!(value, Value::Secret(_)))
    }

    /// Takes the secrets out, sorted by name.
    pub fn take_secrets(&mut self) -> Vec<(String, SecretString)> {
        let mut taken = Vec::new();
        self.0.retain(|name, value| match value {
            Value::Plain(_) => true,
            Value::Secret(secret) => {
                taken.push((name.clone(), secret.clone()));
                false
            }
        });
        taken
    }

    /// Takes out the names of credentials.
    pub fn forget_credentials(&mut self) {
        for name in [CREDENTIAL, DEAD_LETTER_CREDENTIAL] {
            self.0.remove(name);
        }
    }

    /// The names of the credentials that these options refer to, their own and their dead-letter sink's.
    pub fn credentials(&self) -> impl Iterator<Item = &str> {
        [CREDENTIAL, DEAD_LETTER_CREDENTIAL].into_iter().filter_map(|name| self.get(name))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Options {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(pairs: T) -> Self {
        let mut options = Self::default();
        for (name, value) in pairs {
            options.insert(name, value);
        }
        options
    }
}

impl PartialEq for Options {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Options {}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.masked()).finish()
    }
}

impl Serialize for Options {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::<String, String>::deserialize(deserializer)?.into_iter().collect())
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

/// Whether a value is a secret: by the option's name, or because it holds a URL with user and password.
#[must_use]
pub fn is_secret_value(name: &str, value: &str) -> bool {
    is_secret_option(name) || mask_url(value) != value
}

/// The value of an option as it may be shown.
#[must_use]
pub fn shown_value(name: &str, value: &str) -> String {
    if is_secret_option(name) { MASK.to_owned() } else { mask_url(value) }
}

/// A text with the user-info part of every URL in it masked: `http://user:pw@host` becomes `http://********@host`.
#[must_use]
pub fn mask_url(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let authority = after.find(['/', '?', '#', ',', ' ']).unwrap_or(after.len());
        // A comma or a slash may belong to a password: up to the last `@` before the next URL, in doubt, all is user-info.
        let next = after.find("://").unwrap_or(after.len());
        let at = after[..authority].rfind('@').or_else(|| user_info_end(&after[..next]));
        rest = match at {
            Some(at) => {
                out.push_str(MASK);
                &after[at..]
            }
            None => after,
        };
    }
    out.push_str(rest);
    out
}

/// Where user-info ends whose password has characters that should have been escaped: `user:p/w@host`.
fn user_info_end(text: &str) -> Option<usize> {
    let at = text.find('@')?;
    let colon = text.find(':')?;
    let slash = text.find(['/', '?', '#', ',', ' ']).unwrap_or(text.len());
    // `host:80/path@x` has a port and a path; what stands between the colon and the slash of a password is no port.
    let port = &text[(colon + 1).min(slash)..slash];
    (colon < slash && at > slash && !port.is_empty() && !port.bytes().all(|b| b.is_ascii_digit()))
        .then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        [
            ("aws.credentials.secret_access_key", "hunter2"),
            ("dead_letter.properties.sasl.password", "hunter2"),
            ("endpoint", "http://u:hunter2@127.0.0.1:1/x@y"),
            ("endpoints", "http://a:1/,http://u:hunter2@b:2/"),
            ("stream", "clicks"),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn debug_masks_secrets_and_urls() {
        let shown = format!("{:?}", options());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("clicks") && shown.contains("127.0.0.1:1/x@y"), "{shown}");
    }

    #[test]
    fn access_key_id_is_not_a_secret() {
        assert!(!is_secret_option("aws.credentials.access_key_id"));
        assert!(!is_secret_option("primary_key"));
        assert!(!is_secret_option(CREDENTIAL));
        assert!(is_secret_option("kinesis.credentials.secret"));
        assert!(is_secret_option("kinesis.credentials.session_token"));
    }

    #[test]
    fn every_url_of_a_text_is_masked_and_nothing_else() {
        for (text, shown) in [
            ("a,sasl://u:p@h:1", "a,sasl://********@h:1"),
            ("http://u:p@h/x,https://v:q@i", "http://********@h/x,https://********@i"),
            ("http://u:p/w@h:1", "http://********@h:1"),
            ("http://u:p,w@h:1", "http://********@h:1"),
            ("http://h:80/a@b", "http://h:80/a@b"),
            ("http://h/a:b@c", "http://h/a:b@c"),
            ("no url@here", "no url@here"),
            ("://@", "://********@"),
        ] {
            assert_eq!(mask_url(text), shown);
        }
    }

    #[test]
    fn secrets_are_taken_out_and_nothing_else() {
        let mut options = options();
        assert!(options.has_secrets());
        let taken: Vec<String> = options.take_secrets().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            taken,
            [
                "aws.credentials.secret_access_key",
                "dead_letter.properties.sasl.password",
                "endpoint",
                "endpoints"
            ]
        );
        assert!(!options.has_secrets());
        assert_eq!(options.iter().collect::<Vec<_>>(), [("stream", "clicks")]);
    }
}
