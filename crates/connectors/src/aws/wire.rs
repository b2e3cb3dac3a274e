//! The calls that carry the data, `GetRecords` and `PutRecords`, without the SDK's machinery for each call. Called by
//! [`super::Service`] only.
//!
//! The SDK prepares one request of the operation, with everything that options, environment and endpoint rules make of it,
//! and hands it over before it signs it ([`Intake`]): where it goes, its headers, and the parts that the SDK works with.
//! From then on a call is: credentials from the SDK's own cache, our body, a signature, the SDK's own HTTP connector.
//! Bodies are the business of [`super::records`] and [`super::puts`].
//!
//! Errors are the SDK's, so that [`super::failure`] judges both ways alike. Time limits other than those of connecting and
//! reading are the caller's.

use std::{
    error::Error as StdError,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_sdk_kinesis::{
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextRef},
    error::{BoxError, ErrorMetadata, ProvideErrorMetadata, SdkError},
};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use aws_smithy_runtime_api::client::{
    auth::AuthSchemeId,
    connection::CaptureSmithyConnection,
    http::{HttpClient, HttpConnector, HttpConnectorSettings, SharedHttpConnector},
    identity::{Identity, ResolveCachedIdentity, SharedIdentityResolver},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::GetIdentityResolver,
};
use aws_smithy_types::{body::SdkBody, byte_stream::ByteStream};
use bytes::Bytes;
use serde::Deserialize;

use super::clock::ServiceClock;

/// No answer of the service is larger (10 MiB of records in base64, and what stands around them): more is not made room for on
/// trust.
const ANSWER_USUAL: usize = 16 << 20;
/// More than this is not read. Emulators do not know the service's limit: the first answer of theirs may be large.
const ANSWER_MAX: usize = 128 << 20;
/// Headers that belong to one request, or to its body.
const OWN_HEADERS: [&str; 4] = ["content-length", "host", "amz-sdk-invocation-id", "amz-sdk-request"];

/// What the service said when it refused.
#[derive(Debug)]
pub(crate) struct Refusal(ErrorMetadata);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Refusal {}

impl ProvideErrorMetadata for Refusal {
    fn meta(&self) -> &ErrorMetadata {
        &self.0
    }
}

/// How far a call is, for who waits for its answer without memory for it.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    begun: AtomicBool,
    stops: AtomicBool,
}

impl Heard {
    /// The answer has begun: its head is here.
    pub(crate) fn begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Whoever polls the call from now on wants it to stop before the body, once.
    pub(crate) fn stop_at_the_body(&self) {
        self.stops.store(true, Ordering::SeqCst);
    }

    async fn begin(&self) {
        self.begun.store(true, Ordering::SeqCst);
        if self.stops.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    }
}

/// What comes of a call that has no answer.
pub(crate) type Error = SdkError<Refusal, HttpResponse>;

/// One operation at one endpoint.
#[derive(Debug)]
pub(crate) struct Wire {
    uri: String,
    headers: Vec<(String, String)>,
    region: String,
    connector: SharedHttpConnector,
    components: RuntimeComponents,
    identities: SharedIdentityResolver,
    clock: ServiceClock,
}

impl Wire {
    fn new(request: &HttpRequest, components: &RuntimeComponents, intake: &Intake) -> Result<Self, BoxError> {
        let http = components.http_client().ok_or("there is no HTTP client")?;
        let identities = components
            .identity_resolver(AuthSchemeId::new("sigv4"))
            .ok_or("there are no credentials to sign with")?;
        let own = |name: &str| OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name));
        let headers = request.headers().iter().filter(|(name, _)| !own(name));
        Ok(Self {
            uri: request.uri().to_owned(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            region: intake.region.clone(),
            connector: http.http_connector(&intake.settings, components),
            components: components.clone(),
            identities,
            clock: intake.clock.clone(),
        })
    }

    /// Sends `body`, once. What comes back is what `read` makes of the body of a good answer.
    pub(crate) async fn send<T>(
        &self,
        body: Bytes,
        heard: &Heard,
        read: impl Fn(&[u8]) -> Result<T, BoxError>,
    ) -> Result<T, Error> {
        // As the SDK has it: what goes wrong before a request is on its way is a failure to dispatch it.
        let unsent = |error: BoxError| SdkError::dispatch_failure(ConnectorError::other(error, None));
        let identity = self.identity().await.map_err(unsent)?;
        let mut request = self.request(body, &identity, self.clock.now()).map_err(unsent)?;
        let connection = CaptureSmithyConnection::new();
        request.add_extension(connection.clone());
        let mut response = self.connector.call(request).await.map_err(SdkError::dispatch_failure)?;
        self.clock.learn(&response);
        heard.begin().await;
        if matches!(response.status().as_u16(), 500 | 502 | 503 | 504)
            && let Some(connection) = connection.get()
        {
            // Whoever is behind it is not well: the next request finds somebody else, as the SDK does it.
            connection.poison();
        }
        let length = response.headers().get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
        let body = collect(response.take_body(), length, ANSWER_MAX).await;
        if response.status().is_success() {
            return match body.and_then(|body| read(&body)) {
                Ok(answer) => Ok(answer),
                Err(error) => Err(SdkError::response_error(error, response)),
            };
        }
        match body {
            Ok(body) => Err(SdkError::service_error(refusal(&response, &body), response)),
            Err(error) => Err(SdkError::response_error(error, response)),
        }
    }

    async fn identity(&self) -> Result<Identity, BoxError> {
        let (cache, bag) = (self.components.identity_cache(), ConfigBag::base());
        cache.resolve_cached_identity(self.identities.clone(), &self.components, &bag).await
    }

    fn request(&self, body: Bytes, identity: &Identity, at: SystemTime) -> Result<HttpRequest, BoxError> {
        let params = v4::SigningParams::builder()
            .identity(identity)
            .region(&self.region)
            .name("kinesis")
            .time(at)
            .settings(SigningSettings::default())
            .build()?
            .into();
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let signable = SignableRequest::new("POST", self.uri.as_str(), headers, SignableBody::Bytes(&body))?;
        let (signature, _) = sign(signable, &params)?.into_parts();
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method("POST")?;
        request.set_uri(self.uri.as_str())?;
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.try_insert(name.clone(), value.clone())?;
        }
        for (name, value) in signature.headers() {
            headers.try_insert(name.to_owned(), value.to_owned())?;
        }
        Ok(request)
    }
}

/// The whole body, of at most `max` bytes. `length` is what the answer promised, and only a hint.
async fn collect(body: SdkBody, length: usize, max: usize) -> Result<Bytes, BoxError> {
    let mut stream = ByteStream::new(body);
    let Some(first) = stream.next().await.transpose()? else { return Ok(Bytes::new()) };
    if first.len() == length {
        return Ok(first);
    }
    let mut whole = Vec::with_capacity(length.min(ANSWER_USUAL).max(first.len()));
    let mut next = Some(first);
    while let Some(part) = next {
        if whole.len() + part.len() > max {
            return Err(format!("the answer is larger than {max} bytes").into());
        }
        whole.extend_from_slice(&part);
        next = stream.next().await.transpose()?;
    }
    Ok(whole.into())
}

/// The code of an error is in a header or in the body, as `namespace#Code:address`.
fn refusal(response: &HttpResponse, body: &[u8]) -> Refusal {
    #[derive(Default, Deserialize)]
    struct Said {
        code: Option<String>,
        #[serde(rename = "__type")]
        kind: Option<String>,
        #[serde(alias = "Message", alias = "errorMessage")]
        message: Option<String>,
    }
    let said: Said = serde_json::from_slice(body).unwrap_or_default();
    let in_header = response.headers().get("x-amzn-errortype").map(ToOwned::to_owned);
    let code = in_header.or(said.code).or(said.kind);
    let bare = |code: &str| {
        let code = code.split_once(':').map_or(code, |(code, _)| code);
        code.split_once('#').map_or(code, |(_, code)| code).to_owned()
    };
    let mut meta = ErrorMetadata::builder();
    if let Some(code) = code.as_deref().map(bare) {
        meta = meta.code(code);
    }
    if let Some(message) = said.message {
        meta = meta.message(message);
    }
    Refusal(meta.build())
}

/// Takes a request over from the SDK just before it is signed. Its call then fails: nothing was sent.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    region: String,
    clock: ServiceClock,
    settings: HttpConnectorSettings,
    taken: Arc<Mutex<Option<Wire>>>,
}

impl Intake {
    /// `region` is what is signed for, `clock` when.
    pub(crate) fn new(
        region: &str,
        clock: ServiceClock,
        (connect, read): (Duration, Option<Duration>),
    ) -> Self {
        let mut settings = HttpConnectorSettings::builder().connect_timeout(connect);
        settings.set_read_timeout(read);
        Self { region: region.to_owned(), clock, settings: settings.build(), taken: Arc::default() }
    }

    /// What was taken over.
    pub(crate) fn take(&self) -> Option<Wire> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Intercept for Intake {
    fn name(&self) -> &'static str {
        "Intake"
    }

    fn read_before_signing(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        components: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let wire = Wire::new(context.request(), components, self)?;
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(wire);
        Err("the request was taken over".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(header: Option<&'static str>, body: &str) -> (Option<String>, Option<String>) {
        let mut response = HttpResponse::new(400.try_into().unwrap(), SdkBody::empty());
        if let Some(header) = header {
            response.headers_mut().insert("x-amzn-ErrorType", header);
        }
        let refusal = refusal(&response, body.as_bytes());
        (refusal.code().map(ToOwned::to_owned), refusal.message().map(ToOwned::to_owned))
    }

    #[test]
    fn the_code_of_a_refusal_stands_in_a_header_or_in_the_body() {
        let some = |code: &str, message: &str| (Some(code.to_owned()), Some(message.to_owned()));
        assert_eq!(said(None, r#"{"__type":"Expired","message":"old"}"#), some("Expired", "old"));
        assert_eq!(
            said(None, r#"{"__type":"com.amazonaws.kinesis#Expired","Message":"old"}"#),
            some("Expired", "old")
        );
        let (header, body) = ("ns#Slow:http://x/", r#"{"__type":"Expired","message":"m"}"#);
        assert_eq!(said(Some(header), body), some("Slow", "m"));
        assert_eq!(said(None, "<html>proxy</html>"), (None, None));
    }

    #[tokio::test]
    async fn a_body_is_whole_whatever_length_was_promised() {
        for length in [0, 3, 5, 1 << 40] {
            let body = collect(SdkBody::from("hello"), length, ANSWER_MAX).await.unwrap();
            assert_eq!(body, "hello");
            assert!(collect(SdkBody::empty(), length, ANSWER_MAX).await.unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_an_error() {
        let answer = |max| collect(SdkBody::from("hello"), 3, max);
        assert_eq!(answer(5).await.unwrap(), "hello");
        let error = answer(4).await.unwrap_err().to_string();
        assert_eq!(error, "the answer is larger than 4 bytes");
    }

    #[tokio::test]
    async fn a_first_part_that_is_larger_than_usual_is_taken() {
        let large = SdkBody::from(vec![0; ANSWER_USUAL + 1]);
        assert_eq!(collect(large, 5, ANSWER_MAX).await.unwrap().len(), ANSWER_USUAL + 1);
    }
}
