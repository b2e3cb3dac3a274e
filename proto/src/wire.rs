//! What gRPC runs on between the processes of a cluster: TCP, TLS with the identity of this process, or what a simulation
//! brings in its place. Everything above the bytes (HTTP/2, keep-alives, deadlines) is the same on all of them.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::{
    codegen::http::Uri,
    transport::{Channel, ClientTlsConfig, Endpoint, Error, server::Connected},
};

/// A connection: bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Any connection.
pub type Io = Box<dyn Duplex>;

impl Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// A connection in the making.
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<Io>> + Send>>;

/// A name that the other end must prove.
type Name = Option<Arc<str>>;

type Dial = Arc<dyn Fn(Uri, Name) -> Dialing + Send + Sync>;

/// How a process reaches others. Cheap to clone.
#[derive(Clone, Default)]
pub struct Wire {
    way: Way,
    name: Name,
    complaint: Complaint,
}

/// What the newest connection broke with.
type Complaint = Arc<Mutex<Option<String>>>;

#[derive(Clone, Default)]
enum Way {
    #[default]
    Tcp,
    Over(Dial),
    Secured(Dial),
}

impl Wire {
    /// TCP; with the authorities of the machine where the URL says https.
    #[must_use]
    pub fn tcp() -> Self {
        Self::default()
    }

    /// Connections made by `dial`, of which gRPC sees nothing but the bytes.
    pub fn over(dial: impl Fn(Uri) -> Dialing + Send + Sync + 'static) -> Self {
        Self { way: Way::Over(Arc::new(move |uri, _| dial(uri))), ..Self::default() }
    }

    /// Connections that `dial` makes with TLS; it is told the name that the other end must prove, where it is not the host's.
    /// Nobody is reached without TLS on such a wire, whatever an address says.
    pub fn secured<S, F>(dial: impl Fn(Uri, Name) -> F + Send + Sync + 'static) -> Self
    where
        S: Duplex + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
    {
        let dial = move |uri, name| {
            let dialing = dial(uri, name);
            Box::pin(async move { Ok(Box::new(dialing.await?) as Io) }) as Dialing
        };
        Self { way: Way::Secured(Arc::new(dial)), ..Self::default() }
    }

    /// The same wire to the process that bears this name, as far as a wire can tell.
    #[must_use]
    pub fn towards(&self, name: &str) -> Self {
        let name = (!name.is_empty()).then(|| name.into());
        Self { way: self.way.clone(), name, complaint: Complaint::default() }
    }

    /// What the newest connection broke with, told once. gRPC says of a connection that ends under a call no more than that it
    /// was closed; the other end may have said why.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The place at an address as people write it: the scheme may be left out.
    ///
    /// # Errors
    /// It is no URL, or it asks for plain connections on a wire that makes none.
    pub fn endpoint(&self, url: &str) -> Result<Endpoint, String> {
        let wrong = |error: &dyn fmt::Display| format!("`{url}` is not a URL: {error}");
        let rest = match url.split_once("://") {
            Some(("http", rest)) if matches!(self.way, Way::Secured(_)) => {
                return Err(format!(
                    "`{url}` asks for a connection without TLS, and [tls] is on: write https://{rest}"
                ));
            }
            Some(("https", rest)) => rest,
            Some(_) => return Endpoint::from_shared(url.to_owned()).map_err(|error| wrong(&error)),
            None if matches!(self.way, Way::Secured(_)) => url,
            None => return Endpoint::from_shared(format!("http://{url}")).map_err(|error| wrong(&error)),
        };
        let secured = Uri::try_from(format!("https://{rest}")).map_err(|error| wrong(&error))?;
        match self.way {
            Way::Tcp => Endpoint::from(secured)
                .tls_config(ClientTlsConfig::new().with_native_roots())
                .map_err(|error| wrong(&error)),
            // gRPC would add TLS of its own below an https URL; what it says of itself to the server is still https.
            Way::Over(_) | Way::Secured(_) => Endpoint::from_shared(format!("http://{rest}"))
                .map(|endpoint| endpoint.origin(secured))
                .map_err(|error| wrong(&error)),
        }
    }

    /// A channel that is connected.
    ///
    /// # Errors
    /// The endpoint cannot be reached.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, Error> {
        match &self.way {
            Way::Tcp => endpoint.connect().await,
            Way::Over(dial) | Way::Secured(dial) => {
                endpoint.connect_with_connector(self.connector(dial)).await
            }
        }
    }

    /// A channel that connects when it is used, and again when it broke.
    #[must_use]
    pub fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        match &self.way {
            Way::Tcp => endpoint.connect_lazy(),
            Way::Over(dial) | Way::Secured(dial) => {
                endpoint.connect_with_connector_lazy(self.connector(dial))
            }
        }
    }

    fn connector(
        &self,
        dial: &Dial,
    ) -> impl tower::Service<Uri, Response = TokioIo<Heard>, Error = io::Error, Future: Send> + Send + use<>
    {
        let (dial, name, complaint) = (Arc::clone(dial), self.name.clone(), Arc::clone(&self.complaint));
        tower::service_fn(move |uri| {
            let (dialing, complaint) = (dial(uri, name.clone()), Arc::clone(&complaint));
            // That of the connection before is not this one's.
            complaint.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move { Ok(TokioIo::new(Heard { io: dialing.await?, complaint })) }
        })
    }
}

/// A connection that remembers what it broke with.
struct Heard {
    io: Io,
    complaint: Complaint,
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read {
            *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        }
        read
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.way {
            Way::Tcp => "Wire(tcp)",
            Way::Over(_) => "Wire(over)",
            Way::Secured(_) => "Wire(secured)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secured() -> Wire {
        Wire::secured(|_, _| async { Err::<Io, _>(io::ErrorKind::NotConnected.into()) })
    }

    #[test]
    fn a_secured_wire_refuses_plain_addresses_and_says_what_to_write() {
        let error = secured().endpoint("http://c:7070").unwrap_err();
        assert!(error.contains("write https://c:7070"), "{error}");
        for good in ["https://c:7070", "c:7070"] {
            assert_eq!(secured().endpoint(good).unwrap().uri().to_string(), "http://c:7070/", "{good}");
        }
        assert!(secured().endpoint("ht tp").is_err());
    }

    #[test]
    fn elsewhere_an_address_without_a_scheme_is_plain() {
        for wire in [Wire::tcp(), Wire::over(|_| Box::pin(async { Err(io::ErrorKind::NotConnected.into()) }))]
        {
            assert_eq!(wire.endpoint("c:7070").unwrap().uri().to_string(), "http://c:7070/");
        }
    }

    #[tokio::test]
    async fn the_name_that_is_expected_reaches_the_one_who_dials() {
        let (seen, mut names) = tokio::sync::mpsc::channel(1);
        let wire = Wire::secured(move |_, name: Option<Arc<str>>| {
            seen.try_send(name.as_deref().map(str::to_owned)).ok();
            async { Err::<Io, _>(io::ErrorKind::NotConnected.into()) }
        });
        let endpoint = wire.endpoint("w:1").unwrap();
        assert!(wire.towards("worker-0").connect(&endpoint).await.is_err());
        assert_eq!(names.recv().await.unwrap().as_deref(), Some("worker-0"));
        assert!(wire.towards("").connect(&endpoint).await.is_err());
        assert_eq!(names.recv().await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_the_other_end_said_as_it_hung_up_is_told_once() {
        let wire = Wire::secured(|_, _| async { Ok::<_, io::Error>(Broken) });
        let channel = wire.connect(&wire.endpoint("w:1").unwrap()).await.unwrap();
        let mut client = crate::v1::admin_client::AdminClient::new(channel);
        client.status(crate::v1::StatusRequest {}).await.unwrap_err();
        assert_eq!(wire.complaint().as_deref(), Some("it does not like you"));
        assert_eq!(wire.complaint(), None);
    }

    /// Takes everything and hangs up with a word.
    struct Broken;

    impl AsyncRead for Broken {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::other("it does not like you")))
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}
