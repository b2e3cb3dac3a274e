//! What an error of the service, or on the way to it, asks of the caller. The one place where AWS error codes become an
//! [`ErrorKind`]. Codes: <https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html> and each operation's page.

use std::{error::Error as StdError, io, time::Instant};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use connector::{Error, ErrorKind};

/// What to do about an error code. `status` decides about codes that nobody has seen before.
pub(crate) fn kind_of(code: &str, status: Option<u16>) -> ErrorKind {
    match code {
        "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "KMSThrottlingException" => ErrorKind::Throttled,
        // A key of another team may be disabled and enabled again: KMS is waited out like an outage
        // (docs/kinesis.md 3.11).
        "KMSDisabledException"
        | "KMSInvalidStateException"
        | "KMSAccessDeniedException"
        | "KMSNotFoundException"
        | "KMSOptInRequired"
        | "InternalFailure"
        | "InternalFailureException"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "ResourceInUseException" => ErrorKind::Unavailable,
        "AccessDeniedException"
        | "AccessDenied"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "NotAuthorized"
        | "OptInRequired" => ErrorKind::Denied,
        _ => match status {
            Some(429) => ErrorKind::Throttled,
            Some(500..) => ErrorKind::Unavailable,
            Some(401 | 403) => ErrorKind::Denied,
            _ => ErrorKind::Config,
        },
    }
}

/// An error that the service itself put into an answer.
pub(crate) fn code_error(what: &str, code: &str, message: &str, status: Option<u16>) -> Error {
    let text = if message.is_empty() { code } else { message };
    Error::new(kind_of(code, status), format!("{what}: {text}")).code(code.to_owned())
}

/// What came of a request, besides an answer.
pub(crate) struct Failure {
    pub error: Error,
    /// No connection was made, so another endpoint may be tried and nothing was sent.
    pub unreached: bool,
}

/// Translates the SDK's error. `began` is when the attempt was started: the error says so if the request may have been
/// carried out (P12).
pub(crate) fn failure<E>(what: &str, endpoint: Option<&str>, error: SdkError<E>, began: Instant) -> Failure
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let place = endpoint.map(|url| format!(" at {}", model::mask_url(url))).unwrap_or_default();
    if let SdkError::ServiceError(answer) = &error {
        let status = answer.raw().status().as_u16();
        let meta = answer.err().meta();
        let code = meta.code().unwrap_or_default();
        let mut error = match (code, meta.message().unwrap_or_default()) {
            ("", "") => Error::new(kind_of("", Some(status)), format!("{what}{place}: http status {status}")),
            ("", message) => Error::new(kind_of("", Some(status)), format!("{what}: {message}")),
            (code, message) => code_error(what, code, message, Some(status)),
        };
        // What the service answers, it has finished. A proxy in between gave up on something that may still go on.
        if matches!(status, 502 | 504) || (status >= 500 && code.is_empty()) {
            error = error.ambiguous_since(began);
        }
        return Failure { error, unreached: false };
    }
    if let Some(refusal) = credentials(what, &error) {
        return Failure { error: refusal, unreached: false };
    }
    let unreached = was_unreached(&error);
    let cause = innermost(&error);
    let mut plain = Error::new(ErrorKind::Unavailable, format!("{what}{place}: {cause}"));
    if matches!(error, SdkError::ConstructionFailure(_)) {
        plain = Error::new(ErrorKind::Bug, format!("{what}: request cannot be built: {cause}"));
    } else if !unreached {
        plain = plain.ambiguous_since(began);
    }
    Failure { error: plain, unreached }
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&e| e.source())
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    let texts: Vec<String> = chain(error).map(ToString::to_string).collect();
    texts.iter().rev().find(|text| !text.is_empty()).cloned().unwrap_or_default()
}

/// True when it is sure that nothing was sent: refused, no route, name not found, or no connection in time. In doubt false,
/// which makes the attempt ambiguous: safe, only slower.
fn was_unreached<E>(error: &SdkError<E>) -> bool
where
    E: StdError + 'static,
{
    let SdkError::DispatchFailure(dispatch) = error else { return false };
    let Some(connector) = dispatch.as_connector_error() else { return false };
    chain(connector).any(|cause| {
        if let Some(client) = cause.downcast_ref::<hyper_util::client::legacy::Error>() {
            return client.is_connect();
        }
        if let Some(refused) = cause.downcast_ref::<io::Error>() {
            return refused.kind() == io::ErrorKind::ConnectionRefused;
        }
        let text = cause.to_string();
        text.contains("HTTP connect timeout") || text.contains("failed to lookup address")
    })
}

/// What to do where nobody finds credentials.
const WAY_OUT: &str = "give aws.credentials.access_key_id and aws.credentials.secret_access_key, a profile, or run where the \
                       default chain finds some";

fn credentials<E>(what: &str, error: &SdkError<E>) -> Option<Error>
where
    E: StdError + 'static,
{
    let refusal = chain(error).find_map(|cause| cause.downcast_ref::<CredentialsError>())?;
    let mut way_out = format!("; {WAY_OUT}");
    let kind = match refusal {
        CredentialsError::CredentialsNotLoaded(_) => {
            return Some(Error::new(
                ErrorKind::Denied,
                format!("{what}: no AWS credentials found; {WAY_OUT}"),
            ));
        }
        CredentialsError::InvalidConfiguration(_) => ErrorKind::Denied,
        CredentialsError::ProviderTimedOut(_) => ErrorKind::Unavailable,
        _ => match chain(refusal).find_map(|cause| cause.downcast_ref::<AssumeRoleError>()) {
            // Credentials were found; the role is what was refused.
            Some(role) => {
                way_out.clear();
                kind_of(role.meta().code().unwrap_or_default(), None)
            }
            None => ErrorKind::Unavailable,
        },
    };
    let kind = if kind == ErrorKind::Config { ErrorKind::Denied } else { kind };
    Some(Error::new(kind, format!("{what}: cannot get credentials: {}{way_out}", innermost(refusal))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_to_do() {
        for (code, status, kind) in [
            ("ProvisionedThroughputExceededException", Some(400), ErrorKind::Throttled),
            ("KMSThrottlingException", Some(400), ErrorKind::Throttled),
            ("KMSDisabledException", Some(400), ErrorKind::Unavailable),
            ("InternalFailure", None, ErrorKind::Unavailable),
            ("ResourceNotFoundException", Some(400), ErrorKind::Config),
            ("AccessDeniedException", Some(400), ErrorKind::Denied),
            ("SomethingNew", Some(503), ErrorKind::Unavailable),
            ("SomethingNew", Some(400), ErrorKind::Config),
        ] {
            assert_eq!(kind_of(code, status), kind, "{code}");
        }
    }
}
