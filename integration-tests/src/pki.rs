//! An authority of a test's own, and what it issues: PEM files for the processes of a cluster, and what a client of the admin
//! API needs to speak to them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair,
};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// An authority, with a folder for what it issues.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
}

/// A certificate, its key and the authority that its owner trusts.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority.
    pub ca: PathBuf,
}

impl Authority {
    /// A new one, in this folder.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, format!("authority in {}", dir.display()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(dir.join("ca.pem"), issuer.pem())?;
        Ok(Self { issuer, dir: dir.to_owned() })
    }

    /// The file with its certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Issues a certificate for `name` on this machine, valid both ways, in files that are called `file`. What was there before
    /// is replaced.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn issue(&self, file: &str, name: &str) -> Result<Issued> {
        self.issue_with(file, name, |_| {})
    }

    /// The same, with what `change` makes of it.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_with(
        &self,
        file: &str,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<Issued> {
        let names = [name, "localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = DistinguishedName::new();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let path = |end: &str| self.dir.join(format!("{file}{end}"));
        let issued = Issued { cert: path(".pem"), key: path(".key"), ca: self.ca() };
        std::fs::write(&issued.cert, certificate.pem())?;
        std::fs::write(&issued.key, key.serialize_pem())?;
        Ok(issued)
    }

    /// What a client needs that shows no certificate.
    #[must_use]
    pub fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.issuer.pem()))
    }
}

impl Issued {
    /// The settings of a process that shows it.
    #[must_use]
    pub fn settings(&self) -> Vec<String> {
        [("cert_path", &self.cert), ("key_path", &self.key), ("ca_path", &self.ca)]
            .into_iter()
            .flat_map(|(key, path)| ["--set".to_owned(), format!("tls.{key}={}", path.display())])
            .collect()
    }

    /// What a client needs that shows it.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn client(&self) -> Result<ClientTlsConfig> {
        let identity = Identity::from_pem(std::fs::read(&self.cert)?, std::fs::read(&self.key)?);
        let ca = Certificate::from_pem(std::fs::read(&self.ca)?);
        Ok(ClientTlsConfig::new().ca_certificate(ca).identity(identity))
    }
}
