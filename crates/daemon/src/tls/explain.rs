//! The errors of TLS in words for people: what the other end did not like, and the way out.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::certificate::date;

/// What went wrong on the side that dialed, where `host` was to be reached.
pub(super) fn dialing(error: io::Error, host: &str) -> io::Error {
    let Some(text) = tls(&error).map(|error| dialed(error, host)) else {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            let text =
                "it closed the connection in the middle of the TLS handshake: does it speak TLS there?";
            return io::Error::new(error.kind(), text);
        }
        return error;
    };
    io::Error::new(error.kind(), text)
}

/// The TLS error inside, if there is one.
pub(super) fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref::<Error>()
}

fn dialed(error: &Error, host: &str) -> String {
    match error {
        Error::InvalidCertificate(error) => theirs(error, host),
        Error::AlertReceived(alert) => ours(*alert),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        )
        | Error::InappropriateMessage { .. } => {
            "it does not speak TLS there: write http:// to speak without".to_owned()
        }
        error => format!("TLS: {error}"),
    }
}

/// What is wrong with the certificate of the other end.
fn theirs(error: &CertificateError, host: &str) -> String {
    match error {
        CertificateError::Expired => "its certificate has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate expired on {}", date(seconds(not_after.as_secs())))
        }
        CertificateError::NotValidYet => "its certificate is not valid yet: is the clock right?".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "its certificate is not valid before {}: is the clock right?",
            date(seconds(not_before.as_secs()))
        ),
        CertificateError::UnknownIssuer => {
            "its certificate is of an authority that is not trusted here: name the right one (--ca, or tls.ca_path)"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "its certificate is not signed by the authority that it names: is the authority (--ca, or tls.ca_path) a newer one \
             of the same name?"
                .to_owned()
        }
        CertificateError::NotValidForName => format!("its certificate is not for `{host}`"),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let presented: Vec<String> = presented.iter().map(|name| readable(name)).collect();
            format!("its certificate is for {}, and not for `{host}`", super::peer::listed(&presented))
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not one for servers (extended key usage)".to_owned()
        }
        CertificateError::Other(error) => format!("its certificate is refused: {error}"),
        error => format!("its certificate is refused: {error:?}"),
    }
}

/// `DnsName("x")` as `x`.
fn readable(name: &str) -> String {
    name.split('"').nth(1).unwrap_or(name).chars().filter(|c| !c.is_control()).collect()
}

/// What the other end says of our certificate.
fn ours(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "it asks for a certificate, and none was shown: name one (--cert and --key, or tls.cert_path and tls.key_path)"
                .to_owned()
        }
        AlertDescription::UnknownCA => {
            "it does not trust the authority of the certificate that was shown".to_owned()
        }
        AlertDescription::DecryptError => {
            "it does not trust the certificate that was shown: the authority of this name has signed it with another key"
                .to_owned()
        }
        AlertDescription::CertificateExpired => "the certificate that was shown has expired".to_owned(),
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            "it refuses the certificate that was shown".to_owned()
        }
        AlertDescription::UnsupportedCertificate => {
            "the certificate that was shown is not one for clients (extended key usage)".to_owned()
        }
        AlertDescription::NoApplicationProtocol => "it speaks TLS, but not HTTP/2 behind it".to_owned(),
        AlertDescription::ProtocolVersion => "it speaks no TLS 1.2 or 1.3".to_owned(),
        alert => format!("it refused the TLS handshake ({alert:?})"),
    }
}

fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// Why a listener turned a connection away, as a label and in words.
pub(super) fn refusing(error: &io::Error) -> (&'static str, String) {
    match tls(error) {
        Some(Error::NoCertificatesPresented) => ("no_certificate", "it showed no certificate".to_owned()),
        Some(Error::InvalidCertificate(error)) => ("certificate", refused(error)),
        Some(Error::AlertReceived(alert)) => ("handshake", format!("it ended the handshake: {alert:?}")),
        Some(error) => ("handshake", error.to_string()),
        None => ("handshake", error.to_string()),
    }
}

fn refused(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "its certificate is of an authority that is not in tls.ca_path".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not one for clients (extended key usage)".to_owned()
        }
        error => format!("its certificate is refused: {error:?}"),
    }
}
