//! Credentials: what `CREATE CREDENTIAL` may say, and which options of a source or a sink it stands for.
//!
//! A kind of credential is declared beside the connectors that take it. An object that names one is built as if the options were
//! its own: [`Registry`](crate::Registry) puts them in, so connectors and workers know nothing of credentials.

use std::collections::BTreeMap;

use model::{CREDENTIAL, CredentialSpec, Options};

use crate::{OptionDef, OptionError, OptionKind};

/// `IDENTITY`, as an option of the credential.
pub const IDENTITY: &str = "identity";
/// `SECRET`, as an option of the credential.
pub const SECRET: &str = "secret";

/// One part of a credential.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// What it is called in `CREATE CREDENTIAL`.
    pub def: OptionDef,
    /// Which option of the connectors it is.
    pub becomes: &'static str,
    /// Whether it may be absent.
    pub required: bool,
}

impl Part {
    /// `IDENTITY`
    #[must_use]
    pub const fn identity(becomes: &'static str, required: bool) -> Self {
        Self { def: OptionDef::new(IDENTITY, OptionKind::Text), becomes, required }
    }

    /// `SECRET`
    #[must_use]
    pub const fn secret(becomes: &'static str, required: bool) -> Self {
        Self { def: OptionDef::secret(SECRET), becomes, required }
    }

    /// An option that may be absent.
    #[must_use]
    pub const fn option(def: OptionDef, becomes: &'static str) -> Self {
        Self { def, becomes, required: false }
    }
}

/// A kind of credential.
#[derive(Clone, Copy, Debug)]
pub struct CredentialKind {
    /// The value of `TYPE`.
    pub name: &'static str,
    /// The connectors that take it.
    pub connectors: &'static [&'static str],
    /// Its parts, `IDENTITY` and `SECRET` among them if it has them.
    pub parts: &'static [Part],
    /// Options that cannot stand beside it, though it has no part that becomes one.
    pub excludes: &'static [&'static str],
    /// How the options that it becomes are called together, for messages: `aws.credentials.*`.
    pub family: &'static str,
    /// What the parts must be like together, told under the options' own names; adds what follows from them.
    pub finish: fn(&CredentialSpec, &mut Options) -> Result<(), OptionError>,
}

impl CredentialKind {
    /// The options of a connector that this credential stands for.
    ///
    /// # Errors
    /// A part that is unknown, wrong or missing.
    pub fn expand(&self, spec: &CredentialSpec) -> Result<Options, OptionError> {
        let mut out = Options::default();
        let mut given: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in spec.options.iter() {
            let part = self.part(name).ok_or_else(|| self.unknown(name))?;
            crate::options::check(&part.def, value)?;
            if given.insert(part.def.name, value).is_some() {
                return Err(OptionError::config(format!("duplicate option `{}`", part.def.name)));
            }
            // `IDENTITY = ''` says that there is none.
            if !value.is_empty() {
                out.insert(part.becomes, value);
            }
        }
        for part in self.parts.iter().filter(|part| part.required) {
            if given.get(part.def.name).is_none_or(|value| value.is_empty()) {
                return Err(missing(part.def.name, &spec.kind));
            }
        }
        (self.finish)(spec, &mut out)?;
        Ok(out)
    }

    /// The part of this name or alias, in any letter case.
    fn part(&self, name: &str) -> Option<&'static Part> {
        let same = |known: &str| known.eq_ignore_ascii_case(name);
        self.parts.iter().find(|part| same(part.def.name) || part.def.aliases.iter().any(|alias| same(alias)))
    }

    /// The name under which an option is stored.
    #[must_use]
    pub fn canonical(&self, name: &str) -> Option<&'static str> {
        self.part(name).map(|part| part.def.name)
    }

    fn unknown(&self, name: &str) -> OptionError {
        let text = format!("unknown credential option `{name}`");
        let lower = name.to_ascii_lowercase();
        match crate::nearest(&lower, self.parts.iter().map(|part| part.def.name)) {
            Some(near) => OptionError::config(format!("{text}\nHint: did you mean `{near}`?")),
            None => {
                let known: Vec<&str> = self.parts.iter().map(|part| part.def.name).collect();
                let kind = self.name;
                OptionError::config(format!(
                    "{text}\nHint: a credential of type {kind} has {}",
                    known.join(", ")
                ))
            }
        }
    }

    /// Whether an option of a connector cannot stand beside this credential; `def` is what the connector says of it.
    #[must_use]
    pub fn replaces(&self, def: &OptionDef) -> bool {
        self.excludes.contains(&def.name) || self.parts.iter().any(|part| part.becomes == def.name)
    }

    /// The options of an object that names this credential.
    pub(crate) fn merged(
        &self,
        connector: &str,
        defs: &[OptionDef],
        (own, spec): (&Options, &CredentialSpec),
    ) -> Result<Options, OptionError> {
        if !self.connectors.contains(&connector) {
            let text = format!("credential type {} cannot be used with connector {connector}", self.name);
            return Err(OptionError::config(text));
        }
        for (name, _) in own.iter() {
            let def = defs.iter().find(|def| def.name == name || def.aliases.contains(&name));
            if def.is_some_and(|def| self.replaces(def)) {
                return Err(self.beside(name));
            }
        }
        let mut all = self.expand(spec)?;
        for (name, value) in own.iter().filter(|(name, _)| *name != CREDENTIAL) {
            all.insert(name, value);
        }
        Ok(all)
    }

    fn beside(&self, name: &str) -> OptionError {
        let prefix = self.family.trim_end_matches('*');
        let what = if name.starts_with(prefix) { self.family } else { name };
        let hint = format!("leave `{name}` out: credential says it");
        OptionError::config(format!("credential and {what} are mutually exclusive\nHint: {hint}"))
    }
}

/// A part that must be there is not.
#[must_use]
pub fn missing(part: &str, kind: &str) -> OptionError {
    let name = if matches!(part, IDENTITY | SECRET) { part.to_ascii_uppercase() } else { part.to_owned() };
    OptionError::config(format!("missing option `{name}` for credential type {kind}"))
}

/// Credentials by name, as the catalog has them.
pub type Credentials = BTreeMap<String, CredentialSpec>;

#[cfg(test)]
mod tests {
    use model::{ObjectId, Timestamp};

    use super::*;

    const DEFS: &[OptionDef] = &[
        OptionDef::new("user", OptionKind::Text),
        OptionDef::secret("password").aliases(&["old.password"]),
        OptionDef::new("mode", OptionKind::OneOf(&["a", "b"])),
        OptionDef::new("address", OptionKind::Text),
        OptionDef::new("login.kind", OptionKind::Text),
    ];

    const KIND: CredentialKind = CredentialKind {
        name: "pair",
        connectors: &["fake"],
        parts: &[
            Part::identity("user", true),
            Part::secret("password", true),
            Part::option(
                OptionDef::new("mode", OptionKind::OneOf(&["a", "b"])).aliases(&["old mode"]),
                "mode",
            ),
        ],
        excludes: &["login.kind"],
        family: "login.*",
        finish: |_, _| Ok(()),
    };

    fn spec(pairs: &[(&str, &str)]) -> CredentialSpec {
        CredentialSpec {
            id: ObjectId::from_parts(0, 0),
            name: "c".to_owned(),
            kind: "pair".to_owned(),
            options: pairs.iter().copied().collect(),
            created_at: Timestamp(0),
            revision: 1,
            renewal_due: false,
        }
    }

    fn expanded(pairs: &[(&str, &str)]) -> Result<Options, String> {
        KIND.expand(&spec(pairs)).map_err(|e| e.to_string())
    }

    #[test]
    fn parts_become_the_options_of_the_connector() {
        let out = expanded(&[("identity", "me"), ("secret", "hunter2"), ("MODE", "a")]).unwrap();
        let pairs: Vec<_> = out.iter().collect();
        assert_eq!(pairs, [("mode", "a"), ("password", "hunter2"), ("user", "me")]);
        assert_eq!(KIND.canonical("Old Mode"), Some("mode"));
    }

    #[test]
    fn what_is_missing_unknown_or_wrong_is_named() {
        let refused = |pairs: &[(&str, &str)]| expanded(pairs).unwrap_err();
        assert_eq!(refused(&[("secret", "x")]), "missing option `IDENTITY` for credential type pair");
        assert_eq!(
            refused(&[("identity", "x"), ("secret", "")]),
            "missing option `SECRET` for credential type pair"
        );
        let all = [("identity", "me"), ("secret", "hunter2")];
        let with = |more| refused(&[all[0], all[1], more]);
        assert!(
            with(("mod", "a")).starts_with("unknown credential option `mod`\nHint: did you mean `mode`?")
        );
        assert!(with(("mode", "c")).contains("invalid value for option `mode`: expected one of a|b"));
        assert!(!with(("zzzz", "hunter3")).contains("hunter"));
    }

    #[test]
    fn options_beside_a_credential_are_those_that_it_does_not_say() {
        let spec = spec(&[("identity", "me"), ("secret", "hunter2")]);
        let merged = |connector: &str, own: &[(&str, &str)]| {
            let own = own.iter().copied().collect();
            KIND.merged(connector, DEFS, (&own, &spec)).map_err(|e| e.to_string())
        };
        let all = merged("fake", &[("credential", "c"), ("address", "x")]).unwrap();
        assert_eq!(
            (all.get("address"), all.get("user"), all.get("credential")),
            (Some("x"), Some("me"), None)
        );
        let error = merged("fake", &[("credential", "c"), ("old.password", "x")]).unwrap_err();
        assert!(error.starts_with("credential and old.password are mutually exclusive"), "{error}");
        let error = merged("fake", &[("credential", "c"), ("login.kind", "x")]).unwrap_err();
        assert!(error.starts_with("credential and login.* are mutually exclusive"), "{error}");
        let error = merged("other", &[]).unwrap_err();
        assert_eq!(error, "credential type pair cannot be used with connector other");
    }
}
