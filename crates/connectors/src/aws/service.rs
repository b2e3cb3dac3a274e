//! One client for a stream's service: connects lazily, goes on to the next endpoint when one cannot be reached, counts calls.
//! Small questions go through the SDK, the calls that carry the data over a [`Wire`].

use std::{
    error::Error as StdError,
    future::Future,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_kinesis::{
    Client,
    config::{
        ConfigBag, IdentityCache, Intercept, RuntimeComponents, SharedHttpClient, SharedIdentityCache,
        StalledStreamProtectionConfig, interceptors::BeforeDeserializationInterceptorContextRef,
    },
    error::{BoxError, ProvideErrorMetadata, SdkError},
};
use bytes::Bytes;
use connector::{Error, ErrorKind, Result};
use model::Timestamp;
use opentelemetry::{KeyValue, metrics::Counter};
use secrecy::ExposeSecret;
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout_at},
};

use super::{
    Access,
    access::Keys,
    clock::ServiceClock,
    failure::{Failure, failure},
    wire::{self, Heard, Intake, Wire},
};

static CALLS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    opentelemetry::global::meter("shardwright")
        .u64_counter("aws_api_calls")
        .with_description("calls of the AWS API by operation and outcome")
        .build()
});

/// The call that carries the data.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bulk {
    /// Of a source.
    GetRecords,
    /// Of a sink.
    PutRecords,
}

impl Bulk {
    fn name(self) -> &'static str {
        match self {
            Self::GetRecords => "GetRecords",
            Self::PutRecords => "PutRecords",
        }
    }
}

#[derive(Debug)]
struct Endpoint {
    url: Option<String>,
    /// Under the general limit of an attempt.
    ask: Client,
    /// Under the limit of the bulk call.
    bulk: Client,
    /// The bulk call, once it was prepared.
    wire: OnceLock<Wire>,
}

/// The service of one stream. Shared by all tasks of a source or sink.
pub(crate) struct Service {
    access: Access,
    bulk: Bulk,
    bulk_limit: Duration,
    http: Option<SharedHttpClient>,
    clock: ServiceClock,
    endpoints: OnceCell<Vec<Endpoint>>,
    current: AtomicUsize,
}

impl Service {
    /// Nothing happens before the first call. `bulk_limit` is the time one bulk call may take; `http` replaces the SDK's own
    /// client.
    pub(crate) fn new(
        access: Access,
        bulk: Bulk,
        bulk_limit: Duration,
        http: Option<SharedHttpClient>,
    ) -> Self {
        let (clock, endpoints, current) = (ServiceClock::default(), OnceCell::new(), AtomicUsize::new(0));
        Self { access, bulk, bulk_limit, http, clock, endpoints, current }
    }

    /// Which stream, where, and as whom.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// What time it is there, as far as its answers told.
    pub(crate) fn now(&self) -> Timestamp {
        let since = self.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Calls `request` once; once per endpoint as long as none can be reached, and once more if only then the service's time is
    /// known. `what` says in words what fails if it fails.
    pub(crate) async fn call<T, E, F, Fut>(
        &self,
        operation: &'static str,
        what: impl Fn() -> String,
        request: F,
    ) -> Result<T>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let mut corrected = false;
        let mut others = self.access.endpoints.len().saturating_sub(1);
        loop {
            let (index, endpoint) = self.endpoint().await;
            let (began, ahead) = (Instant::now(), self.clock.ahead());
            let outcome = request(endpoint.ask.clone()).await;
            let outcome =
                outcome.map_err(|error| failure(&what(), endpoint.url.as_deref(), error, began.into_std()));
            let refused = |failure: &Failure| failure.error.kind() == ErrorKind::Denied;
            match self.settle(operation, index, outcome) {
                Err(failure) if failure.unreached && others > 0 => others -= 1,
                Err(failure) if refused(&failure) && self.clock.ahead() != ahead && !corrected => {
                    corrected = true;
                }
                outcome => return outcome.map_err(|failure| failure.error),
            }
        }
    }

    /// Sends `body` as the bulk call and makes of the answer's what `read` does; once per endpoint as long as none can be
    /// reached. `heard` tells others how far it is.
    pub(crate) async fn bulk<T>(
        &self,
        what: impl Fn() -> String,
        body: Bytes,
        heard: &Heard,
        read: impl Fn(&[u8]) -> Result<T, BoxError>,
    ) -> Result<T> {
        let mut others = self.access.endpoints.len().saturating_sub(1);
        loop {
            match self.exchange(&what, body.clone(), heard, &read).await {
                Err(failure) if failure.unreached && others > 0 => others -= 1,
                outcome => return outcome.map_err(|failure| failure.error),
            }
        }
    }

    /// The same at one endpoint. If that cannot be reached, the next call goes to the next one.
    pub(crate) async fn bulk_once<T>(
        &self,
        what: impl Fn() -> String,
        body: Bytes,
        read: impl Fn(&[u8]) -> Result<T, BoxError>,
    ) -> Result<T> {
        self.exchange(&what, body, &Heard::default(), &read).await.map_err(|failure| failure.error)
    }

    async fn exchange<T>(
        &self,
        what: &impl Fn() -> String,
        body: Bytes,
        heard: &Heard,
        read: &impl Fn(&[u8]) -> Result<T, BoxError>,
    ) -> Result<T, Failure> {
        let (index, endpoint) = self.endpoint().await;
        let began = Instant::now();
        let failed = |error: wire::Error| failure(&what(), endpoint.url.as_deref(), error, began.into_std());
        let outcome = match self.wire(endpoint, what, began).await {
            Err(failure) => Err(failure),
            Ok(wire) => match timeout_at(began + self.bulk_limit, wire.send(body, heard, read)).await {
                Ok(outcome) => outcome.map_err(failed),
                Err(_) => {
                    let text = format!("no answer within {:?}", self.bulk_limit);
                    Err(failed(SdkError::timeout_error(text)))
                }
            },
        };
        self.settle(self.bulk.name(), index, outcome)
    }

    /// The bulk call of an endpoint. The first time the SDK is asked to prepare one, which takes credentials and no network
    /// of the service.
    async fn wire<'a>(
        &self,
        endpoint: &'a Endpoint,
        what: &impl Fn() -> String,
        began: Instant,
    ) -> Result<&'a Wire, Failure> {
        if let Some(wire) = endpoint.wire.get() {
            return Ok(wire);
        }
        let Access { stream, region, limits, .. } = &self.access;
        let intake = Intake::new(region, self.clock.clone(), (limits.connect, limits.read));
        let (url, began) = (endpoint.url.as_deref(), began.into_std());
        let refused = match self.bulk {
            Bulk::GetRecords => {
                let request =
                    endpoint.bulk.get_records().shard_iterator("-").set_stream_arn(stream.arn.clone());
                let sent = request.customize().interceptor(intake.clone()).send().await;
                sent.err().map(|error| failure(&what(), url, error, began))
            }
            Bulk::PutRecords => {
                let request = endpoint.bulk.put_records().stream_name(&stream.name);
                let request = request.set_stream_arn(stream.arn.clone()).set_records(Some(Vec::new()));
                let sent = request.customize().interceptor(intake.clone()).send().await;
                sent.err().map(|error| failure(&what(), url, error, began))
            }
        };
        match (intake.take(), refused) {
            (Some(wire), _) => Ok(endpoint.wire.get_or_init(|| wire)),
            (None, Some(failure)) => Err(failure),
            (None, None) => {
                let text = format!("{}: the request was sent before it was prepared", what());
                Err(Failure { error: Error::new(ErrorKind::Bug, text), unreached: false })
            }
        }
    }

    async fn endpoint(&self) -> (usize, &Endpoint) {
        let endpoints = self.endpoints.get_or_init(|| self.connect()).await;
        let index = self.current.load(Ordering::Relaxed);
        (index, &endpoints[index % endpoints.len()])
    }

    /// Counts an attempt, and moves everybody on from an endpoint that cannot be reached.
    fn settle<T>(
        &self,
        operation: &'static str,
        index: usize,
        outcome: Result<T, Failure>,
    ) -> Result<T, Failure> {
        match &outcome {
            Ok(_) => count(operation, "ok"),
            Err(Failure { error, .. }) => {
                count(operation, error.vendor_code().unwrap_or(error.kind().as_str()));
            }
        }
        if outcome.as_ref().is_err_and(|failure| failure.unreached) {
            // Only who failed at this endpoint moves everybody on, so that two callers do not skip one between them.
            let next = index.wrapping_add(1);
            let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        outcome
    }

    async fn connect(&self) -> Vec<Endpoint> {
        let shared = self.load().await;
        let urls: Vec<Option<String>> = if self.access.endpoints.is_empty() {
            vec![None]
        } else {
            self.access.endpoints.iter().cloned().map(Some).collect()
        };
        urls.into_iter()
            .map(|url| {
                let client = |attempt: Duration| {
                    let mut config = aws_sdk_kinesis::config::Builder::from(&shared)
                        .interceptor(self.clock.clone())
                        .timeout_config(self.timeouts(attempt));
                    if let Some(url) = &url {
                        config = config.endpoint_url(url);
                    }
                    Client::from_conf(config.build())
                };
                let (ask, bulk) = (client(self.access.limits.attempt), client(self.bulk_limit));
                Endpoint { ask, bulk, url, wire: OnceLock::new() }
            })
            .collect()
    }

    fn timeouts(&self, attempt: Duration) -> TimeoutConfig {
        let limits = &self.access.limits;
        let mut timeouts = TimeoutConfig::builder()
            .connect_timeout(limits.connect)
            .operation_attempt_timeout(attempt)
            .operation_timeout(limits.operation.max(attempt));
        if let Some(read) = limits.read {
            timeouts = timeouts.read_timeout(read);
        }
        timeouts.build()
    }

    async fn load(&self) -> SdkConfig {
        let access = &self.access;
        let config = match (&self.http, &access.keys) {
            (Some(http), Some(keys)) => self.bare(http, keys),
            _ => self.surroundings().await,
        };
        let Some(role) = &access.role else { return config };
        let mut sts = config.clone().into_builder();
        sts.set_endpoint_url(access.sts_endpoint.clone());
        let mut provider = aws_config::sts::AssumeRoleProvider::builder(&role.arn)
            .session_name("shardwright")
            .configure(&sts.build());
        if let Some(id) = &role.external_id {
            provider = provider.external_id(id);
        }
        let provider = SharedCredentialsProvider::new(provider.build().await);
        config.into_builder().credentials_provider(provider).build()
    }

    /// The service that says who we are, with the same credentials.
    pub(super) async fn sts(&self) -> aws_sdk_sts::Client {
        let mut config = aws_sdk_sts::config::Builder::from(&self.load().await);
        config.set_endpoint_url(self.access.sts_endpoint.clone());
        aws_sdk_sts::Client::from_conf(config.build())
    }

    /// Whoever brings the network and the keys depends on nothing outside: neither files nor variables are read.
    fn bare(&self, http: &SharedHttpClient, keys: &Keys) -> SdkConfig {
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.access.region.clone()))
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(self.timeouts(self.access.limits.attempt))
            .identity_cache(self.identity_cache())
            .credentials_provider(SharedCredentialsProvider::new(credentials(keys)))
            .http_client(http.clone())
            .build()
    }

    /// One cache, so that the clients of one source do not each ask for credentials.
    fn identity_cache(&self) -> SharedIdentityCache {
        IdentityCache::lazy().load_timeout(self.access.limits.attempt).build()
    }

    /// What the options, the environment and the profile files of this process say together.
    async fn surroundings(&self) -> SdkConfig {
        let access = &self.access;
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(access.region.clone()))
            .retry_config(RetryConfig::disabled())
            // Time limits are set above; a slow but moving 10 MiB answer is no error.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(self.timeouts(access.limits.attempt))
            .identity_cache(self.identity_cache());
        if let Some(profile) = &access.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(keys) = &access.keys {
            loader = loader.credentials_provider(credentials(keys));
        }
        if let Some(http) = &self.http {
            loader = loader.http_client(http.clone());
        }
        loader.load().await
    }
}

fn credentials(keys: &Keys) -> Credentials {
    let token = keys.token.as_ref().map(|token| token.expose_secret().to_owned());
    Credentials::new(&keys.id, keys.secret.expose_secret(), token, None, "options")
}

fn count(operation: &'static str, code: &str) {
    CALLS.add(1, &[KeyValue::new("op", operation), KeyValue::new("code", code.to_owned())]);
}

/// Catches the `Date` header of an answer: the service's own clock, in whole seconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceDate(Arc<OnceLock<String>>);

impl ServiceDate {
    /// Milliseconds since 1970, if the answer had a date.
    pub(crate) fn millis(&self) -> Option<i64> {
        use aws_sdk_kinesis::primitives::{DateTime, DateTimeFormat};
        DateTime::from_str(self.0.get()?, DateTimeFormat::HttpDate).ok()?.to_millis().ok()
    }
}

impl Intercept for ServiceDate {
    fn name(&self) -> &'static str {
        "ServiceDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date") {
            let _ = self.0.set(date.to_owned());
        }
        Ok(())
    }
}
