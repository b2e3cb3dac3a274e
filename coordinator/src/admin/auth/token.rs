//! Bearer tokens (JWT, RFC 7519 and 8725): of one issuer, for one audience, signed by a key that the issuer publishes, with an
//! algorithm of public keys; never `none`, never a shared secret. A Kubernetes service account's token is one of these.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};

use super::{
    config::{JwtConfig, Secret},
    denied::Denied,
    jwks::Jwks,
};

/// What clocks may differ by, in seconds.
const LEEWAY: u64 = 60;

/// What is taken. Everything else is refused before a key is looked for.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The longest name of a user.
const NAME_CHARS_MAX: usize = 256;

/// What a token says, once it is believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Claims {
    /// Who.
    pub user: String,
    /// Names of roles.
    pub roles: Vec<String>,
    /// It says nothing after this moment.
    pub until: SystemTime,
}

/// Looks at tokens.
pub(super) struct Tokens {
    config: JwtConfig,
    issuer: String,
    audience: String,
    jwks: Jwks,
}

impl Tokens {
    /// `None` if no issuer is set.
    pub fn new(config: &JwtConfig) -> Option<Self> {
        let (issuer, audience) = (config.issuer.clone()?, config.audience.clone()?);
        Some(Self { jwks: Jwks::new(config)?, config: config.clone(), issuer, audience })
    }

    /// What the token says.
    ///
    /// # Errors
    /// Why it is not believed.
    pub async fn verify(&self, token: &Secret) -> Result<Claims, Denied> {
        let unreadable = |_| Denied::Token("the token is not a signed JWT of a kind that is taken");
        let header = jsonwebtoken::decode_header(token.reveal()).map_err(unreadable)?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(Denied::Token("the token is not signed by an algorithm that is taken"));
        }
        // A `jku`, `jwk` or `x5u` of the header is the sender's own word and is not looked at.
        if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
            return Err(Denied::Token("the token has a header that is not understood"));
        }
        let keys = self.jwks.keys(header.kid.as_deref(), header.alg).await.map_err(Denied::Keys)?;
        let mut refused = Denied::Token("the token is signed by a key that its issuer does not publish");
        for key in keys {
            match self.decode(token, &key, header.alg) {
                Ok(claims) => return self.read(&claims),
                Err(why) => refused = why,
            }
        }
        Err(refused)
    }

    fn decode(
        &self,
        token: &Secret,
        key: &jsonwebtoken::DecodingKey,
        algorithm: Algorithm,
    ) -> Result<Map<String, Value>, Denied> {
        use jsonwebtoken::errors::ErrorKind;
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token.reveal(), key, &validation);
        let claims = decoded.map_err(|error| {
            Denied::Token(match error.kind() {
                ErrorKind::ExpiredSignature => "the token has expired",
                ErrorKind::ImmatureSignature => "the token is not valid yet",
                ErrorKind::InvalidIssuer => "the token is of another issuer",
                ErrorKind::InvalidAudience => "the token is for another audience",
                ErrorKind::InvalidSignature => "the signature of the token is wrong",
                ErrorKind::MissingRequiredClaim(_) => "the token lacks one of the claims exp, iss and aud",
                _ => "the token is not valid",
            })
        })?;
        // The crate takes a list of issuers, too; the standard knows one.
        if claims.claims.get("iss").and_then(Value::as_str) != Some(self.issuer.as_str()) {
            return Err(Denied::Token("the token is of another issuer"));
        }
        Ok(claims.claims)
    }

    fn read(&self, claims: &Map<String, Value>) -> Result<Claims, Denied> {
        let user = claims.get(&self.config.user_claim).and_then(Value::as_str).unwrap_or_default();
        if user.is_empty() || user.chars().count() > NAME_CHARS_MAX || user.chars().any(char::is_control) {
            return Err(Denied::Token("the token names no user"));
        }
        let roles =
            self.config.roles_claim.as_deref().map(|path| words(at(claims, path))).unwrap_or_default();
        let expires = claims.get("exp").and_then(Value::as_f64).unwrap_or_default().max(0.0);
        let until = Duration::try_from_secs_f64(expires)
            .ok()
            .and_then(|expires| SystemTime::UNIX_EPOCH.checked_add(expires + Duration::from_secs(LEEWAY)))
            .ok_or(Denied::Token("the token is not valid"))?;
        Ok(Claims { user: user.to_owned(), roles, until })
    }
}

/// The claim of this name, dots and all, or at the end of this path.
fn at<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    at(claims.get(first)?.as_object()?, rest)
}

/// A list of texts, or one text with blanks between its words.
fn words(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(text)) => text.split_whitespace().map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn roles_are_found_by_name_and_by_path() {
        let claims = json!({"https://x.y/roles": ["a"], "realm": {"roles": "b c"}, "n": 1});
        let claims = claims.as_object().unwrap();
        assert_eq!(words(at(claims, "https://x.y/roles")), ["a"]);
        assert_eq!(words(at(claims, "realm.roles")), ["b", "c"]);
        for path in ["n", "realm.nope", "n.x", "nope"] {
            assert!(words(at(claims, path)).is_empty(), "{path}");
        }
    }
}
