//! The keys that an issuer publishes (JWKS, RFC 7517): fetched with a deadline, kept, fetched again every few minutes and when
//! a token names a key that is not among them, but never more often than every few seconds, whatever tokens come.

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::time::Instant;
use tonic::codegen::http::{Request, Uri, header};

use super::config::JwtConfig;

/// How long a fetch may take.
const FETCH: Duration = Duration::from_secs(5);

/// Larger answers are refused.
const BYTES_MAX: usize = 1 << 20;

/// More keys are left out.
const KEYS_MAX: usize = 64;

/// Keys are fetched again when they are older than this.
const FRESH: Duration = Duration::from_secs(300);

/// Between two fetches, whatever asks for one.
const PAUSE: Duration = Duration::from_secs(2);

/// Keys that could not be fetched again are good for this long: an issuer that is away must not lock everybody out at once.
const STALE: Duration = Duration::from_secs(3600);

/// One published key, for one algorithm or a family.
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

impl Key {
    /// Reads one key; `None` if it is not one that signs tokens in a way we take.
    fn read(value: serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature) {
            return None;
        }
        let all: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => &[Algorithm::ES256],
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => &[Algorithm::ES384],
            AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
                &[Algorithm::EdDSA]
            }
            // Above all no symmetric key: whoever can read it can sign.
            _ => return None,
        };
        let named = jwk.common.key_algorithm;
        let fits = |algorithm: &Algorithm| named.is_none_or(|named| named == KeyAlgorithm::from(*algorithm));
        let algorithms: Vec<Algorithm> = all.iter().copied().filter(fits).collect();
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        (!algorithms.is_empty()).then_some(Self { id: jwk.common.key_id, algorithms, decoding })
    }

    fn fits(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm) && (id.is_none() || self.id.as_deref() == id)
    }
}

type Https = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// The keys of one issuer.
pub(super) struct Jwks {
    config: JwtConfig,
    uri: Uri,
    published: RwLock<Arc<Published>>,
    /// One fetch at a time; when the last one began, and why it failed.
    fetching: tokio::sync::Mutex<(Option<Instant>, Option<String>)>,
}

/// Keys as they were fetched together.
#[derive(Default)]
struct Published {
    keys: Vec<Key>,
    at: Option<Instant>,
}

impl Published {
    fn younger(&self, than: Duration) -> bool {
        self.at.is_some_and(|at| at.elapsed() < than)
    }

    fn fit(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<DecodingKey> {
        self.keys.iter().filter(|key| key.fits(id, algorithm)).map(|key| key.decoding.clone()).collect()
    }
}

impl Jwks {
    /// Of an issuer; nothing is fetched yet. `None` if no issuer is set.
    pub fn new(config: &JwtConfig) -> Option<Self> {
        let uri = config.jwks_url.as_deref()?.parse().ok()?;
        let (published, fetching) = (RwLock::default(), tokio::sync::Mutex::default());
        Some(Self { config: config.clone(), uri, published, fetching })
    }

    fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The keys that a token signed by `algorithm` under the key `id` may be signed with. Who names a key that is known does
    /// not wait for who names one that is not.
    ///
    /// # Errors
    /// There are no keys to look among, in words.
    pub async fn keys(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Vec<DecodingKey>, String> {
        let published = self.published();
        let fit = published.fit(id, algorithm);
        let mut fetching = if fit.is_empty() || !published.younger(STALE) {
            self.fetching.lock().await
        } else {
            match self.fetching.try_lock() {
                Ok(fetching) if !published.younger(FRESH) => fetching,
                _ => return Ok(fit),
            }
        };
        let rested = fetching.0.is_none_or(|at| at.elapsed() > PAUSE);
        if rested {
            fetching.0 = Some(Instant::now());
            let fetched = tokio::time::timeout(FETCH, self.fetch()).await;
            match fetched.unwrap_or_else(|_| Err(format!("no answer within {} s", FETCH.as_secs()))) {
                Ok(keys) => {
                    let published = Arc::new(Published { keys, at: Some(Instant::now()) });
                    *self.published.write().unwrap_or_else(PoisonError::into_inner) = published;
                    fetching.1 = None;
                }
                Err(why) => {
                    tracing::warn!(url = %self.uri, why, "the keys of the issuer of tokens could not be fetched");
                    fetching.1 = Some(why);
                }
            }
        }
        let published = self.published();
        if published.younger(STALE) {
            return Ok(published.fit(id, algorithm));
        }
        let why = fetching.1.as_deref().unwrap_or("they are fetched again in some seconds");
        Err(format!("the issuer's keys could not be fetched: {why}"))
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let client = client(self.config.jwks_ca_path.as_deref())?;
        let mut request = Request::get(self.uri.clone()).header(header::ACCEPT, "application/json");
        if let Some(path) = &self.config.jwks_token_path {
            let token = tokio::fs::read_to_string(path).await;
            let token = token.map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        // Redirects are not followed.
        let answer = client.request(request).await.map_err(|error| innermost(&error))?;
        if !answer.status().is_success() {
            return Err(format!("it answers {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("its answer broke off or is too large: {error}"))?.to_bytes();
        let set: Set =
            serde_json::from_slice(&body).map_err(|_| "its answer is no set of keys".to_owned())?;
        Ok(set.keys.into_iter().filter_map(Key::read).take(KEYS_MAX).collect())
    }
}

#[derive(serde::Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// One a fetch: fetches are rare, and files of authorities change.
fn client(authorities: Option<&Path>) -> Result<Https, String> {
    let connector = match authorities {
        None => HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| format!("the system's authorities cannot be read: {error}"))?,
        Some(path) => {
            let unreadable = |error: rustls::pki_types::pem::Error| {
                format!("cannot read the authorities in `{}`: {error}", path.display())
            };
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                let certificate = certificate.map_err(unreadable)?;
                roots.add(certificate).map_err(|error| format!("`{}`: {error}", path.display()))?;
            }
            let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            HttpsConnectorBuilder::new().with_tls_config(tls)
        }
    };
    // Plain http is for this machine only: the settings were checked.
    let connector = connector.https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_public_keys_that_sign_are_read() {
        let ec = json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA", "kid": "a"});
        let key = Key::read(ec.clone()).unwrap();
        assert!(key.fits(Some("a"), Algorithm::ES256) && key.fits(None, Algorithm::ES256));
        assert!(!key.fits(Some("b"), Algorithm::ES256) && !key.fits(Some("a"), Algorithm::ES384));
        let mut encrypts = ec.clone();
        encrypts["use"] = json!("enc");
        let mut other = ec;
        other["alg"] = json!("RS256");
        for value in [
            encrypts,
            other,
            json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "a"}),
            json!({"kty": "new", "x": 1}),
            json!("nonsense"),
        ] {
            assert!(Key::read(value.clone()).is_none(), "{value}");
        }
        let rsa = Key::read(json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": "RS256"})).unwrap();
        assert!(rsa.fits(None, Algorithm::RS256) && !rsa.fits(None, Algorithm::PS256), "the key says which");
        assert!(!rsa.fits(None, Algorithm::HS256));
    }
}
