//! Typed reading of `WITH ( … )`: aliases, defaults, ranges, and an error that names the option and the nearest right one.

use std::{collections::BTreeMap, fmt, time::Duration};

use model::{Options, is_secret_option, shown_value};
use secrecy::SecretString;

/// What the value of an option may be.
#[derive(Clone, Copy, Debug)]
pub enum OptionKind {
    /// Any text.
    Text,
    /// `true` or `false`, any letter case.
    Boolean,
    /// A decimal number within bounds, both inclusive.
    Integer {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A decimal fraction within bounds, both inclusive.
    Number {
        /// Least.
        min: f64,
        /// Most.
        max: f64,
    },
    /// A number with a unit: `100ms`, `1s`, `5m`, `1h`.
    Duration {
        /// Least.
        min: Duration,
    },
    /// One of these, case-sensitive.
    OneOf(&'static [&'static str]),
}

/// One option of a connector.
#[derive(Clone, Copy, Debug)]
pub struct OptionDef {
    /// Its canonical name.
    pub name: &'static str,
    /// Other accepted names.
    pub aliases: &'static [&'static str],
    /// What its value may be.
    pub kind: OptionKind,
    /// What holds when it is absent, for documentation.
    pub default: Option<&'static str>,
    /// Its value is never shown, and never stored in plain text. Its names must say so too ([`model::is_secret_option`]):
    /// who masks a text knows nothing but names.
    pub secret: bool,
}

impl OptionDef {
    /// An option without aliases and default.
    #[must_use]
    pub const fn new(name: &'static str, kind: OptionKind) -> Self {
        Self { name, aliases: &[], kind, default: None, secret: false }
    }

    /// A text that is never shown.
    #[must_use]
    pub const fn secret(name: &'static str) -> Self {
        Self { name, aliases: &[], kind: OptionKind::Text, default: None, secret: true }
    }

    /// With other accepted names.
    #[must_use]
    pub const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// With the documented default.
    #[must_use]
    pub const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }
}

/// An option that is missing, wrong or unknown. The texts are part of the SQL surface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    message: String,
}

impl OptionError {
    /// A mandatory option is absent.
    #[must_use]
    pub fn missing(name: &str) -> Self {
        Self { message: format!("missing field `{name}`") }
    }

    /// The value is not what it should be. Secrets are masked.
    #[must_use]
    pub fn invalid(name: &str, expected: &str, found: &str) -> Self {
        let found = shown_value(name, found);
        Self { message: format!("invalid value for option `{name}`: expected {expected}, found \"{found}\"") }
    }

    /// Anything else that is wrong with the options.
    #[must_use]
    pub fn config(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }

    fn unknown(unknown: &BTreeMap<&str, &str>, defs: &[&[OptionDef]]) -> Self {
        let names = || {
            defs.iter()
                .flat_map(|d| d.iter())
                .flat_map(|d| std::iter::once(d.name).chain(d.aliases.iter().copied()))
        };
        // A mistyped name of a secret has a secret behind it.
        let secret = |name: &str| looks_secret(name) || nearest(name, names()).is_some_and(is_secret_option);
        let shown: Vec<String> = unknown
            .iter()
            .map(|(name, value)| {
                let value = if secret(name) { model::MASK.to_owned() } else { shown_value(name, value) };
                format!("\"{name}\": \"{value}\"")
            })
            .collect();
        let mut message = format!("Unknown fields in the WITH clause: {{{}}}", shown.join(", "));
        for name in unknown.keys() {
            if let Some(near) = nearest(name, names()) {
                message.push_str(&format!("\nHint: `{name}` is not an option; did you mean `{near}`?"));
            }
        }
        Self { message }
    }
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for OptionError {}

/// Whether the value of such a name is better not shown; more generous than the list of secret options, because names are
/// mistyped: `session_tokn`, `ca.pme`.
#[must_use]
pub fn looks_secret(name: &str) -> bool {
    const PARTS: &[&str] = &["pass", "pwd", "secret", "token", "private", "jaas", "apikey", "api_key"];
    const WORDS: &[&str] = &["password", "secret", "session_token", "token", "service_account", "pem"];
    let lower = name.to_ascii_lowercase();
    let last = lower.rsplit('.').next().unwrap_or(&lower);
    let slip = |word: &str| {
        let most = if word.len() > 4 { 2 } else { 1 };
        strsim::damerau_levenshtein(last, word) <= most
    };
    is_secret_option(name)
        || PARTS.iter().any(|part| lower.contains(part))
        || WORDS.iter().any(|word| slip(word))
}

/// The known name nearest to what was typed, if any is near enough to be meant.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(typed, name), name))
        .filter(|(score, _)| *score >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Options under their canonical names, checked against definitions. `Debug` shows no secret.
#[derive(Debug)]
pub struct Reader {
    values: Options,
    defs: Vec<&'static OptionDef>,
}

impl Reader {
    /// Checks names (unknown, given twice through an alias) and values.
    ///
    /// # Errors
    /// The first option that is unknown, doubled or of the wrong type.
    pub fn new(options: &Options, defs: &'static [OptionDef]) -> Result<Self, OptionError> {
        let find = |name: &str| defs.iter().find(|d| d.name == name || d.aliases.contains(&name));
        let unknown: BTreeMap<&str, &str> = options.iter().filter(|(name, _)| find(name).is_none()).collect();
        if !unknown.is_empty() {
            return Err(OptionError::unknown(&unknown, &[defs, crate::COMMON]));
        }
        let mut values = Options::default();
        for (name, value) in options.iter() {
            let Some(def) = find(name) else { continue };
            check(def, value)?;
            if values.insert(def.name, value).is_some() {
                return Err(OptionError::config(format!("duplicate option `{}`", def.name)));
            }
        }
        Ok(Self { values, defs: defs.iter().collect() })
    }

    fn value(&self, name: &str) -> Option<&str> {
        debug_assert!(self.defs.iter().any(|d| d.name == name), "option {name} is not defined");
        self.values.get(name)
    }

    /// The text, if given.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, OptionError> {
        Ok(self.value(name).map(str::to_owned))
    }

    /// The secret, if given.
    pub fn secret(&mut self, name: &str) -> Result<Option<SecretString>, OptionError> {
        debug_assert!(self.defs.iter().any(|d| d.name == name && d.secret), "option {name} is no secret");
        Ok(self.value(name).map(SecretString::from))
    }

    /// The text, or ``missing field `name` ``.
    pub fn required(&mut self, name: &str) -> Result<String, OptionError> {
        match self.value(name) {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(OptionError::missing(name)),
        }
    }

    /// The truth value, if given.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, OptionError> {
        Ok(self.value(name).map(|text| text.eq_ignore_ascii_case("true")))
    }

    /// The number, if given.
    pub fn integer(&mut self, name: &str) -> Result<Option<u64>, OptionError> {
        Ok(self.value(name).and_then(|text| text.parse().ok()))
    }

    /// The fraction, if given.
    pub fn number(&mut self, name: &str) -> Result<Option<f64>, OptionError> {
        Ok(self.value(name).and_then(|text| text.parse().ok()))
    }

    /// The duration, if given.
    pub fn duration(&mut self, name: &str) -> Result<Option<Duration>, OptionError> {
        Ok(self.value(name).and_then(parse_duration))
    }

    /// The choice, if given.
    pub fn one_of(&mut self, name: &str) -> Result<Option<&str>, OptionError> {
        Ok(self.value(name))
    }
}

pub(crate) fn check(def: &OptionDef, value: &str) -> Result<(), OptionError> {
    let wrong = |expected: &str| Err(OptionError::invalid(def.name, expected, value));
    match def.kind {
        OptionKind::Text => Ok(()),
        OptionKind::Boolean if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") => {
            Ok(())
        }
        OptionKind::Boolean => wrong("boolean"),
        OptionKind::Integer { min, max } => match value.parse::<u64>() {
            Ok(n) if (min..=max).contains(&n) => Ok(()),
            Ok(_) if max == u64::MAX => wrong(&format!("integer of at least {min}")),
            Ok(_) => wrong(&format!("integer from {min} to {max}")),
            Err(_) if min > 0 => wrong("positive integer"),
            Err(_) => wrong("integer"),
        },
        OptionKind::Number { min, max } => match value.parse::<f64>() {
            Ok(n) if (min..=max).contains(&n) => Ok(()),
            _ => wrong(&format!("number from {min} to {max}")),
        },
        OptionKind::Duration { min } => match parse_duration(value) {
            Some(d) if d >= min => Ok(()),
            Some(_) => wrong(&format!("duration of at least {}ms", min.as_millis())),
            None => wrong("duration"),
        },
        OptionKind::OneOf(choices) if choices.contains(&value) => Ok(()),
        OptionKind::OneOf(choices) => wrong(&format!("one of {}", choices.join("|"))),
    }
}

/// `100ms`, `1s`, `5m`, `1h`, `2d`; whole numbers only.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..split].parse().ok()?;
    let seconds = |per: u64| number.checked_mul(per).map(Duration::from_secs);
    match text[split..].trim() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" | "min" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(86_400),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFS: &[OptionDef] = &[
        OptionDef::new("stream", OptionKind::Text).aliases(&["kinesis.stream.name"]),
        OptionDef::new("share", OptionKind::Number { min: 0.05, max: 1.0 }),
        OptionDef::new("wait", OptionKind::Duration { min: Duration::from_millis(100) }),
    ];

    fn read(pairs: &[(&str, &str)]) -> Result<Reader, String> {
        Reader::new(&pairs.iter().copied().collect(), DEFS).map_err(|e| e.to_string())
    }

    #[test]
    fn an_unknown_option_names_the_nearest() {
        let error = read(&[("streem", "x")]).unwrap_err();
        assert!(error.starts_with("Unknown fields in the WITH clause: {\"streem\": \"x\"}"), "{error}");
        assert!(error.contains("did you mean `stream`?"), "{error}");
    }

    #[test]
    fn a_mistyped_name_of_a_secret_looks_secret_and_others_do_not() {
        for name in
            ["kinesis.credentials.secrex", "session_tokex", "properties.ssl.key.pex", "Passwrod", "pasword"]
        {
            assert!(looks_secret(name), "{name}");
        }
        for name in [
            "stream",
            "topic",
            "region",
            "path",
            "primary_key",
            "key",
            "endpoint",
            "identity",
            "format",
            "item",
        ] {
            assert!(!looks_secret(name), "{name}");
        }
    }

    #[test]
    fn an_alias_is_the_same_option() {
        let error = read(&[("stream", "x"), ("kinesis.stream.name", "y")]).unwrap_err();
        assert_eq!(error, "duplicate option `stream`");
        assert_eq!(read(&[("kinesis.stream.name", "y")]).unwrap().required("stream").unwrap(), "y");
    }

    #[test]
    fn wrong_values_say_what_was_expected() {
        assert!(read(&[("share", "2")]).unwrap_err().contains("expected number from 0.05 to 1"));
        assert!(read(&[("wait", "5")]).unwrap_err().contains("expected duration, found \"5\""));
        assert!(read(&[("wait", "5ms")]).unwrap_err().contains("at least 100ms"));
        assert_eq!(
            read(&[("wait", "2m")]).unwrap().duration("wait").unwrap(),
            Some(Duration::from_secs(120))
        );
    }
}
