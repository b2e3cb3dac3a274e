//! No secret leaves in a bundle (I9). Two nets, one behind the other: settings are printed with every secret masked, and each
//! secret that was seen there (in the file, in the files that it names, in the environment) is masked in every other text too,
//! together with what looks like an AWS key id and with the user-info of URLs.

use std::path::Path;

use model::{MASK, is_secret_option, mask_url};
use toml::{Table, Value};

/// Shorter ones would mask half of the text; no password should be so short.
const SECRET_LEN_MIN: usize = 4;
/// No secret is larger than this file.
const SECRET_FILE_MAX: u64 = 64 << 10;

/// What must not be seen.
#[derive(Default)]
pub(super) struct Redaction {
    /// Longest first, so that none is cut by a shorter one within it.
    secrets: Vec<String>,
}

impl Redaction {
    /// The secrets in this process's variables.
    pub(super) fn of_environment() -> Self {
        let mut redaction = Self::default();
        for (name, value) in std::env::vars() {
            redaction.learn(&name.to_ascii_lowercase(), &value);
        }
        redaction
    }

    /// The settings of a file without their secrets, which are known from here on.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    pub(super) fn settings(&mut self, path: &Path) -> Result<String, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        // The parser's own message quotes the text.
        let mut table: Table = text.parse().map_err(|_| "it is not TOML".to_owned())?;
        self.table(&mut table);
        toml::to_string(&table).map_err(|error| error.to_string())
    }

    fn table(&mut self, table: &mut Table) {
        for (key, value) in table {
            self.value(key, value);
        }
    }

    fn value(&mut self, key: &str, value: &mut Value) {
        match value {
            Value::Table(table) => self.table(table),
            Value::Array(values) => values.iter_mut().for_each(|value| self.value(key, value)),
            Value::String(text) => {
                self.learn(key, text);
                *text = if is_secret(key) { MASK.to_owned() } else { mask_url(text) };
            }
            other if is_secret(key) => *other = Value::String(MASK.to_owned()),
            _ => {}
        }
    }

    /// Keeps the value of a secret, or of the secret in the file that it names.
    fn learn(&mut self, key: &str, value: &str) {
        if let Some(name) = key.strip_suffix("_file").filter(|name| is_secret(name)) {
            let small =
                std::fs::metadata(value).is_ok_and(|file| file.is_file() && file.len() <= SECRET_FILE_MAX);
            if small && let Ok(text) = std::fs::read_to_string(value) {
                text.lines().for_each(|line| self.learn(name, line));
            }
        } else if is_secret(key) {
            self.keep(value.trim());
        }
        let user_info = value.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
        if let Some((_, password)) = user_info.and_then(|(user_info, _)| user_info.split_once(':')) {
            self.keep(password);
        }
    }

    fn keep(&mut self, secret: &str) {
        if secret.len() >= SECRET_LEN_MIN && !self.secrets.iter().any(|known| known == secret) {
            self.secrets.push(secret.to_owned());
            self.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        }
    }

    /// A text without anything that is known as a secret or looks like one.
    pub(super) fn text(&self, text: &str) -> String {
        let text = self.secrets.iter().fold(mask_url(text), |text, secret| text.replace(secret, MASK));
        key_ids(&text)
    }
}

/// Whether what stands under this name is a secret; the name of a file is none.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    if ["_file", "_path", "_url"].iter().any(|end| name.ends_with(end)) {
        return false;
    }
    let words =
        ["password", "passwd", "secret", "token", "master_key", "previous_keys", "access_key", "credential"];
    is_secret_option(&name) || words.iter().any(|word| name.contains(word))
}

/// Masks what looks like the id of an AWS key: `AKIA` or `ASIA` and sixteen capitals or digits.
fn key_ids(text: &str) -> String {
    const LEN: usize = 20;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = ["AKIA", "ASIA"].iter().filter_map(|head| rest.find(head)).min() {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let id = from.bytes().take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit()).count();
        if id >= LEN {
            out.push_str(MASK);
            rest = &from[id..];
        } else {
            out.push_str(&from[..4]);
            rest = &from[4..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_the_settings_is_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let kept = directory.path().join("pw");
        std::fs::write(&kept, "from-a-file\n").unwrap();
        let file = directory.path().join("s.toml");
        let settings = format!(
            "[store]\nurl = \"etcd://u:in-the-url@h:1\"\nuser = \"me\"\npassword_file = \"{}\"\n\
             [auth]\nadmin_password = \"hunter2\"\n[secrets]\nmaster_key = \"bWFzdGVy\"\nprevious_keys = [\"b2xkZXI=\"]\n\
             [tls]\nkey_path = \"/etc/key.pem\"\n[worker]\ncapacity = 2\n",
            kept.display()
        );
        std::fs::write(&file, settings).unwrap();
        let mut redaction = Redaction::default();
        let shown = redaction.settings(&file).unwrap();
        let secrets = ["in-the-url", "from-a-file", "hunter2", "bWFzdGVy", "b2xkZXI="];
        for secret in secrets {
            assert!(!shown.contains(secret), "{secret}: {shown}");
            let leaked = redaction.text(&format!("password `{secret}` was refused"));
            assert_eq!(leaked, format!("password `{MASK}` was refused"));
        }
        for kept in ["/etc/key.pem", "capacity = 2", "user = \"me\"", "password_file"] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
    }

    #[test]
    fn what_looks_like_a_key_id_is_masked_and_words_are_not() {
        let redaction = Redaction::default();
        assert_eq!(
            redaction.text("as AKIAIOSFODNN7EXAMPLE, ASIA is large"),
            format!("as {MASK}, ASIA is large")
        );
        assert_eq!(redaction.text("http://u:pw@h/x"), format!("http://{MASK}@h/x"));
    }

    #[test]
    fn a_file_that_is_not_toml_is_not_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("s.toml");
        std::fs::write(&file, "password = hunter2").unwrap();
        assert_eq!(Redaction::default().settings(&file).unwrap_err(), "it is not TOML");
    }
}
