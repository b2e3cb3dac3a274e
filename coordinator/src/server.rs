//! One coordinator process: binds its port, campaigns, and serves `Session`, `Admin`, health and reflection until it is told
//! to stop. An orderly stop resigns, so that another coordinator leads at once.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use connector::Registry;
use daemon::tls::{Guard, Incoming, Tls};
use futures::Stream;
use proto::{
    Duplex, Wire,
    v1::{session_server::SessionServer, versions_server::VersionsServer},
};
use store::MetadataStore;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::{
    Config,
    error::{Error, ErrorKind, Result},
    handle::{Handle, Role},
    office::Office,
    secrets::SealedStore,
    session::SessionService,
    versions::VersionsService,
};

/// How often an idle connection is asked whether it lives, and how long it may take to say so.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// How long open calls may go on after the stop.
const LINGER: Duration = Duration::from_millis(500);

/// Where a coordinator is reached and how it reaches others.
pub struct Site<I> {
    /// What it is bound to.
    pub address: SocketAddr,
    /// The connections that come in.
    pub incoming: I,
    /// How it reaches the others.
    pub wire: Wire,
}

/// A running coordinator. Dropping it does not stop it: cancel the token that it was started with.
pub struct Server {
    address: SocketAddr,
    handle: Handle,
    office: JoinHandle<Result<()>>,
    served: JoinHandle<Result<()>>,
}

impl Server {
    /// Binds `config.listen` and begins to campaign. Errors: `Config` if the settings do not fit together or it cannot listen
    /// there.
    pub async fn start(
        config: Config,
        registry: Registry,
        store: Arc<dyn MetadataStore>,
        cancel: CancellationToken,
    ) -> Result<Self> {
        Self::start_secured(None, config, registry, store, cancel).await
    }

    /// The same with the identity of this process, if it has one: then it listens and reaches others with TLS, a client's
    /// certificate is verified if it shows one, and workers and other coordinators must show one. Errors: as [`Server::start`].
    pub async fn start_secured(
        tls: Option<Tls>,
        config: Config,
        registry: Registry,
        store: Arc<dyn MetadataStore>,
        cancel: CancellationToken,
    ) -> Result<Self> {
        config.check()?;
        let listener = daemon::listen(&config.listen.to_string(), "coordinator.listen")
            .await
            .map_err(|error| Error::new(ErrorKind::Config, error.to_string()))?;
        let address = listener
            .local_addr()
            .map_err(|error| Error::new(ErrorKind::Config, format!("listener has no address: {error}")))?;
        config.auth.announce(address, tls.is_some());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let advertise = config.advertise.clone().unwrap_or_else(|| format!("{scheme}://{address}"));
        let incoming = Incoming::new(listener, Guard::asks(tls.as_ref()), "coordinator");
        let wire = tls.map_or_else(Wire::tcp, |tls| {
            Wire::secured(move |uri, name| {
                let tls = tls.clone();
                async move { tls.dial(&uri, name.as_deref()).await }
            })
        });
        wire.endpoint(&advertise)
            .map_err(|reason| Error::new(ErrorKind::Config, format!("`coordinator.advertise`: {reason}")))?;
        let config = Config { advertise: Some(advertise), ..config };
        let site = Site { address, incoming, wire };
        Ok(Self::start_on(site, config, registry, store, cancel))
    }

    /// The same on connections that are made elsewhere. `config.advertise` names the URL at which others reach it.
    pub fn start_on<I, C>(
        site: Site<I>,
        config: Config,
        registry: Registry,
        store: Arc<dyn MetadataStore>,
        cancel: CancellationToken,
    ) -> Self
    where
        I: Stream<Item = io::Result<C>> + Send + 'static,
        C: Duplex + Connected<ConnectInfo: Clone + Send + Sync> + 'static,
    {
        let cancel = cancel.child_token();
        let Site { address, incoming, wire } = site;
        let address_text: Arc<str> =
            config.advertise.clone().unwrap_or_else(|| format!("http://{address}")).into();
        let config = Arc::new(config);
        let (sender, role) = watch::channel(Role::Follows(None));
        let office = Office {
            config: Arc::clone(&config),
            registry: registry.clone(),
            store: Arc::new(SealedStore::new(store, &config.cluster, config.vault.clone())),
            address: Arc::clone(&address_text),
            role: sender,
            cancel: cancel.clone(),
        };
        let handle = Handle { config, registry, address: address_text, role, wire, listener: address };
        let served = tokio::spawn(serve(incoming, handle.clone(), cancel));
        Self { address, handle, office: tokio::spawn(office.run()), served }
    }

    /// The address it is bound to.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What the admin calls stand on; for those who run a coordinator in their own process.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until it has stopped.
    pub async fn join(self) -> Result<()> {
        let (office, served) = tokio::join!(self.office, self.served);
        let ended = |what: &str, error: tokio::task::JoinError| {
            Error::new(ErrorKind::Unavailable, format!("{what} ended: {error}"))
        };
        office.map_err(|error| ended("the office of the leader", error))??;
        served.map_err(|error| ended("the server", error))?
    }
}

async fn serve<I, C>(incoming: I, handle: Handle, cancel: CancellationToken) -> Result<()>
where
    I: Stream<Item = io::Result<C>>,
    C: Duplex + Connected<ConnectInfo: Clone + Send + Sync> + 'static,
{
    let failed =
        |error: &dyn std::fmt::Display| Error::new(ErrorKind::Config, format!("server failed: {error}"));
    let session = SessionService { role: handle.role.clone(), cancel: cancel.clone() };
    let session = SessionServer::new(session)
        .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    reporter.set_service_status("shardwright.v1.Session", tonic_health::ServingStatus::Serving).await;
    reporter.set_service_status("shardwright.v1.Admin", tonic_health::ServingStatus::Serving).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
    };
    let router = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE.0))
        .http2_keepalive_timeout(Some(KEEP_ALIVE.1))
        .layer(daemon::GrpcCalls::default())
        .add_service(health)
        .add_service(reflection().build_v1().map_err(|error| failed(&error))?)
        .add_service(reflection().build_v1alpha().map_err(|error| failed(&error))?)
        .add_service(session)
        .add_service(VersionsServer::new(VersionsService))
        .add_service(crate::admin::service(handle));
    let stop = cancel.clone();
    let serving = router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    let lingering = async {
        cancel.cancelled().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        biased;
        served = serving => served.map_err(|error| failed(&error)),
        () = lingering => Ok(()),
    }
}
