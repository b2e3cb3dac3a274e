//! Bearer tokens: whose are taken, and one test for each way in which one is not.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use shardwright_coordinator::{AuthConfig, JwtConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use crate::{
    login::{Caller, guarded, strict},
    setup::{Coordinator, PATIENCE},
};

const ISSUER: &str = "https://issuer.test";
const AUDIENCE: &str = "shardwright";

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// A key that signs tokens.
enum Signer {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(RsaKeyPair),
}

impl Signer {
    fn es256() -> Self {
        Self::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Es256(_) => "ES256",
            Self::EdDsa(_) => "EdDSA",
            Self::Rs256(_) => "RS256",
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Es256(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::EdDsa(key) => key.sign(message).as_ref().to_vec(),
            Self::Rs256(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// As it is published.
    fn public(&self, id: &str) -> Value {
        match self {
            Self::Es256(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..]), "kid": id, "use": "sig"})
            }
            Self::EdDsa(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key()), "kid": id})
            }
            Self::Rs256(key) => {
                // PKCS #1: a sequence of n, with a zero before its 256 bytes, and e, in 3 bytes.
                let der = key.public_key().as_ref();
                let (n, e) = (&der[9..265], &der[der.len() - 3..]);
                json!({"kty": "RSA", "n": b64(n), "e": b64(e), "kid": id, "alg": "RS256", "use": "sig"})
            }
        }
    }

    fn token(&self, id: &str, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "typ": "JWT", "kid": id});
        let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = b64(self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// Somebody who publishes keys.
struct Issuer {
    key: Signer,
    url: String,
    published: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start() -> Self {
        let key = Signer::es256();
        let published = Arc::new(Mutex::new(json!({"keys": [key.public("one")]}).to_string()));
        let asked = Arc::new(AtomicUsize::new(0));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (answers, count) = (Arc::clone(&published), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = [0; 4096];
                _ = socket.read(&mut head).await;
                count.fetch_add(1, Ordering::SeqCst);
                let body = answers.lock().unwrap().clone();
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
                let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        Self { key, url, published, asked }
    }

    fn settings(&self) -> AuthConfig {
        let jwt = JwtConfig {
            issuer: Some(ISSUER.to_owned()),
            jwks_url: Some(self.url.clone()),
            audience: Some(AUDIENCE.to_owned()),
            roles_claim: Some("realm.roles".to_owned()),
            ..JwtConfig::default()
        };
        AuthConfig { jwt, ..strict() }
    }

    fn publish(&self, keys: &[Value]) {
        *self.published.lock().unwrap() = json!({"keys": keys}).to_string();
    }

    fn token(&self, claims: &Value) -> String {
        self.key.token("one", claims)
    }
}

/// What a token of alice says.
fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now() + 600, "nbf": now() - 10, "iat": now()})
}

/// The same, with one claim changed or taken away.
fn but(claim: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(claim)),
        value => claims[claim] = value,
    }
    claims
}

/// A cluster that takes the issuer's tokens, with the user alice.
async fn scene() -> (Coordinator, Issuer) {
    let issuer = Issuer::start().await;
    let cluster = guarded(issuer.settings()).await;
    Caller::admin(&cluster)
        .run("CREATE USER alice; CREATE ROLE readers; GRANT SELECT ON CLUSTER TO readers")
        .await;
    (cluster, issuer)
}

async fn refused(claims: &Value, why: &str) {
    let (cluster, issuer) = scene().await;
    // What is refused here is what was changed.
    Caller::token(&cluster, &issuer.token(&self::claims())).run("SHOW SOURCES").await;
    Caller::token(&cluster, &issuer.token(claims)).stays_out(why).await;
}

#[tokio::test]
async fn a_token_of_the_issuer_is_its_user() {
    let (cluster, issuer) = scene().await;
    let alice = Caller::token(&cluster, &issuer.token(&claims()));
    assert!(alice.run("SHOW USERS").await.rows[0].starts_with("alice|certificate or token|"));
    alice.lacks("SHOW WORKERS", "SELECT privilege on the cluster").await;
    alice
        .lacks("ALTER USER alice PASSWORD 'one that outlives the token'", "SYSTEM_USER_ADMIN privilege")
        .await;
    let many = Caller::token(&cluster, &issuer.token(&but("aud", json!(["other", AUDIENCE]))));
    many.run("SHOW SOURCES").await;
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1, "keys are kept");
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    refused(&but("exp", json!(now() - 120)), "the token has expired").await;
}

#[tokio::test]
async fn a_token_without_an_end_is_refused() {
    refused(&but("exp", Value::Null), "lacks one of the claims").await;
}

#[tokio::test]
async fn a_token_that_is_not_valid_yet_is_refused() {
    refused(&but("nbf", json!(now() + 600)), "not valid yet").await;
}

#[tokio::test]
async fn a_token_for_another_audience_is_refused() {
    refused(&but("aud", json!("another")), "another audience").await;
}

#[tokio::test]
async fn a_token_without_an_audience_is_refused() {
    refused(&but("aud", Value::Null), "lacks one of the claims").await;
}

#[tokio::test]
async fn a_token_of_another_issuer_is_refused() {
    refused(&but("iss", json!("https://evil.test")), "another issuer").await;
}

#[tokio::test]
async fn a_token_of_several_issuers_is_refused() {
    refused(&but("iss", json!([ISSUER, "https://evil.test"])), "another issuer").await;
}

#[tokio::test]
async fn a_token_of_a_user_that_is_not_there_is_refused() {
    refused(&but("sub", json!("mallory")), "names no user that is here").await;
}

#[tokio::test]
async fn a_token_that_names_nobody_is_refused() {
    refused(&but("sub", json!("")), "names no user").await;
}

#[tokio::test]
async fn a_token_does_not_become_a_user_with_a_password() {
    refused(&but("sub", json!("admin")), "logs in by a password").await;
}

#[tokio::test]
async fn a_token_whose_algorithm_is_none_is_refused() {
    let (cluster, _issuer) = scene().await;
    for header in [json!({"alg": "none"}), json!({"alg": "None", "kid": "one"}), json!({"typ": "JWT"})] {
        for signature in ["", "AAAA"] {
            let token = format!("{}.{}.{signature}", b64(header.to_string()), b64(claims().to_string()));
            Caller::token(&cluster, &token).stays_out("login failed").await;
        }
    }
}

#[tokio::test]
async fn an_unsigned_or_changed_token_is_refused() {
    let (cluster, issuer) = scene().await;
    let token = issuer.token(&claims());
    let parts: Vec<&str> = token.split('.').collect();
    let other = b64(but("sub", json!("bob")).to_string());
    for (token, why) in [
        (format!("{}.{}.", parts[0], parts[1]), "signature"),
        (format!("{}.{}", parts[0], parts[1]), "not a signed JWT"),
        (format!("{}.{other}.{}", parts[0], parts[2]), "signature"),
        (format!("{}.{}.{}", parts[0], parts[1], b64([0; 64])), "signature"),
        ("nonsense".to_owned(), "not a signed JWT"),
    ] {
        Caller::token(&cluster, &token).stays_out(why).await;
    }
}

#[tokio::test]
async fn a_token_signed_with_a_public_key_as_a_shared_secret_is_refused() {
    let (cluster, issuer) = scene().await;
    let Signer::Es256(key) = &issuer.key else { panic!("it is") };
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    for secret in [key.public_key().as_ref(), der.as_ref()] {
        let header = json!({"alg": "HS256", "kid": "one"});
        let message = format!("{}.{}", b64(header.to_string()), b64(claims().to_string()));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        let token = format!("{message}.{}", b64(signature));
        Caller::token(&cluster, &token).stays_out("not signed by an algorithm that is taken").await;
    }
}

#[tokio::test]
async fn a_token_signed_by_a_key_that_is_not_published_is_refused() {
    let (cluster, issuer) = scene().await;
    let own = Signer::es256();
    Caller::token(&cluster, &own.token("mine", &claims()))
        .stays_out("a key that its issuer does not publish")
        .await;
    // Under the name of one that is.
    Caller::token(&cluster, &own.token("one", &claims())).stays_out("signature of the token is wrong").await;
    // With the key in its own header, and with where to fetch it from.
    for (name, value) in [("jwk", own.public("one")), ("jku", json!("http://127.0.0.1:1/keys"))] {
        let header = json!({"alg": "ES256", "kid": "one", name: value});
        let message = format!("{}.{}", b64(header.to_string()), b64(claims().to_string()));
        let token = format!("{message}.{}", b64(own.sign(message.as_bytes())));
        Caller::token(&cluster, &token).stays_out("login failed").await;
    }
    // With a header that it says must be understood.
    let header = json!({"alg": "ES256", "kid": "one", "crit": ["exp"]});
    let message = format!("{}.{}", b64(header.to_string()), b64(claims().to_string()));
    let token = format!("{message}.{}", b64(issuer.key.sign(message.as_bytes())));
    Caller::token(&cluster, &token).stays_out("a header that is not understood").await;
}

#[tokio::test]
async fn a_new_key_is_found_and_one_that_is_published_no_more_is_refused() {
    let (cluster, issuer) = scene().await;
    let old = Caller::token(&cluster, &issuer.token(&claims()));
    old.run("SHOW SOURCES").await;
    let random = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let (rsa, ed) = (Signer::Rs256(random), Signer::EdDsa(Ed25519KeyPair::generate().unwrap()));
    issuer.publish(&[
        json!({"kty": "oct", "k": "c2VjcmV0"}),
        json!(7),
        rsa.public("two"),
        ed.public("three"),
    ]);
    for (key, id) in [(&rsa, "two"), (&ed, "three")] {
        let caller = Caller::token(&cluster, &key.token(id, &claims()));
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Err(status) = caller.execute("SHOW SOURCES", "").await {
            assert!(tokio::time::Instant::now() < deadline, "{id}: {status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    old.stays_out("a key that its issuer does not publish").await;
    let asked = issuer.asked.load(Ordering::SeqCst);
    for n in 0..20 {
        let unknown = rsa.token(&format!("unknown{n}"), &claims());
        Caller::token(&cluster, &unknown).stays_out("a key that its issuer does not publish").await;
    }
    let more = issuer.asked.load(Ordering::SeqCst) - asked;
    assert!(more < 20, "strange tokens make {more} calls to the issuer");
}

#[tokio::test]
async fn a_token_brings_roles_that_are_here() {
    let (cluster, issuer) = scene().await;
    let with = |roles: Value| issuer.token(&but("realm", json!({"roles": roles})));
    Caller::token(&cluster, &with(json!(["readers"]))).run("SHOW WORKERS").await;
    let none = Caller::token(&cluster, &with(json!(["writers", "admin", "alice"])));
    none.lacks("SHOW WORKERS", "SELECT privilege on the cluster").await;
    // Who is no user here comes by a role, and what it makes is its own.
    let mut guest = but("realm", json!({"roles": ["readers"]}));
    guest["sub"] = json!("guest");
    let guest = Caller::token(&cluster, &issuer.token(&guest));
    guest.run("SHOW WORKERS; CREATE CREDENTIAL c TYPE = 'pair', IDENTITY = 'i', SECRET = 's'").await;
    guest.run("SHOW CREDENTIAL c").await;
    none.lacks("SHOW CREDENTIAL c", "READ privilege on credential \"public.c\"").await;
}

#[tokio::test]
async fn an_issuer_that_is_away_is_said_to_be_and_lets_nobody_in() {
    let issuer = Issuer::start().await;
    let mut settings = issuer.settings();
    settings.jwt.jwks_url = Some("http://127.0.0.1:1/keys".to_owned());
    let cluster = guarded(settings).await;
    let status = Caller::token(&cluster, &issuer.token(&claims())).refused("SHOW SOURCES").await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("the issuer's keys could not be fetched"), "{status:?}");
    // Passwords do not need it.
    Caller::admin(&cluster).run("SHOW SOURCES").await;
}
