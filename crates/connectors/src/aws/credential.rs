//! The credentials of AWS: `aws_access_key` and `aws_iam_role` (docs/sql.md, Credentials).

use connector::{CredentialKind, OptionDef, OptionError, OptionKind, Part, Registry, missing_part};
use model::{CredentialSpec, Options};

const ID: &str = "aws.credentials.access_key_id";
const SECRET: &str = "aws.credentials.secret_access_key";
const TOKEN: &str = "aws.credentials.session_token";
const ROLE: &str = "aws.credentials.role.arn";
const EXTERNAL_ID: &str = "aws.credentials.role.external_id";
const DEFAULT_CHAIN: &str = "aws.credentials.use_default_chain";
const PROFILE: &str = "profile";
const FAMILY: &str = "aws.credentials.*";
const CONNECTORS: &[&str] = &["kinesis"];

/// `TYPE = 'aws_access_key'`
const ACCESS_KEY: CredentialKind = CredentialKind {
    name: "aws_access_key",
    connectors: CONNECTORS,
    parts: &[
        Part::identity(ID, true),
        Part::secret(SECRET, true),
        Part::option(OptionDef::secret("session_token"), TOKEN),
    ],
    excludes: &[ROLE, EXTERNAL_ID, DEFAULT_CHAIN, PROFILE],
    family: FAMILY,
    finish: |_, _| Ok(()),
};

/// `TYPE = 'aws_iam_role'`: with keys, a profile, or whatever the process finds as the one who assumes it.
const IAM_ROLE: CredentialKind = CredentialKind {
    name: "aws_iam_role",
    connectors: CONNECTORS,
    parts: &[
        Part::identity(ID, false),
        Part::secret(SECRET, false),
        Part::option(OptionDef::secret("session_token"), TOKEN),
        Part {
            def: OptionDef::new("s3_aws_role_arn", OptionKind::Text).aliases(&["role_arn"]),
            becomes: ROLE,
            required: true,
        },
        Part::option(OptionDef::new("external_id", OptionKind::Text), EXTERNAL_ID),
        Part::option(OptionDef::new("profile", OptionKind::Text), PROFILE),
    ],
    excludes: &[DEFAULT_CHAIN],
    family: FAMILY,
    finish: role,
};

/// Keys go together; without keys and profile the default chain is asked.
fn role(spec: &CredentialSpec, out: &mut Options) -> Result<(), OptionError> {
    match (out.get(ID).is_some(), out.get(SECRET).is_some()) {
        (true, false) => return Err(missing_part(connector::SECRET, &spec.kind)),
        (false, true) => return Err(missing_part(connector::IDENTITY, &spec.kind)),
        (false, false) if out.get(TOKEN).is_some() => {
            return Err(missing_part(connector::IDENTITY, &spec.kind));
        }
        (true, true) if out.get(PROFILE).is_some() => {
            return Err(OptionError::config("profile and static credentials are mutually exclusive"));
        }
        (false, false) if out.get(PROFILE).is_none() => drop(out.insert(DEFAULT_CHAIN, "true")),
        _ => {}
    }
    match out.get(ROLE) {
        Some(arn) if arn.starts_with("arn:") && arn.contains(":role/") => Ok(()),
        Some(arn) => Err(OptionError::invalid("s3_aws_role_arn", "arn:aws:iam::ACCOUNT:role/NAME", arn)),
        None => Ok(()),
    }
}

/// Adds the kinds to the registry.
pub(crate) fn register(registry: &mut Registry) {
    registry.add_credential(ACCESS_KEY).add_credential(IAM_ROLE);
}

#[cfg(test)]
mod tests {
    use model::{ObjectId, Timestamp};

    use super::*;

    fn expand(kind: &CredentialKind, pairs: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let spec = CredentialSpec {
            id: ObjectId::from_parts(0, 0),
            name: "c".to_owned(),
            kind: kind.name.to_owned(),
            options: pairs.iter().copied().collect(),
            created_at: Timestamp(0),
            revision: 1,
            renewal_due: false,
        };
        let options = kind.expand(&spec).map_err(|e| e.to_string())?;
        Ok(options.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn a_role_is_assumed_by_keys_a_profile_or_whoever_the_process_is() {
        let arn = ("S3_AWS_ROLE_ARN", "arn:aws:iam::1:role/r");
        let names = |pairs: &[(&str, &str)]| -> Vec<String> {
            expand(&IAM_ROLE, pairs).unwrap().into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(&[arn]), [ROLE, DEFAULT_CHAIN]);
        assert_eq!(names(&[arn, ("identity", ""), ("profile", "p")]), [ROLE, PROFILE]);
        assert_eq!(names(&[arn, ("identity", "AKIA"), ("secret", "s")]), [ID, ROLE, SECRET]);
        let refused = |pairs: &[(&str, &str)]| expand(&IAM_ROLE, pairs).unwrap_err();
        assert_eq!(refused(&[]), "missing option `s3_aws_role_arn` for credential type aws_iam_role");
        assert_eq!(
            refused(&[arn, ("identity", "AKIA")]),
            "missing option `SECRET` for credential type aws_iam_role"
        );
        assert!(refused(&[("role_arn", "r")]).contains("invalid value for option `s3_aws_role_arn`"));
        let keys = [("identity", "AKIA"), ("secret", "s"), arn, ("profile", "p")];
        assert_eq!(refused(&keys), "profile and static credentials are mutually exclusive");
    }
}
