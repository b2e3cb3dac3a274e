//! What gRPC runs on between the processes of a cluster: TCP, or what a simulation brings in its place. Everything above the
//! bytes (HTTP/2, keep-alives, deadlines) is the same on both.

use std::{fmt, future::Future, io, pin::Pin, sync::Arc};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{
    codegen::http::Uri,
    transport::{Channel, Endpoint, Error, server::Connected},
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

type Dial = dyn Fn(Uri) -> Dialing + Send + Sync;

/// How a process reaches others. Cheap to clone.
#[derive(Clone, Default)]
pub struct Wire(Option<Arc<Dial>>);

impl Wire {
    /// TCP, and TLS as the endpoint says.
    #[must_use]
    pub fn tcp() -> Self {
        Self(None)
    }

    /// Connections made by `dial`.
    pub fn over(dial: impl Fn(Uri) -> Dialing + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(dial)))
    }

    /// A channel that is connected.
    ///
    /// # Errors
    /// The endpoint cannot be reached.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, Error> {
        match &self.0 {
            None => endpoint.connect().await,
            Some(dial) => endpoint.connect_with_connector(connector(dial)).await,
        }
    }

    /// A channel that connects when it is used, and again when it broke.
    #[must_use]
    pub fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        match &self.0 {
            None => endpoint.connect_lazy(),
            Some(dial) => endpoint.connect_with_connector_lazy(connector(dial)),
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Wire(over)" } else { "Wire(tcp)" })
    }
}

fn connector(
    dial: &Arc<Dial>,
) -> impl tower::Service<Uri, Response = TokioIo<Io>, Error = io::Error, Future: Send> + Send + use<> {
    let dial = Arc::clone(dial);
    tower::service_fn(move |uri| {
        let dialing = dial(uri);
        async move { dialing.await.map(TokioIo::new) }
    })
}
