//! The registered consumers of a stream: found, made, removed. A consumer belongs to one sink; the leader makes and removes it,
//! workers look its ARN up by its name and remember it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_sdk_kinesis::types::ConsumerStatus;
use connector::{Error, ErrorKind, Registered, Result};
use model::SinkSpec;
use tokio::sync::OnceCell;

use super::{
    super::{
        client::{Client, NOT_FOUND},
        config::{Consumer, Fanout},
    },
    lines::Lines,
};

/// The code of our own error that says: nobody has registered this consumer.
pub(super) const NOT_REGISTERED: &str = "ConsumerNotRegistered";
/// The code of an answer that says: it exists, or is being made or removed; or another subscription is open.
pub(super) const IN_USE: &str = "ResourceInUseException";
/// The code of an answer that says: too many consumers, or too many requests.
const LIMIT: &str = "LimitExceededException";
/// The same code means both: when it is said so often in a row, it is the number of consumers.
const LIMIT_ASKS: u32 = 3;
/// `RegisterStreamConsumer` may be called five times a second by an account.
const LIMIT_PAUSE: Duration = Duration::from_secs(1);

/// The consumers of one source.
pub(crate) struct Consumers {
    pub(super) config: Fanout,
    stream_arn: OnceCell<String>,
    known: Mutex<HashMap<String, Arc<str>>>,
    pub(super) lines: Arc<Lines>,
}

/// A consumer as the service describes it.
struct Described {
    arn: String,
    status: ConsumerStatus,
}

impl Consumers {
    pub(crate) fn new(config: Fanout) -> Self {
        Self { config, stream_arn: OnceCell::new(), known: Mutex::default(), lines: Arc::default() }
    }

    /// The name of the consumer of `sink`, or its ARN if that was given.
    pub(super) fn name(&self, sink: &SinkSpec) -> String {
        match &self.config.consumer {
            Consumer::Derived => format!("shardwright-{}", sink.id),
            Consumer::Named(name) => {
                let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
                let own = |c| if allowed(c) { c } else { '_' };
                let name = name.replace("{sink}", &sink.name.chars().map(own).collect::<String>());
                // All is ASCII; a name that is cut may meet another one, which is then refused.
                name.chars().take(128).collect()
            }
            Consumer::Arn(arn) => arn.clone(),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Arc<str>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ARN to subscribe with. Errors: transient, with the code [`NOT_REGISTERED`], when it cannot be used yet.
    pub(super) async fn arn(&self, client: &Client, name: &str) -> Result<Arc<str>> {
        if is_arn(name) {
            return Ok(name.into());
        }
        if let Some(arn) = self.known().get(name) {
            return Ok(Arc::clone(arn));
        }
        let stream = client.stream();
        match self.describe(client, name).await? {
            Some(Described { arn, status: ConsumerStatus::Active }) => {
                let arn: Arc<str> = arn.into();
                self.known().insert(name.to_owned(), Arc::clone(&arn));
                Ok(arn)
            }
            other => {
                let how = other.map_or("not registered".to_owned(), |d| format!("in state {}", d.status));
                let text = format!("consumer `{name}` of stream `{stream}` is {how}");
                Err(Error::new(ErrorKind::Unavailable, text).code(NOT_REGISTERED))
            }
        }
    }

    /// It may have been removed: look it up again next time.
    pub(super) fn forget(&self, name: &str) {
        self.known().remove(name);
    }

    pub(super) async fn find(&self, client: &Client, name: &str) -> Result<Registered> {
        Ok(match self.describe(client, name).await? {
            Some(Described { status: ConsumerStatus::Active, .. }) => Registered::Ready,
            Some(_) => Registered::Pending,
            None if is_arn(name) => {
                let text = format!("consumer `{name}` of stream `{}` does not exist", client.stream());
                return Err(Error::new(ErrorKind::Config, text));
            }
            None => Registered::Absent,
        })
    }

    pub(super) async fn register(&self, client: &Client, name: &str) -> Result<()> {
        let stream_arn = self.stream_arn(client).await?;
        let what = || format!("failed to register consumer `{name}` of stream `{}`", client.stream());
        for ask in 1.. {
            let asked = client.service.call("RegisterStreamConsumer", what, |client| {
                client.register_stream_consumer().stream_arn(stream_arn).consumer_name(name).send()
            });
            match asked.await {
                Ok(_) => break,
                Err(error) if error.vendor_code() == Some(IN_USE) => break,
                Err(error) if error.vendor_code() == Some(LIMIT) && ask < LIMIT_ASKS => {
                    tokio::time::sleep(LIMIT_PAUSE).await;
                }
                Err(error) if error.vendor_code() == Some(LIMIT) => {
                    let text = format!(
                        "{error}; a stream has room for a limited number of consumers (20, unless AWS allows more): remove one \
                         that nobody uses, or read with kinesis.consumer.mode = 'polling'"
                    );
                    return Err(Error::new(ErrorKind::Config, text).code(LIMIT));
                }
                Err(error) => return Err(with_way_out(error)),
            }
        }
        Ok(())
    }

    pub(super) async fn deregister(&self, client: &Client, name: &str) -> Result<()> {
        self.forget(name);
        let stream_arn = self.stream_arn(client).await?;
        let what = || format!("failed to deregister consumer `{name}` of stream `{}`", client.stream());
        let asked = client.service.call("DeregisterStreamConsumer", what, |client| {
            client.deregister_stream_consumer().stream_arn(stream_arn).consumer_name(name).send()
        });
        match asked.await {
            Err(error) if error.vendor_code() != Some(NOT_FOUND) => Err(with_way_out(error)),
            _ => Ok(()),
        }
    }

    async fn describe(&self, client: &Client, name: &str) -> Result<Option<Described>> {
        let (arn, stream_arn, named) = if is_arn(name) {
            (Some(name), None, None)
        } else {
            (None, Some(self.stream_arn(client).await?), Some(name))
        };
        let what = || format!("failed to describe consumer `{name}` of stream `{}`", client.stream());
        let asked = client.service.call("DescribeStreamConsumer", what, |client| {
            client
                .describe_stream_consumer()
                .set_consumer_arn(arn.map(str::to_owned))
                .set_stream_arn(stream_arn.map(str::to_owned))
                .set_consumer_name(named.map(str::to_owned))
                .send()
        });
        match asked.await {
            Ok(answer) => Ok(answer
                .consumer_description
                .map(|consumer| Described { arn: consumer.consumer_arn, status: consumer.consumer_status })),
            Err(error) if error.vendor_code() == Some(NOT_FOUND) => Ok(None),
            Err(error) => Err(with_way_out(error)),
        }
    }

    /// Consumers are asked for by the ARN of their stream.
    async fn stream_arn<'a>(&'a self, client: &'a Client) -> Result<&'a str> {
        let stream = &client.service.access().stream;
        if let Some(arn) = &stream.arn {
            return Ok(arn);
        }
        let ask = || async {
            let what = || format!("failed to describe stream `{}`", stream.name);
            let asked = client.service.call("DescribeStreamSummary", what, |client| {
                client.describe_stream_summary().stream_name(&stream.name).send()
            });
            let summary = asked.await?.stream_description_summary;
            summary.map(|summary| summary.stream_arn).ok_or_else(|| {
                Error::new(ErrorKind::Bug, format!("stream `{}` was described without its ARN", stream.name))
            })
        };
        self.stream_arn.get_or_try_init(ask).await.map(String::as_str)
    }
}

fn is_arn(name: &str) -> bool {
    name.starts_with("arn:")
}

/// Who is not allowed to do something is told what to allow, and how to do without.
pub(super) fn with_way_out(error: Error) -> Error {
    if error.kind() != ErrorKind::Denied {
        return error;
    }
    let text = format!(
        "{error}; enhanced fan-out needs kinesis:DescribeStreamConsumer and kinesis:SubscribeToShard, and \
         kinesis:RegisterStreamConsumer and kinesis:DeregisterStreamConsumer unless kinesis.consumer.arn names a consumer; \
         kinesis.consumer.mode = 'polling' does without"
    );
    let code = error.vendor_code().unwrap_or("AccessDeniedException").to_owned();
    Error::new(ErrorKind::Denied, text).code(code)
}
