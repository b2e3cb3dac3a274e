//! The options of a Kinesis sink: the shared ones of [`crate::aws`], with credentials that must be given.

use std::time::Duration;

use connector::{OptionError, Reader};
use model::Options;

use crate::aws::{self, Access};

/// Every option of the sink.
pub(crate) static OPTIONS: [connector::OptionDef; aws::OPTIONS_LEN] = aws::OPTIONS;

/// A sink's options.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub access: Access,
    /// How long one write may take. Never more than the protocol's `write_attempt_timeout`: later takeovers rely on it (I11).
    pub attempt: Duration,
}

impl Config {
    /// Reads the options.
    pub(crate) fn read(options: &Options) -> Result<Self, OptionError> {
        let mut options = Reader::new(options, &OPTIONS)?;
        let access = Access::read(&mut options)?;
        if access.keys.is_none() && access.profile.is_none() && !access.default_chain {
            return Err(OptionError::missing("aws.credentials.access_key_id"));
        }
        let most = logic::Timing::default().write_attempt_timeout;
        let attempt = if access.limits.attempt_given { access.limits.attempt.min(most) } else { most };
        Ok(Self { access, attempt })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let mut options: Options = [("stream", "out"), ("aws.region", "eu-west-1")].into_iter().collect();
        for (name, value) in pairs {
            options.insert(*name, *value);
        }
        Config::read(&options).map_err(|e| e.to_string())
    }

    #[test]
    fn credentials_must_be_given_or_the_default_chain_asked_for() {
        assert_eq!(read(&[]).unwrap_err(), "missing field `aws.credentials.access_key_id`");
        assert!(read(&[("aws.credentials.use_default_chain", "true")]).is_ok());
        assert!(read(&[("profile", "prod")]).is_ok());
        assert!(read(&[("kinesis.credentials.access", "a"), ("kinesis.credentials.secret", "s")]).is_ok());
    }

    #[test]
    fn a_write_never_takes_longer_than_a_takeover_expects() {
        let attempt = |ms: &str| {
            read(&[("profile", "p"), ("kinesis.sdk.operation_attempt_timeout_ms", ms)]).unwrap().attempt
        };
        assert_eq!(attempt("60000"), Duration::from_secs(5));
        assert_eq!(attempt("100"), Duration::from_millis(100));
    }
}
