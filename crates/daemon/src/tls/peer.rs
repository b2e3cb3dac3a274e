//! Who is at the other end of a connection, as the transport knows it: the address, and the names in a certificate that was
//! shown and verified. What those names may do is for others to say; the session, the exchange and calls that were passed on
//! ask here whether it is one of the cluster.

use std::{net::SocketAddr, sync::Arc};

/// What a listener demands of those who say that they belong to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Demands {
    /// A certificate of `tls.ca_path`.
    pub certificate: bool,
    /// With the right name in it (`tls.verify_names`).
    pub names: bool,
}

/// The other end of a connection. In the extensions of every request that came over a socket.
#[derive(Clone, Debug)]
pub struct Peer {
    address: SocketAddr,
    secured: bool,
    /// `None` without a certificate.
    names: Option<Arc<[String]>>,
    demands: Demands,
}

impl Peer {
    /// Over a connection without TLS, where nothing is demanded.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, secured: false, names: None, demands: Demands::default() }
    }

    /// Over TLS; `names` are those of the certificate, if a verified one was shown.
    #[must_use]
    pub fn secured(address: SocketAddr, names: Option<Vec<String>>, demands: Demands) -> Self {
        Self { address, secured: true, names: names.map(Into::into), demands }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the connection is TLS.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.secured
    }

    /// Whether it showed a certificate of `tls.ca_path`.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.names.is_some()
    }

    /// The names in its certificate: DNS names first, then the common name. Empty without a certificate.
    #[must_use]
    pub fn names(&self) -> &[String] {
        self.names.as_deref().unwrap_or_default()
    }

    /// What the listener demands.
    #[must_use]
    pub fn demands(&self) -> Demands {
        self.demands
    }

    /// Whether it may say that it belongs to the cluster.
    ///
    /// # Errors
    /// Why not, in words for whoever is at the other end.
    pub fn check_member(&self) -> Result<(), String> {
        if self.demands.certificate && !self.is_verified() {
            return Err("a certificate of this cluster's authority is needed here: set tls.cert_path, tls.key_path and \
                        tls.ca_path"
                .to_owned());
        }
        Ok(())
    }

    /// Whether it may say that it is the worker `name`.
    ///
    /// # Errors
    /// Why not, in words for whoever is at the other end.
    pub fn check_name(&self, name: &str) -> Result<(), String> {
        self.check_member()?;
        if self.demands.names && !self.names().iter().any(|known| known == name) {
            return Err(format!(
                "its certificate is for {}, and not for `{name}` (tls.verify_names)",
                listed(self.names())
            ));
        }
        Ok(())
    }
}

/// Names for a message.
pub(super) fn listed(names: &[String]) -> String {
    match names {
        [] => "no name".to_owned(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Demands = Demands { certificate: true, names: true };

    fn address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 7))
    }

    #[test]
    fn without_tls_nothing_is_demanded() {
        let peer = Peer::plain(address());
        assert!(peer.check_name("anybody").is_ok());
        assert!(!peer.is_secured() && !peer.is_verified());
    }

    #[test]
    fn without_a_certificate_nobody_is_of_the_cluster() {
        let peer = Peer::secured(address(), None, Demands { certificate: true, names: false });
        assert!(peer.check_member().is_err());
        assert!(peer.check_name("worker-0").unwrap_err().contains("tls.cert_path"));
    }

    #[test]
    fn a_name_must_be_in_the_certificate_as_it_is() {
        let peer = Peer::secured(address(), Some(vec!["worker-0".to_owned(), "w".to_owned()]), ALL);
        assert!(peer.check_name("worker-0").is_ok() && peer.check_name("w").is_ok());
        for other in ["worker-00", "worker-", "WORKER-0", "worker-0.", ""] {
            let error = peer.check_name(other).unwrap_err();
            assert!(error.contains("`worker-0`, `w`"), "{error}");
        }
        let nameless = Peer::secured(address(), Some(Vec::new()), ALL);
        assert!(nameless.check_member().is_ok());
        assert!(nameless.check_name("worker-0").unwrap_err().contains("no name"));
    }

    #[test]
    fn without_verify_names_the_authority_is_enough() {
        let demands = Demands { certificate: true, names: false };
        let peer = Peer::secured(address(), Some(vec!["shared".to_owned()]), demands);
        assert!(peer.check_name("worker-0").is_ok());
    }
}
