//! What rustls works with, made of the three files at once: nothing of it is used before all of it fits together.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier},
    sign::SingleCertAndKey,
};

use super::{
    certificate::Said,
    files::{self, Named, Pair},
};

/// Before anything else is agreed on.
const HTTP2: &[u8] = b"h2";

/// Which files there are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Files {
    pub(super) cert: Named,
    pub(super) key: Named,
    pub(super) ca: Named,
}

/// What they hold.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

impl Files {
    /// Reads all three.
    pub(super) fn read(&self) -> Result<Contents, String> {
        Ok(Contents { cert: self.cert.read()?, key: self.key.read()?, ca: self.ca.read()? })
    }
}

/// Everything that connections are made with, at one moment.
pub(super) struct Material {
    /// A client's certificate is verified if there is one.
    pub(super) server_asks: Arc<ServerConfig>,
    /// There must be one.
    pub(super) server_demands: Arc<ServerConfig>,
    /// The server's name must be the host that was dialed.
    pub(super) client_by_host: Arc<ClientConfig>,
    /// The authority is looked at, the name is not (here).
    pub(super) client_by_authority: Arc<ClientConfig>,
    /// What our own certificate says.
    pub(super) said: Said,
    /// When the first of the authorities expires.
    pub(super) authorities_expire: i64,
}

impl Material {
    /// Understands the files.
    pub(super) fn of(files: &Files, contents: &Contents) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let pair = files::pair((&files.cert, &contents.cert), (&files.key, &contents.key), &provider)?;
        let (roots, authorities_expire) = files::authorities((&files.ca, &contents.ca))?;
        let roots = Arc::new(roots);
        let odd = |error: &dyn std::fmt::Display| format!("the TLS settings do not fit together: {error}");
        let verifier =
            || WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let demands = verifier().build().map_err(|error| odd(&error))?;
        let asks = verifier().allow_unauthenticated().build().map_err(|error| odd(&error))?;
        let server = |verifier| server(&pair, verifier, &provider).map_err(|error| odd(&error));
        let by_host = by_host(&roots, &provider).map_err(|error| odd(&error))?;
        let by_authority = Arc::new(ByAuthority {
            roots: Arc::clone(&roots),
            algorithms: provider.signature_verification_algorithms,
        });
        let client = |verifier| client(Some(&pair), verifier, &provider).map_err(|error| odd(&error));
        Ok(Self {
            server_asks: server(asks)?,
            server_demands: server(demands)?,
            client_by_host: client(by_host)?,
            client_by_authority: client(by_authority)?,
            said: pair.said.clone(),
            authorities_expire,
        })
    }
}

fn server(
    pair: &Pair,
    verifier: Arc<dyn rustls::server::danger::ClientCertVerifier>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, Error> {
    let shown = Arc::new(SingleCertAndKey::from(Arc::clone(&pair.certified)));
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![HTTP2.to_vec()];
    // A session that is resumed shows no certificate again: one that expired meanwhile, or whose authority went, would pass.
    // Connections live long here, so there is nothing to gain.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The verifier that looks at the host's name too.
pub(super) fn by_host(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::client::VerifierBuilderError> {
    Ok(WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build()?)
}

/// How a client speaks; without a pair it shows no certificate.
pub(super) fn client(
    pair: Option<&Pair>,
    verifier: Arc<dyn ServerCertVerifier>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ClientConfig>, Error> {
    // "Dangerous" is what rustls calls a verifier of one's own; both verifiers here check the whole chain.
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match pair {
        Some(pair) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&pair.certified))))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Verifies that a certificate is of our authority, valid now and one for servers. Its names are compared by whoever dialed,
/// with what is expected there: the name of a worker, which is no host, or nothing.
#[derive(Debug)]
struct ByAuthority {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ByAuthority {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(
            &leaf,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
