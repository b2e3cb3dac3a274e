//! What a certificate says of itself: its names, when it is valid, what it may be used for. Signatures are none of its
//! business: those were, or will be, verified by rustls.

use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, time::ASN1Time};

/// What a certificate says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Said {
    /// DNS names first, then common names; each once.
    pub(super) names: Vec<String>,
    /// Seconds since 1970.
    pub(super) not_before: i64,
    /// Seconds since 1970.
    pub(super) not_after: i64,
    /// May be shown by a server.
    pub(super) server: bool,
    /// May be shown by a client.
    pub(super) client: bool,
}

/// Reads a DER certificate; the error says what is wrong with it.
pub(super) fn read(der: &[u8]) -> Result<Said, String> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    if !rest.is_empty() {
        return Err("there is something behind the certificate".to_owned());
    }
    let mut names = Vec::new();
    let mut add = |name: &str| {
        // Names are printed: one with a line end in it could forge a line of the log.
        let fits = !name.is_empty() && !name.chars().any(char::is_control);
        if fits && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    };
    if let Some(alternative) = certificate.subject_alternative_name().map_err(|error| error.to_string())? {
        for name in &alternative.value.general_names {
            if let GeneralName::DNSName(name) = name {
                add(name);
            }
        }
    }
    for name in certificate.subject().iter_common_name() {
        if let Ok(name) = name.as_str() {
            add(name);
        }
    }
    let usage = certificate.extended_key_usage().map_err(|error| error.to_string())?;
    let (server, client) = usage.map_or((true, true), |usage| {
        (usage.value.any || usage.value.server_auth, usage.value.any || usage.value.client_auth)
    });
    let validity = certificate.validity();
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    Ok(Said { names, not_before, not_after, server, client })
}

/// A moment for people.
pub(super) fn date(seconds: i64) -> String {
    ASN1Time::from_timestamp(seconds)
        .ok()
        .and_then(|time| time.to_rfc2822().ok())
        .unwrap_or_else(|| format!("second {seconds}"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};

    use super::*;

    fn said(params: CertificateParams) -> Said {
        let key = KeyPair::generate().unwrap();
        read(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn names_are_dns_names_and_then_the_common_name() {
        let mut params =
            CertificateParams::new(vec!["b.example".to_owned(), "a".to_owned(), "127.0.0.1".to_owned()])
                .unwrap();
        params.distinguished_name.push(DnType::CommonName, "worker-0");
        assert_eq!(said(params).names, ["b.example", "a", "worker-0"]);
    }

    #[test]
    fn a_name_that_could_forge_a_line_of_the_log_is_none() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "worker-0\nERROR forged");
        assert_eq!(said(params).names, Vec::<String>::new());
    }

    #[test]
    fn what_it_may_be_used_for_is_said_or_free() {
        let plain = said(CertificateParams::new(Vec::new()).unwrap());
        assert!(plain.server && plain.client);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server = said(params);
        assert!(server.server && !server.client);
    }

    #[test]
    fn what_is_no_certificate_is_said_to_be_none() {
        assert!(read(b"\x30\x03abc").is_err());
        assert!(read(b"").is_err());
    }
}
