//! The credentials of Kafka: `kafka`, and `confluent`, which is the same (docs/sql.md, Credentials).

use connector::{CredentialKind, OptionDef, OptionError, OptionKind, Part, Registry, missing_part};
use model::{CredentialSpec, Options};

use super::NAME;

const TEXT: OptionKind = OptionKind::Text;

/// The options have the client's names; the sink's have `properties.` before them.
const PARTS: &[Part] = &[
    Part {
        def: OptionDef::new("security.protocol", OptionKind::OneOf(&["SSL", "SASL_PLAINTEXT", "SASL_SSL"])),
        becomes: "properties.security.protocol",
        required: true,
    },
    Part::option(
        OptionDef::new("sasl.mechanism", OptionKind::OneOf(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])),
        "properties.sasl.mechanism",
    ),
    Part::option(OptionDef::new("sasl.username", TEXT), "properties.sasl.username"),
    Part::option(OptionDef::secret("sasl.password"), "properties.sasl.password"),
    Part::option(OptionDef::new("ssl.ca.location", TEXT), "properties.ssl.ca.location"),
    Part::option(OptionDef::new("ssl.certificate.location", TEXT), "properties.ssl.certificate.location"),
    Part::option(OptionDef::new("ssl.key.location", TEXT), "properties.ssl.key.location"),
    Part::option(OptionDef::secret("ssl.key.password"), "properties.ssl.key.password"),
    Part::option(OptionDef::secret("ssl.ca.pem"), "properties.ssl.ca.pem"),
    Part::option(OptionDef::secret("ssl.certificate.pem"), "properties.ssl.certificate.pem"),
    Part::option(OptionDef::secret("ssl.key.pem"), "properties.ssl.key.pem"),
];

/// `TYPE = 'kafka'`
const KAFKA: CredentialKind = CredentialKind {
    name: "kafka",
    connectors: &[NAME],
    parts: PARTS,
    excludes: &[],
    family: "properties.sasl.* and properties.ssl.*",
    finish,
};

/// `TYPE = 'confluent'`
const CONFLUENT: CredentialKind = CredentialKind { name: "confluent", ..KAFKA };

/// Each way of proving who one is needs its own parts.
fn finish(spec: &CredentialSpec, out: &mut Options) -> Result<(), OptionError> {
    let has = |name: &str| out.get(&format!("properties.{name}")).is_some();
    let need = |name: &str| if has(name) { Ok(()) } else { Err(missing_part(name, &spec.kind)) };
    if out.get("properties.security.protocol").is_some_and(|protocol| protocol.starts_with("SASL")) {
        need("sasl.mechanism")?;
        need("sasl.username")?;
        need("sasl.password")?;
    } else if !has("ssl.ca.pem") {
        need("ssl.ca.location")?;
    }
    if (has("ssl.key.location") || has("ssl.key.pem")) && !has("ssl.certificate.pem") {
        need("ssl.certificate.location")?;
    }
    Ok(())
}

/// Adds the kinds to the registry.
pub(super) fn register(registry: &mut Registry) {
    registry.add_credential(KAFKA).add_credential(CONFLUENT);
}

#[cfg(test)]
mod tests {
    use model::{ObjectId, Timestamp};

    use super::*;

    fn expand(pairs: &[(&str, &str)]) -> Result<Options, String> {
        let spec = CredentialSpec {
            id: ObjectId::from_parts(0, 0),
            name: "c".to_owned(),
            kind: "kafka".to_owned(),
            options: pairs.iter().copied().collect(),
            created_at: Timestamp(0),
            revision: 1,
            renewal_due: false,
        };
        KAFKA.expand(&spec).map_err(|e| e.to_string())
    }

    #[test]
    fn each_way_needs_its_parts() {
        assert!(expand(&[("security.protocol", "SSL"), ("ssl.ca.location", "/x/ca.crt")]).is_ok());
        let sasl = [
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "u"),
            ("sasl.password", "p"),
        ];
        assert_eq!(expand(&sasl).unwrap().get("properties.sasl.password"), Some("p"));
        let refused = |pairs: &[(&str, &str)]| expand(pairs).unwrap_err();
        assert_eq!(refused(&[]), "missing option `security.protocol` for credential type kafka");
        assert_eq!(refused(&sasl[..3]), "missing option `sasl.password` for credential type kafka");
        assert_eq!(
            refused(&[("security.protocol", "SSL")]),
            "missing option `ssl.ca.location` for credential type kafka"
        );
        let key = [("security.protocol", "SSL"), ("ssl.ca.location", "c"), ("ssl.key.location", "k")];
        assert_eq!(refused(&key), "missing option `ssl.certificate.location` for credential type kafka");
        assert!(refused(&[("security.protocol", "PLAINTEXT")]).starts_with(
            "invalid value for option `security.protocol`: expected one of SSL|SASL_PLAINTEXT|SASL_SSL"
        ));
    }
}
