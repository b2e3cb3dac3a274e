//! Connections to others: to those of the cluster with the certificate of this process, to a coordinator with what a person
//! gave on the command line, and without TLS where that is what was asked for. Whoever dials gets an error that says what the
//! other end does not like.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::http::Uri;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use super::{
    certificate, explain,
    files::{self, named},
    identity::Tls,
    material,
    peer::listed,
};
use crate::{Error, Result};

/// How long the TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long one of several addresses of a host is waited for before the next is tried beside it.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// What a TLS server answers to what is not TLS: an alert.
const ALERT: [u8; 2] = [0x15, 0x03];

impl Tls {
    /// Reaches another process of the cluster. `name` is the name that its certificate must bear; without one it must be the
    /// host's. With `verify_names` off, the authority is enough.
    ///
    /// # Errors
    /// It cannot be reached, or it is not who it should be.
    pub async fn dial(&self, uri: &Uri, name: Option<&str>) -> io::Result<Dialed> {
        let material = self.material();
        match name {
            None if self.verifies_names() => secure(uri, &material.client_by_host).await,
            None => secure(uri, &material.client_by_authority).await,
            Some(name) => {
                let dialed = secure(uri, &material.client_by_authority).await?;
                if self.verifies_names() {
                    dialed.check_name(name)?;
                }
                Ok(dialed)
            }
        }
    }
}

/// How a person's tool speaks TLS: the host's name is always compared.
#[derive(Clone, Debug)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
}

impl TlsClient {
    /// Reads the files: the authority (those of the machine if absent), and a certificate with its key, if it is to be shown.
    ///
    /// # Errors
    /// A file that cannot be used, or one of the pair without the other.
    pub fn open(ca: Option<&Path>, cert: Option<&Path>, key: Option<&Path>) -> Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = match named("--ca", ca) {
            Some(file) => {
                let bytes = file.read().map_err(Error::config)?;
                files::authorities((&file, &bytes)).map_err(Error::config)?.0
            }
            None => of_the_machine()?,
        };
        let pair = match (named("--cert", cert), named("--key", key)) {
            (None, None) => None,
            (Some(_), None) => return Err(Error::config("--cert needs its private key: add --key FILE")),
            (None, Some(_)) => return Err(Error::config("--key needs its certificate: add --cert FILE")),
            (Some(cert), Some(key)) => {
                let (c, k) = (cert.read().map_err(Error::config)?, key.read().map_err(Error::config)?);
                Some(files::pair((&cert, &c), (&key, &k), &provider).map_err(Error::config)?)
            }
        };
        let odd = |error: &dyn std::fmt::Display| Error::config(format!("TLS cannot be set up: {error}"));
        let verifier = material::by_host(&Arc::new(roots), &provider).map_err(|error| odd(&error))?;
        let config = material::client(pair.as_ref(), verifier, &provider).map_err(|error| odd(&error))?;
        Ok(Self { config })
    }

    /// Reaches a server.
    ///
    /// # Errors
    /// It cannot be reached, or it is not who it should be.
    pub async fn dial(&self, uri: &Uri) -> io::Result<Dialed> {
        secure(uri, &self.config).await
    }
}

fn of_the_machine() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(Error::config("this machine names no authorities that it trusts: say --ca FILE"));
    }
    Ok(roots)
}

/// Reaches a server without TLS; one that speaks TLS is told apart.
///
/// # Errors
/// It cannot be reached.
pub async fn dial_plain(uri: &Uri) -> io::Result<Dialed> {
    let (host, port) = place(uri, 80)?;
    let tcp = connect(&host, port).await?;
    Ok(Dialed { way: Way::Plain { tcp, first: true }, host })
}

async fn secure(uri: &Uri, config: &Arc<ClientConfig>) -> io::Result<Dialed> {
    let (host, port) = place(uri, 443)?;
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("`{host}` is no name of a host"));
    let name = ServerName::try_from(host.clone()).map_err(wrong)?;
    let tcp = connect(&host, port).await?;
    let shaking = TlsConnector::from(Arc::clone(config)).connect(name, tcp);
    let stream = match tokio::time::timeout(HANDSHAKE, shaking).await {
        Ok(shaken) => shaken.map_err(|error| explain::dialing(error, &host))?,
        Err(_) => {
            let text = "the TLS handshake was not answered in time: does it speak TLS there?";
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
    };
    Ok(Dialed { way: Way::Secured(Box::new(stream)), host })
}

fn place(uri: &Uri, port: u16) -> io::Result<(String, u16)> {
    let no_host = || io::Error::new(io::ErrorKind::InvalidInput, format!("`{uri}` names no host"));
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(no_host)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok((host, uri.port_u16().unwrap_or(port)))
}

/// The first address of the host that answers: the next one is tried when one refuses or keeps silent for a while.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut left = tokio::net::lookup_host((host, port)).await?;
    let mut tries: JoinSet<io::Result<TcpStream>> = JoinSet::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no address"));
    loop {
        let more = match left.next() {
            Some(address) => {
                tries.spawn(open(address));
                true
            }
            None => false,
        };
        if tries.is_empty() {
            return Err(last);
        }
        let answered = if more {
            tokio::time::timeout(NEXT_ADDRESS, tries.join_next()).await.unwrap_or_default()
        } else {
            tries.join_next().await
        };
        match answered {
            Some(Ok(Ok(tcp))) => return Ok(tcp),
            Some(Ok(Err(error))) => last = error,
            Some(Err(error)) => last = io::Error::other(error),
            None => {}
        }
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// A connection to another process.
#[derive(Debug)]
pub struct Dialed {
    way: Way,
    host: String,
}

#[derive(Debug)]
enum Way {
    /// `first`: nothing has come yet.
    Plain {
        tcp: TcpStream,
        first: bool,
    },
    Secured(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Dialed {
    /// The certificate was verified; now its names are looked at.
    fn check_name(&self, name: &str) -> io::Result<()> {
        let Way::Secured(stream) = &self.way else { return Ok(()) };
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let names =
            shown.and_then(|leaf| certificate::read(leaf).ok()).map_or_else(Vec::new, |said| said.names);
        if names.iter().any(|known| known == name) {
            return Ok(());
        }
        let text =
            format!("its certificate is for {}, and not for `{name}` (tls.verify_names)", listed(&names));
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    }
}

impl AsyncRead for Dialed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.way {
            Way::Plain { tcp, first } => {
                let before = buf.filled().len();
                ready!(Pin::new(tcp).poll_read(cx, buf))?;
                if std::mem::take(first) && buf.filled()[before..].starts_with(&ALERT) {
                    let text = "it speaks TLS there: write https://";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
                }
                Poll::Ready(Ok(()))
            }
            // With TLS 1.3 a certificate is refused after the handshake, as its client sees it.
            Way::Secured(stream) => {
                Pin::new(stream).poll_read(cx, buf).map_err(|error| explain::dialing(error, &this.host))
            }
        }
    }
}

impl AsyncWrite for Dialed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().way {
            Way::Plain { tcp, .. } => Pin::new(tcp).poll_write(cx, buf),
            Way::Secured(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().way {
            Way::Plain { tcp, .. } => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Way::Secured(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.way {
            Way::Plain { tcp, .. } => tcp.is_write_vectored(),
            Way::Secured(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().way {
            Way::Plain { tcp, .. } => Pin::new(tcp).poll_flush(cx),
            Way::Secured(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().way {
            Way::Plain { tcp, .. } => Pin::new(tcp).poll_shutdown(cx),
            Way::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
