//! The options that say which stream is meant and as whom it is reached. Typed and checked here; no I/O.
//!
//! Secrets are held as `SecretString`, so neither `Debug` nor a log line can print them (I9).

use std::time::Duration;

use connector::{OptionDef, OptionError, OptionKind, Reader};
use secrecy::SecretString;

const MILLIS: OptionKind = OptionKind::Integer { min: 1, max: 86_400_000 };

/// How many options are shared.
pub(crate) const OPTIONS_LEN: usize = 18;

/// What source and sink have in common.
pub(crate) const OPTIONS: [OptionDef; OPTIONS_LEN] = [
    OptionDef::new("stream", OptionKind::Text).aliases(&["kinesis.stream.name"]),
    OptionDef::new("stream.arn", OptionKind::Text),
    OptionDef::new("aws.region", OptionKind::Text).aliases(&["kinesis.stream.region", "region"]),
    OptionDef::new("endpoint", OptionKind::Text).aliases(&["kinesis.endpoint"]),
    OptionDef::new("aws.credentials.access_key_id", OptionKind::Text)
        .aliases(&["kinesis.credentials.access"]),
    OptionDef::secret("aws.credentials.secret_access_key").aliases(&["kinesis.credentials.secret"]),
    OptionDef::secret("aws.credentials.session_token").aliases(&["kinesis.credentials.session_token"]),
    OptionDef::new("aws.credentials.role.arn", OptionKind::Text).aliases(&["kinesis.assumerole.arn"]),
    OptionDef::new("aws.credentials.role.external_id", OptionKind::Text)
        .aliases(&["kinesis.assumerole.external_id"]),
    OptionDef::new("aws.credentials.sts.endpoint", OptionKind::Text),
    OptionDef::new("aws.credentials.use_default_chain", OptionKind::Boolean),
    OptionDef::new("profile", OptionKind::Text),
    OptionDef::new("kinesis.sdk.connect_timeout_ms", MILLIS).default("3000"),
    OptionDef::new("kinesis.sdk.read_timeout_ms", MILLIS),
    OptionDef::new("kinesis.sdk.operation_timeout_ms", MILLIS).default("60000"),
    OptionDef::new("kinesis.sdk.operation_attempt_timeout_ms", MILLIS).default("10000"),
    OptionDef::new("kinesis.sdk.init_backoff_ms", MILLIS).default("100"),
    OptionDef::new("kinesis.sdk.max_backoff_ms", MILLIS).default("10000"),
];

/// The stream, as requests name it.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// Its name.
    pub name: String,
    /// Its ARN, if it was given: needed for a stream of another account.
    pub arn: Option<String>,
}

/// Long-lived or session keys.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub id: String,
    pub secret: SecretString,
    pub token: Option<SecretString>,
}

/// A role that is assumed, with whatever credentials there are, before the first call and again before it expires.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub arn: String,
    pub external_id: Option<String>,
}

/// How long things may take. The SDK's own defaults limit nothing but connecting (docs/kinesis.md 3.6).
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub connect: Duration,
    pub read: Option<Duration>,
    pub operation: Duration,
    pub attempt: Duration,
    /// True when the user set `attempt`: then it also holds for reads and writes, which have defaults of their own.
    pub attempt_given: bool,
    pub backoff_first: Duration,
    pub backoff_cap: Duration,
}

/// Which stream, where, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub stream: Stream,
    pub region: String,
    /// Tried in this order; empty means the region's own.
    pub endpoints: Vec<String>,
    pub keys: Option<Keys>,
    pub profile: Option<String>,
    pub role: Option<Role>,
    pub sts_endpoint: Option<String>,
    pub default_chain: bool,
    pub limits: Limits,
}

impl Access {
    /// Reads the shared options.
    pub(crate) fn read(options: &mut Reader) -> Result<Self, OptionError> {
        let (stream, arn_region) = stream(options)?;
        let region = options.text("aws.region")?.filter(|r| !r.is_empty()).or(arn_region);
        let access = Self {
            stream,
            region: region.ok_or_else(|| OptionError::missing("aws.region"))?,
            endpoints: endpoints("endpoint", options.text("endpoint")?)?,
            keys: keys(options)?,
            profile: options.text("profile")?,
            role: role(options)?,
            sts_endpoint: endpoints(
                "aws.credentials.sts.endpoint",
                options.text("aws.credentials.sts.endpoint")?,
            )?
            .into_iter()
            .next(),
            default_chain: options.boolean("aws.credentials.use_default_chain")?.unwrap_or(false),
            limits: limits(options)?,
        };
        if access.keys.is_some() && access.profile.is_some() {
            return Err(OptionError::config("profile and static credentials are mutually exclusive"));
        }
        if access.keys.is_some() && access.default_chain {
            return Err(OptionError::config(
                "aws.credentials.use_default_chain and static credentials are mutually exclusive",
            ));
        }
        Ok(access)
    }
}

fn stream(options: &mut Reader) -> Result<(Stream, Option<String>), OptionError> {
    let (name, arn) = match (options.text("stream")?, options.text("stream.arn")?) {
        (Some(text), None) if text.starts_with("arn:") => ("stream", text),
        (None, Some(text)) => ("stream.arn", text),
        (Some(text), None) if !text.is_empty() => {
            if !is_stream_name(&text) {
                return Err(OptionError::invalid("stream", "a stream name or ARN", &text));
            }
            return Ok((Stream { name: text, arn: None }, None));
        }
        (Some(_), Some(_)) => {
            return Err(OptionError::config("stream and stream.arn are mutually exclusive"));
        }
        _ => return Err(OptionError::missing("stream")),
    };
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", _, "kinesis", region, _, resource] => match resource.strip_prefix("stream/") {
            Some(stream) if is_stream_name(stream) && !region.is_empty() => {
                Ok((Stream { name: stream.to_owned(), arn: Some(arn.clone()) }, Some((*region).to_owned())))
            }
            _ => Err(OptionError::invalid(name, "the ARN of a stream", &arn)),
        },
        _ => Err(OptionError::invalid(name, "the ARN of a stream", &arn)),
    }
}

fn is_stream_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// A comma list of `http://host:port`, `https://host` or `host:port`.
fn endpoints(option: &str, text: Option<String>) -> Result<Vec<String>, OptionError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let wrong = || OptionError::invalid(option, "url", &text);
    let urls: Vec<String> = text
        .split(',')
        .map(str::trim)
        .map(|one| {
            let url = if one.contains("://") { one.to_owned() } else { format!("http://{one}") };
            let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
            let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
            let well = !host.is_empty()
                && !host.starts_with(':')
                && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c));
            if well { Ok(url) } else { Err(wrong()) }
        })
        .collect::<Result<_, _>>()?;
    Ok(urls)
}

fn keys(options: &mut Reader) -> Result<Option<Keys>, OptionError> {
    let id = options.text("aws.credentials.access_key_id")?;
    let secret = options.secret("aws.credentials.secret_access_key")?;
    let token = options.secret("aws.credentials.session_token")?;
    match (id, secret) {
        (Some(id), Some(secret)) => Ok(Some(Keys { id, secret, token })),
        (None, None) if token.is_none() => Ok(None),
        _ => Err(OptionError::config("Both `access_key` and `secret_key` must be provided")),
    }
}

fn role(options: &mut Reader) -> Result<Option<Role>, OptionError> {
    let external_id = options.text("aws.credentials.role.external_id")?;
    match options.text("aws.credentials.role.arn")? {
        Some(arn) if arn.starts_with("arn:") && arn.contains(":role/") => Ok(Some(Role { arn, external_id })),
        Some(other) => {
            Err(OptionError::invalid("aws.credentials.role.arn", "arn:aws:iam::ACCOUNT:role/NAME", &other))
        }
        None if external_id.is_some() => {
            Err(OptionError::config("aws.credentials.role.external_id requires aws.credentials.role.arn"))
        }
        None => Ok(None),
    }
}

fn limits(options: &mut Reader) -> Result<Limits, OptionError> {
    let mut millis = |name: &str| options.integer(name).map(|ms| ms.map(Duration::from_millis));
    let attempt = millis("kinesis.sdk.operation_attempt_timeout_ms")?;
    let backoff_first = millis("kinesis.sdk.init_backoff_ms")?.unwrap_or(Duration::from_millis(100));
    Ok(Limits {
        connect: millis("kinesis.sdk.connect_timeout_ms")?.unwrap_or(Duration::from_secs(3)),
        read: millis("kinesis.sdk.read_timeout_ms")?,
        operation: millis("kinesis.sdk.operation_timeout_ms")?.unwrap_or(Duration::from_secs(60)),
        attempt: attempt.unwrap_or(Duration::from_secs(10)),
        attempt_given: attempt.is_some(),
        backoff_first,
        backoff_cap: millis("kinesis.sdk.max_backoff_ms")?
            .unwrap_or(Duration::from_secs(10))
            .max(backoff_first),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Access, String> {
        static DEFS: [OptionDef; OPTIONS_LEN] = OPTIONS;
        let options = pairs.iter().copied().collect();
        let mut reader = Reader::new(&options, &DEFS).map_err(|e| e.to_string())?;
        Access::read(&mut reader).map_err(|e| e.to_string())
    }

    fn refused(pairs: &[(&str, &str)]) -> String {
        let mut all = vec![("stream", "in"), ("region", "eu-west-1")];
        all.extend_from_slice(pairs);
        read(&all).unwrap_err()
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(read(&[("region", "eu-west-1")]).unwrap_err(), "missing field `stream`");
        assert_eq!(read(&[("stream", "in")]).unwrap_err(), "missing field `aws.region`");
    }

    #[test]
    fn a_stream_may_be_an_arn_and_brings_its_region() {
        let arn = "arn:aws:kinesis:us-west-2:123456789012:stream/clicks";
        for option in ["stream", "stream.arn"] {
            let access = read(&[(option, arn)]).unwrap();
            assert_eq!((access.stream.name.as_str(), access.region.as_str()), ("clicks", "us-west-2"));
            assert_eq!(access.stream.arn.as_deref(), Some(arn));
        }
        let error = read(&[("stream", "arn:aws:s3:::bucket")]).unwrap_err();
        assert!(error.contains("invalid value for option `stream`"), "{error}");
        assert!(read(&[("stream", "a b"), ("region", "r")]).unwrap_err().contains("`stream`"));
    }

    #[test]
    fn endpoints_are_a_list_with_or_without_scheme() {
        let access =
            read(&[("stream", "in"), ("region", "r"), ("endpoint", "127.0.0.1:4567, https://k.example")]);
        assert_eq!(access.unwrap().endpoints, ["http://127.0.0.1:4567", "https://k.example"]);
        for wrong in ["", "ftp://x", "http://", "a b", "http://:80"] {
            let error = refused(&[("endpoint", wrong)]);
            assert!(error.starts_with("invalid value for option `endpoint`"), "{wrong}: {error}");
        }
    }

    #[test]
    fn credentials_that_contradict_each_other_are_refused() {
        let both = "Both `access_key` and `secret_key` must be provided";
        assert_eq!(refused(&[("aws.credentials.access_key_id", "a")]), both);
        assert_eq!(refused(&[("kinesis.credentials.secret", "s")]), both);
        assert_eq!(refused(&[("aws.credentials.session_token", "t")]), both);
        assert_eq!(
            refused(&[("aws.credentials.role.external_id", "x")]),
            "aws.credentials.role.external_id requires aws.credentials.role.arn"
        );
        let error = refused(&[("kinesis.assumerole.arn", "role")]);
        assert!(error.contains("invalid value for option `aws.credentials.role.arn`"), "{error}");
        let keys =
            [("kinesis.credentials.access", "a"), ("kinesis.credentials.secret", "s"), ("profile", "p")];
        assert_eq!(refused(&keys), "profile and static credentials are mutually exclusive");
    }

    #[test]
    fn secrets_are_not_in_debug() {
        let access = read(&[
            ("stream", "in"),
            ("region", "r"),
            ("aws.credentials.access_key_id", "AKIA"),
            ("aws.credentials.secret_access_key", "hunter2"),
            ("aws.credentials.session_token", "hunter2"),
        ])
        .unwrap();
        assert!(!format!("{access:?}").contains("hunter2"));
    }
}
