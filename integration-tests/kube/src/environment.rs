//! The variables of a container: values, fields of its pod, keys of Secrets and ConfigMaps, and `$(NAME)` for one that came
//! before. Nothing of the runner's own environment gets in.

use anyhow::{Context, Result, bail};

use crate::manifest::{Container, Release, Texts, ValueFrom};

/// Who a pod is.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Where its name counts.
    pub namespace: String,
    /// Another one for each pod that there ever was.
    pub uid: String,
    /// Its own address.
    pub ip: String,
    /// Its labels.
    pub labels: Texts,
    /// Its annotations.
    pub annotations: Texts,
}

/// The variables of a container in order.
///
/// # Errors
/// When a key is missing that is not optional, or a source is not known.
pub fn variables(
    container: &Container,
    identity: &Identity,
    release: &Release,
) -> Result<Vec<(String, String)>> {
    let mut known: Vec<(String, String)> = Vec::new();
    for variable in &container.env {
        let value = match &variable.value_from {
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), &known)),
            Some(from) => {
                taken(from, identity, release).with_context(|| format!("variable {}", variable.name))?
            }
        };
        if let Some(value) = value {
            known.retain(|(name, _)| *name != variable.name);
            known.push((variable.name.clone(), value));
        }
    }
    Ok(known)
}

fn taken(from: &ValueFrom, identity: &Identity, release: &Release) -> Result<Option<String>> {
    if let Some(field) = &from.field_ref {
        return field_of(identity, &field.field_path).map(Some);
    }
    let (kind, reference, value) = if let Some(reference) = &from.secret_key_ref {
        let bytes = release.secrets.get(&reference.name).and_then(|data| data.get(&reference.key));
        ("Secret", reference, bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    } else if let Some(reference) = &from.config_map_key_ref {
        let text = release.config_maps.get(&reference.name).and_then(|data| data.get(&reference.key));
        ("ConfigMap", reference, text.cloned())
    } else {
        bail!("its source is not known")
    };
    if value.is_none() && !reference.optional {
        bail!("there is no key {} in {kind} {}", reference.key, reference.name);
    }
    Ok(value)
}

fn field_of(identity: &Identity, path: &str) -> Result<String> {
    let among = |texts: &Texts, rest: &str| {
        let name = rest.strip_suffix("']").unwrap_or(rest);
        texts.get(name).cloned().unwrap_or_default()
    };
    Ok(match path {
        "metadata.name" => identity.name.clone(),
        "metadata.namespace" => identity.namespace.clone(),
        "metadata.uid" => identity.uid.clone(),
        "status.podIP" => identity.ip.clone(),
        _ => {
            if let Some(rest) = path.strip_prefix("metadata.labels['") {
                among(&identity.labels, rest)
            } else if let Some(rest) = path.strip_prefix("metadata.annotations['") {
                among(&identity.annotations, rest)
            } else {
                bail!("field {path} is not known")
            }
        }
    })
}

/// `$(NAME)` is a variable that is known, `$$` a dollar; anything else stays, as in Kubernetes.
#[must_use]
pub fn expand(text: &str, known: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            out.push('$');
            rest = behind;
            continue;
        }
        let named = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        let value = named.and_then(|(name, behind)| Some((known.iter().find(|(n, _)| n == name)?, behind)));
        if let Some(((_, value), behind)) = value {
            out.push_str(value);
            rest = behind;
        } else {
            out.push('$');
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(env: &str) -> Container {
        serde_json::from_str(&format!("{{\"name\": \"c\", \"env\": {env}}}")).unwrap()
    }

    fn pod() -> Identity {
        Identity {
            name: "w-1".into(),
            namespace: "space".into(),
            uid: "u-1".into(),
            ip: "127.1.2.3".into(),
            labels: Texts::from([("zone/x".into(), "a".into())]),
            annotations: Texts::new(),
        }
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn fields_of_the_pod_are_variables() {
        let env = r#"[{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "U", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "Z", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['zone/x']"}}},
            {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['none']"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "URL", "value": "http://$(IP):7070/$(LATER)"}, {"name": "LATER", "value": "x"}]"#;
        let expected = pairs(&[
            ("N", "w-1"),
            ("U", "u-1"),
            ("Z", "a"),
            ("E", ""),
            ("IP", "127.1.2.3"),
            ("URL", "http://127.1.2.3:7070/$(LATER)"),
            ("LATER", "x"),
        ]);
        assert_eq!(variables(&container(env), &pod(), &Release::default()).unwrap(), expected);
    }

    #[test]
    fn a_secret_must_have_its_key_unless_it_is_optional() {
        let mut release = Release::default();
        release.secrets.insert("s".into(), [("k".to_owned(), b"v".to_vec())].into());
        let of = |key: &str, optional: bool| {
            container(&format!(
                r#"[{{"name": "S", "valueFrom": {{"secretKeyRef": {{"name": "s", "key": "{key}", "optional": {optional}}}}}}}]"#
            ))
        };
        assert_eq!(variables(&of("k", false), &pod(), &release).unwrap(), pairs(&[("S", "v")]));
        assert_eq!(variables(&of("none", true), &pod(), &release).unwrap(), []);
        let error = format!("{:#}", variables(&of("none", false), &pod(), &release).unwrap_err());
        assert_eq!(error, "variable S: there is no key none in Secret s");
    }

    #[test]
    fn a_variable_that_is_said_twice_has_its_last_value() {
        let env = r#"[{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)"}, {"name": "A", "value": "$(B)2"}]"#;
        assert_eq!(
            variables(&container(env), &pod(), &Release::default()).unwrap(),
            pairs(&[("B", "1"), ("A", "12")])
        );
    }

    #[test]
    fn a_dollar_can_be_meant() {
        let known = pairs(&[("A", "1")]);
        assert_eq!(expand("$(A) $$(A) $A $(B) $", &known), "1 $(A) $A $(B) $");
    }
}
