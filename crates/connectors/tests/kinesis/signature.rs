//! The signature of a request, computed anew from what arrived, as a service does
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).

use std::fmt::Write as _;

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use chrono::NaiveDateTime;
use sha2::{Digest, Sha256};

/// When the request says it was signed. Fails the test unless it was signed with `secret`, body and target included.
pub fn verified(request: &HttpRequest, secret: &str) -> NaiveDateTime {
    let header = |name: &str| match (name, request.headers().get(name)) {
        ("host", None) => host(request.uri()),
        (_, value) => value.unwrap_or_else(|| panic!("no header {name}")).trim().to_owned(),
    };
    let authorization = header("authorization");
    let part = |name: &str| {
        let from = authorization.split_once(name).unwrap_or_else(|| panic!("no {name} in {authorization}")).1;
        from.split(',').next().unwrap_or_default().to_owned()
    };
    let (signed, credential) = (part("SignedHeaders="), part("Credential="));
    for needed in ["host", "x-amz-date", "x-amz-target", "content-type"] {
        assert!(signed.split(';').any(|name| name == needed), "{needed} is not signed: {signed}");
    }
    let (_, scope) = credential.split_once('/').unwrap();
    assert!(scope.ends_with("/us-east-1/kinesis/aws4_request"), "{scope}");
    let headers: String = signed.split(';').fold(String::new(), |mut all, name| {
        writeln!(all, "{name}:{}", header(name)).unwrap();
        all
    });
    let body = hash(request.body().bytes().expect("a body in memory"));
    let canonical = format!("POST\n/\n\n{headers}\n{signed}\n{body}");
    let date = header("x-amz-date");
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hash(canonical.as_bytes()));
    let at = NaiveDateTime::parse_from_str(&date, "%Y%m%dT%H%M%SZ").unwrap();
    let key = generate_signing_key(secret, at.and_utc().into(), "us-east-1", "kinesis");
    assert_eq!(part("Signature="), calculate_signature(key, text.as_bytes()), "the signature of {canonical}");
    at
}

fn host(uri: &str) -> String {
    uri.split("://").nth(1).unwrap_or_default().split('/').next().unwrap_or_default().to_owned()
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}
