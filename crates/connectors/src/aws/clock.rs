//! The service's clock. A signature is good for five minutes of *its* time, so a machine whose clock is wrong is refused until
//! it signs by what the service's answers, refusals too, say the time is. The SDK does so by itself within one client, from its
//! second attempt on; here it is for the bulk calls, and to know when a second attempt is worth it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use aws_sdk_kinesis::{
    config::{
        ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeDeserializationInterceptorContextRef,
    },
    error::BoxError,
    primitives::{DateTime, DateTimeFormat},
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// Less than this is whole seconds and the time an answer takes.
const NOTABLE: Duration = Duration::from_secs(45);

/// All that talks to one service has one. Shows our own time until an answer says that it is far off.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceClock {
    /// How far the service is ahead of us, in ms.
    ahead: Arc<AtomicI64>,
}

impl ServiceClock {
    /// How far the service is ahead of us, in ms, as far as that is known.
    pub(crate) fn ahead(&self) -> i64 {
        self.ahead.load(Relaxed)
    }

    /// Reads the time in an answer that has just come.
    pub(crate) fn learn(&self, answer: &HttpResponse) {
        let date = answer.headers().get("date").filter(|_| answer.headers().get("age").is_none());
        let told = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        let Some(told) = told.and_then(|told| told.to_millis().ok()) else { return };
        let own = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let ahead = told - i64::try_from(own.as_millis()).unwrap_or(i64::MAX);
        if u128::from(ahead.abs_diff(self.ahead())) > NOTABLE.as_millis() {
            tracing::warn!(
                ahead_s = ahead / 1000,
                "the clock of the service and ours disagree, signing by the service's"
            );
            self.ahead.store(ahead, Relaxed);
        }
    }
}

impl ServiceClock {
    /// The service's time, as far as that is known.
    pub(crate) fn now(&self) -> SystemTime {
        let (now, ahead) = (SystemTime::now(), self.ahead());
        let distance = Duration::from_millis(ahead.unsigned_abs());
        let moved = if ahead < 0 { now.checked_sub(distance) } else { now.checked_add(distance) };
        moved.unwrap_or(now)
    }
}

impl Intercept for ServiceClock {
    fn name(&self) -> &'static str {
        "ServiceClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.learn(context.response());
        Ok(())
    }
}
