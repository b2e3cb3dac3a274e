//! As whom the service is called: static keys, a role through a fake STS, nothing at all.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use connector::ErrorKind;
use model::{Creation, Position, SplitId, StartFrom};

use crate::{DEADLINE, fast_source, rustls_ready, server::STREAM};

const ROLE: &str = "arn:aws:iam::123456789012:role/reader";

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

type Answers = Box<dyn Fn(usize) -> (u16, String) + Send + Sync>;

struct Listener {
    seen: Seen,
    keep: fn(&HeaderMap, &str) -> String,
    answer: Answers,
}

/// Answers the n-th request with `answer(n)`; keeps what `keep` makes of each.
async fn listen(
    keep: fn(&HeaderMap, &str) -> String,
    answer: impl Fn(usize) -> (u16, String) + Send + Sync + 'static,
) -> (String, Seen) {
    rustls_ready();
    let seen = Seen::default();
    let state = Arc::new(Listener { seen: seen.clone(), keep, answer: Box::new(answer) });
    let app = Router::new().fallback(respond).with_state(state);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (endpoint, seen)
}

async fn respond(
    State(state): State<Arc<Listener>>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, String) {
    let n = {
        let mut all = state.seen.0.lock().unwrap();
        all.push((state.keep)(&headers, &body));
        all.len()
    };
    let (status, text) = (state.answer)(n);
    (StatusCode::from_u16(status).unwrap(), text)
}

/// An STS whose n-th credentials are `ASIA{n}` and live for `life`.
async fn sts(life: Duration) -> (String, Seen) {
    listen(
        |_, body| body.to_owned(),
        move |n| {
            let expires: chrono::DateTime<chrono::Utc> = (SystemTime::now() + life).into();
            let expires = expires.format("%Y-%m-%dT%H:%M:%SZ");
            let text = format!(
                r#"<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
                <AssumedRoleUser><Arn>{ROLE}/x</Arn><AssumedRoleId>A:x</AssumedRoleId></AssumedRoleUser>
                <Credentials><AccessKeyId>ASIA{n}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
                <SessionToken>token{n}</SessionToken><Expiration>{expires}</Expiration></Credentials>
                </AssumeRoleResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></AssumeRoleResponse>"#
            );
            (200, text)
        },
    )
    .await
}

/// A Kinesis that lists no shards and keeps the access key of each caller.
async fn kinesis() -> (String, Seen) {
    listen(
        |headers, _| {
            let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
            let authorization = text("authorization");
            let key = authorization.split("Credential=").nth(1).unwrap_or_default();
            format!("{}|{}", key.split('/').next().unwrap_or_default(), text("x-amz-security-token"))
        },
        |_| {
            let text = r#"{"Shards": [], "StreamDescriptionSummary": {"StreamName": "in", "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/in",
                "StreamStatus": "ACTIVE", "RetentionPeriodHours": 24, "StreamCreationTimestamp": 1, "EnhancedMonitoring": [], "OpenShardCount": 1}}"#;
            (200, text.to_owned())
        },
    )
    .await
}

#[tokio::test]
async fn static_keys_and_their_token_are_used() {
    let (endpoint, seen) = kinesis().await;
    let source = fast_source(&endpoint, STREAM, &[("aws.credentials.session_token", "tok")]);
    source.discover().await.unwrap();
    assert!(seen.all().iter().all(|caller| caller == "AKIATEST|tok"), "{:?}", seen.all());
}

#[tokio::test]
async fn a_role_is_assumed_with_its_external_id_and_kept() {
    let (sts, asked) = sts(Duration::from_secs(3600)).await;
    let (endpoint, seen) = kinesis().await;
    let role = [
        ("aws.credentials.role.arn", ROLE),
        ("aws.credentials.role.external_id", "corner shop"),
        ("aws.credentials.sts.endpoint", sts.as_str()),
    ];
    let source = fast_source(&endpoint, STREAM, &role);
    source.discover().await.unwrap();
    source.discover().await.unwrap();
    let asked = asked.all();
    assert_eq!(asked.len(), 1, "credentials that are still good are not asked for again: {asked:?}");
    assert!(
        asked[0].contains("Action=AssumeRole") && asked[0].contains("ExternalId=corner%20shop"),
        "{asked:?}"
    );
    assert!(asked[0].contains("RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Freader"), "{asked:?}");
    assert!(seen.all().iter().all(|caller| caller == "ASIA1|token1"), "{:?}", seen.all());
}

#[tokio::test]
async fn a_role_is_assumed_again_before_it_expires() {
    // Less than the margin at which they count as expired: every call finds them too old.
    let (sts, asked) = sts(Duration::from_secs(5)).await;
    let (endpoint, seen) = kinesis().await;
    let role = [("aws.credentials.role.arn", ROLE), ("aws.credentials.sts.endpoint", sts.as_str())];
    let source = fast_source(&endpoint, STREAM, &role);
    let renewing = async {
        while asked.all().len() < 3 {
            source.discover().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, renewing).await.expect("renewed");
    assert!(seen.all().contains(&"ASIA2|token2".to_owned()), "{:?}", seen.all());
}

#[tokio::test]
async fn a_role_that_is_refused_is_denied_and_an_sts_that_is_away_is_unavailable() {
    let (endpoint, seen) = kinesis().await;
    let (refusing, _) = listen(
        |_, _| String::new(),
        |_| {
            let text = r#"<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
                <Code>AccessDenied</Code><Message>not you</Message></Error><RequestId>r</RequestId></ErrorResponse>"#;
            (403, text.to_owned())
        },
    )
    .await;
    for (sts, kind) in
        [(refusing.as_str(), ErrorKind::Denied), ("http://127.0.0.1:1", ErrorKind::Unavailable)]
    {
        let role = [("aws.credentials.role.arn", ROLE), ("aws.credentials.sts.endpoint", sts)];
        let error = fast_source(&endpoint, STREAM, &role).discover().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains("cannot get credentials"), "{error}");
        assert!(error.ambiguous().is_none(), "nothing was sent");
    }
    assert!(seen.all().is_empty());
}

#[tokio::test]
async fn who_aws_takes_us_for_is_asked_with_the_credentials_of_the_source() {
    let arn = "arn:aws:iam::123456789012:user/reader";
    let (sts, asked) = listen(
        |headers, body| {
            let authorization = headers.get("authorization").map(|v| v.to_str().unwrap().to_owned());
            let key = authorization.unwrap_or_default();
            let key = key.split("Credential=").nth(1).unwrap_or_default();
            format!("{}|{body}", key.split('/').next().unwrap_or_default())
        },
        move |n| {
            let answer = format!(
                r#"<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
                <Arn>{arn}</Arn><UserId>A</UserId><Account>123456789012</Account></GetCallerIdentityResult>
                <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></GetCallerIdentityResponse>"#
            );
            let refusal = r#"<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
                <Code>InvalidClientTokenId</Code><Message>who?</Message></Error><RequestId>r</RequestId></ErrorResponse>"#;
            if n == 1 { (200, answer) } else { (403, refusal.to_owned()) }
        },
    )
    .await;
    let mut options: model::Options = [
        ("stream", "in"),
        ("aws.region", "us-east-1"),
        ("aws.credentials.access_key_id", "AKIATEST"),
        ("aws.credentials.secret_access_key", "s"),
        ("aws.credentials.sts.endpoint", sts.as_str()),
        // Of the source alone.
        ("scan.startup.mode", "latest"),
    ]
    .into_iter()
    .collect();
    let identity = shardwright_connectors::aws_identity(&options).await.unwrap();
    assert_eq!(identity.unwrap(), arn);
    assert!(asked.all()[0].starts_with("AKIATEST|Action=GetCallerIdentity"), "{:?}", asked.all());
    let refused = shardwright_connectors::aws_identity(&options).await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    // A stream at an endpoint of its own says nothing about where its STS would be.
    options.remove("aws.credentials.sts.endpoint");
    options.insert("endpoint", "http://127.0.0.1:1");
    assert!(shardwright_connectors::aws_identity(&options).await.is_none());
}

#[tokio::test]
async fn reads_are_signed_with_renewed_credentials_too() {
    let (sts, _) = sts(Duration::from_secs(5)).await;
    let (endpoint, seen) = listen(
        |headers, _| {
            let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
            let (operation, authorization) = (text("x-amz-target"), text("authorization"));
            let key = authorization.split("Credential=").nth(1).unwrap_or_default();
            let key = key.split('/').next().unwrap_or_default();
            format!("{}|{key}|{}", operation.rsplit('.').next().unwrap_or_default(), text("x-amz-security-token"))
        },
        |_| {
            let text = r#"{"Records": [], "NextShardIterator": "it", "ShardIterator": "it", "MillisBehindLatest": 0,
                "StreamDescriptionSummary": {"StreamName": "in", "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/in",
                "StreamStatus": "ACTIVE", "RetentionPeriodHours": 24, "StreamCreationTimestamp": 1, "EnhancedMonitoring": [], "OpenShardCount": 1}}"#;
            (200, text.to_owned())
        },
    )
    .await;
    let role = [("aws.credentials.role.arn", ROLE), ("aws.credentials.sts.endpoint", sts.as_str())];
    let source = fast_source(&endpoint, STREAM, &role);
    let split = SplitId::new(Creation(1000), "shardId-000000000000");
    let mut reader = source.open(&split, &Position::Start(StartFrom::Horizon)).await.unwrap();
    let callers = || -> Vec<String> {
        let reads =
            seen.all().into_iter().filter_map(|call| Some(call.strip_prefix("GetRecords|")?.to_owned()));
        reads.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    };
    let renewing = async {
        while callers().len() < 3 {
            reader.next().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, renewing).await.expect("renewed");
    for caller in callers() {
        let (key, token) = caller.split_once('|').unwrap();
        assert_eq!(
            key.strip_prefix("ASIA"),
            token.strip_prefix("token"),
            "key and token belong together: {caller}"
        );
    }
}
