//! One client for a stream's service: connects lazily, goes on to the next endpoint when one cannot be reached, counts calls.

use std::{
    error::Error as StdError,
    future::Future,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_kinesis::{
    Client,
    config::{
        ConfigBag, IdentityCache, Intercept, RuntimeComponents, StalledStreamProtectionConfig,
        interceptors::BeforeDeserializationInterceptorContextRef,
    },
    error::{BoxError, ProvideErrorMetadata, SdkError},
};
use connector::Result;
use opentelemetry::{KeyValue, metrics::Counter};
use secrecy::ExposeSecret;
use tokio::sync::OnceCell;

use super::{
    Access,
    failure::{Failure, failure},
};

static CALLS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    opentelemetry::global::meter("shardwright")
        .u64_counter("aws_api_calls")
        .with_description("calls of the AWS API by operation and outcome")
        .build()
});

/// Which time limit a call is under.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lane {
    /// Small questions: the general attempt limit.
    Ask,
    /// The bulk of the data: `GetRecords` of a source, `PutRecords` of a sink.
    Bulk,
}

#[derive(Debug)]
struct Endpoint {
    url: Option<String>,
    ask: Client,
    bulk: Client,
}

/// The service of one stream. Shared by all tasks of a source or sink.
pub(crate) struct Service {
    access: Access,
    bulk_limit: Duration,
    endpoints: OnceCell<Vec<Endpoint>>,
    current: AtomicUsize,
}

impl Service {
    /// Nothing happens before the first call. `bulk_limit` is the time one bulk call may take.
    pub(crate) fn new(access: Access, bulk_limit: Duration) -> Self {
        Self { access, bulk_limit, endpoints: OnceCell::new(), current: AtomicUsize::new(0) }
    }

    /// Which stream, where, and as whom.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Calls `request` once; once per endpoint as long as none can be reached. `what` says in words what fails if it fails.
    pub(crate) async fn call<T, E, F, Fut>(
        &self,
        lane: Lane,
        operation: &'static str,
        what: impl Fn() -> String,
        request: F,
    ) -> Result<T>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let others = self.access.endpoints.len().saturating_sub(1);
        for _ in 0..others {
            match self.attempt(lane, operation, &what, &request).await {
                Err(failure) if failure.unreached => {}
                outcome => return outcome.map_err(|failure| failure.error),
            }
        }
        self.attempt(lane, operation, &what, &request).await.map_err(|failure| failure.error)
    }

    /// Calls `request` once, at one endpoint. If that cannot be reached, the next call goes to the next one.
    pub(crate) async fn call_once<T, E, F, Fut>(
        &self,
        lane: Lane,
        operation: &'static str,
        what: impl Fn() -> String,
        request: F,
    ) -> Result<T>
    where
        F: FnOnce(Client) -> Fut,
        Fut: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        self.attempt(lane, operation, &what, request).await.map_err(|failure| failure.error)
    }

    async fn attempt<T, E, F, Fut>(
        &self,
        lane: Lane,
        operation: &'static str,
        what: &impl Fn() -> String,
        request: F,
    ) -> Result<T, Failure>
    where
        F: FnOnce(Client) -> Fut,
        Fut: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let endpoints = self.endpoints.get_or_init(|| self.connect()).await;
        let index = self.current.load(Ordering::Relaxed);
        let endpoint = &endpoints[index % endpoints.len()];
        let client = match lane {
            Lane::Ask => endpoint.ask.clone(),
            Lane::Bulk => endpoint.bulk.clone(),
        };
        let began = Instant::now();
        let failure = match request(client).await {
            Ok(answer) => {
                count(operation, "ok");
                return Ok(answer);
            }
            Err(error) => failure(&what(), endpoint.url.as_deref(), error, began),
        };
        count(operation, failure.error.vendor_code().unwrap_or(failure.error.kind().as_str()));
        if failure.unreached {
            // Only who failed at this endpoint moves everybody on, so that two callers do not skip one between them.
            let next = index.wrapping_add(1);
            let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        Err(failure)
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
                        .timeout_config(self.timeouts(attempt));
                    if let Some(url) = &url {
                        config = config.endpoint_url(url);
                    }
                    Client::from_conf(config.build())
                };
                Endpoint { ask: client(self.access.limits.attempt), bulk: client(self.bulk_limit), url }
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
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(access.region.clone()))
            .retry_config(RetryConfig::disabled())
            // Time limits are set above; a slow but moving 10 MiB answer is no error.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(self.timeouts(access.limits.attempt))
            // One cache, so that the clients of one source do not each ask for credentials.
            .identity_cache(IdentityCache::lazy().load_timeout(access.limits.attempt).build());
        if let Some(profile) = &access.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(keys) = &access.keys {
            let token = keys.token.as_ref().map(|t| t.expose_secret().to_owned());
            loader = loader.credentials_provider(Credentials::new(
                &keys.id,
                keys.secret.expose_secret(),
                token,
                None,
                "options",
            ));
        }
        let config = loader.load().await;
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
