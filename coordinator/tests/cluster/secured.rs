//! Who may come in when TLS is on: workers and coordinators with a certificate of the cluster, each worker under its own name;
//! anybody for the admin API, as far as the transport goes.

use std::{fs, path::Path, sync::Arc};

use daemon::tls::{Tls, TlsClient, TlsConfig};
use proto::{
    StatusExt, Wire,
    v1::{
        self, StatusRequest, admin_client::AdminClient, coordinator_message as down,
        session_client::SessionClient, worker_message as up,
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use shardwright_coordinator::{Config, Server};
use store::{EmbeddedStore, MetadataStore};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

use crate::{
    fake_source,
    setup::{Coordinator, timing},
};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn params(names: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    /// The identity of a process that trusts `trusts`.
    fn identity(&self, dir: &Path, names: &[&str], trusts: &Self, verify_names: bool) -> Tls {
        let key = KeyPair::generate().unwrap();
        let certificate = Self::params(names).signed_by(&key, &self.0).unwrap();
        let write = |end: &str, text: String| {
            let path = dir.join(format!("{}.{end}", names[0]));
            fs::write(&path, text).unwrap();
            Some(path)
        };
        let config = TlsConfig {
            cert_path: write("pem", certificate.pem()),
            key_path: write("key", key.serialize_pem()),
            ca_path: write("ca", trusts.0.pem()),
            verify_names,
            ..TlsConfig::default()
        };
        Tls::open(&config).unwrap().unwrap()
    }
}

/// A coordinator with TLS on, alone on its store.
struct Scene {
    ours: Authority,
    server: Server,
    cancel: CancellationToken,
    dir: tempfile::TempDir,
}

impl Scene {
    async fn new(verify_names: bool) -> Self {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let (ours, dir) = (Authority::new(), tempfile::tempdir().unwrap());
        let tls = ours.identity(dir.path(), &["coordinator", "127.0.0.1"], &ours, verify_names);
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), timing: timing(), ..Config::default() };
        let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
        let cancel = CancellationToken::new();
        let server = Server::start_secured(Some(tls), config, fake_source::registry(), store, cancel.clone())
            .await
            .unwrap();
        Self { ours, server, cancel, dir }
    }

    fn url(&self) -> String {
        format!("https://{}", self.server.local_addr())
    }

    /// Of a process with a certificate of ours.
    fn member(&self, name: &str) -> Wire {
        wire(self.ours.identity(self.dir.path(), &[name], &self.ours, true))
    }

    /// Of somebody who knows our authority, and shows nothing.
    fn nobody(&self) -> Wire {
        let tool = TlsClient::open(Some(&self.dir.path().join("coordinator.ca")), None, None).unwrap();
        Wire::secured(move |uri, _| {
            let tool = tool.clone();
            async move { tool.dial(&uri).await }
        })
    }

    /// Attaches as this worker; what comes down first.
    async fn attach(&self, wire: &Wire, worker: &str) -> Result<down::Message, Status> {
        let channel = wire.connect(&wire.endpoint(&self.url()).unwrap()).await.map_err(|e| broken(&e))?;
        let (sender, messages) = mpsc::channel(1);
        let hello = v1::Hello {
            worker: worker.to_owned(),
            process: "p".to_owned(),
            instance: "i".to_owned(),
            capacity: 1,
            heartbeat: 1,
            ..v1::Hello::default()
        };
        sender.send(v1::WorkerMessage { message: Some(up::Message::Hello(hello)) }).await.unwrap();
        let mut client = SessionClient::new(channel);
        let mut down =
            client.attach(ReceiverStream::new(messages)).await.map_err(|s| told(wire, s))?.into_inner();
        match down.message().await.map_err(|s| told(wire, s))?.and_then(|message| message.message) {
            // Nobody leads yet.
            Some(down::Message::Redirect(_)) | None => Box::pin(self.attach(wire, worker)).await,
            Some(first) => Ok(first),
        }
    }

    async fn status(&self, wire: &Wire) -> Result<v1::StatusReply, Status> {
        let channel = wire.connect(&wire.endpoint(&self.url()).unwrap()).await.map_err(|e| broken(&e))?;
        let reply = AdminClient::new(channel).status(StatusRequest {}).await;
        reply.map(tonic::Response::into_inner).map_err(|s| told(wire, s))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn wire(tls: Tls) -> Wire {
    Wire::secured(move |uri, name| {
        let tls = tls.clone();
        async move { tls.dial(&uri, name.as_deref()).await }
    })
}

/// What the transport says, with its causes.
fn broken(error: &dyn std::error::Error) -> Status {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    Status::unavailable(text)
}

fn told(wire: &Wire, status: Status) -> Status {
    match wire.complaint() {
        Some(complaint) => Status::unavailable(complaint),
        None => status,
    }
}

#[tokio::test]
async fn a_worker_joins_under_the_name_in_its_certificate() {
    let scene = Scene::new(true).await;
    let first = scene.attach(&scene.member("worker-0"), "worker-0").await.unwrap();
    assert!(matches!(first, down::Message::Welcome(_)), "{first:?}");
}

#[tokio::test]
async fn a_worker_without_a_certificate_is_refused() {
    for verify_names in [true, false] {
        let scene = Scene::new(verify_names).await;
        let refused = scene.attach(&scene.nobody(), "worker-0").await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        assert_eq!(refused.reason().as_deref(), Some("NOT_A_MEMBER"));
        assert!(refused.message().contains("tls.cert_path"), "{refused}");
    }
}

#[tokio::test]
async fn a_session_that_does_not_begin_with_a_hello_is_refused() {
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let coordinator = Coordinator::start(&store).await;
    coordinator.leader().await;
    let mut client = SessionClient::connect(coordinator.url()).await.unwrap();
    let drain = v1::WorkerMessage { message: Some(up::Message::Drain(v1::Drain::default())) };
    let mut down = client.attach(tokio_stream::once(drain)).await.unwrap().into_inner();
    let refused = down.message().await.unwrap_err();
    assert_eq!((refused.code(), refused.reason().as_deref()), (Code::InvalidArgument, Some("BAD_HELLO")));
}

#[tokio::test]
async fn a_worker_without_tls_is_refused() {
    let scene = Scene::new(true).await;
    let wire = Wire::over(|uri| {
        Box::pin(async move { Ok(Box::new(daemon::tls::dial_plain(&uri).await?) as proto::Io) })
    });
    let refused = scene.attach(&wire, "worker-0").await.unwrap_err();
    assert!(refused.message().contains("it speaks TLS there"), "{refused}");
}

#[tokio::test]
async fn a_worker_with_a_certificate_of_another_authority_is_refused() {
    let scene = Scene::new(false).await;
    let stranger = Authority::new().identity(scene.dir.path(), &["worker-0"], &scene.ours, false);
    let refused = scene.attach(&wire(stranger), "worker-0").await.unwrap_err();
    assert!(refused.message().contains("certificate that was shown"), "{refused}");
}

#[tokio::test]
async fn a_worker_with_another_workers_certificate_is_refused_when_names_are_compared() {
    let scene = Scene::new(true).await;
    let refused = scene.attach(&scene.member("worker-1"), "worker-0").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert_eq!(refused.reason().as_deref(), Some("WRONG_NAME"));
    assert!(refused.message().contains("for `worker-1`, and not for `worker-0`"), "{refused}");
    let lax = Scene::new(false).await;
    lax.attach(&lax.member("worker-1"), "worker-0").await.unwrap();
}

#[tokio::test]
async fn a_worker_whose_certificate_has_expired_is_refused() {
    let scene = Scene::new(false).await;
    let key = KeyPair::generate().unwrap();
    let mut past = Authority::params(&["worker-0"]);
    (past.not_before, past.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    let chain: Vec<CertificateDer<'static>> =
        vec![past.signed_by(&key, &scene.ours.0).unwrap().der().clone()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(scene.ours.0.der().clone()).unwrap();
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = builder.with_client_auth_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (connector, address) =
        (tokio_rustls::TlsConnector::from(Arc::new(config)), scene.server.local_addr());
    let wire = Wire::secured(move |_, _| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            connector.connect(ServerName::try_from("127.0.0.1").unwrap(), tcp).await
        }
    });
    let refused = scene.attach(&wire, "worker-0").await.unwrap_err();
    assert!(refused.message().contains("CertificateExpired"), "{refused}");
}

#[tokio::test]
async fn an_admin_client_needs_no_certificate_for_the_transport() {
    let scene = Scene::new(true).await;
    scene.status(&scene.nobody()).await.unwrap();
    scene.status(&scene.member("somebody")).await.unwrap();
}

#[tokio::test]
async fn an_admin_client_with_a_certificate_of_another_authority_is_refused() {
    let scene = Scene::new(true).await;
    let stranger = Authority::new().identity(scene.dir.path(), &["somebody"], &scene.ours, false);
    let refused = scene.status(&wire(stranger)).await.unwrap_err();
    assert!(refused.message().contains("certificate that was shown"), "{refused}");
}

#[tokio::test]
async fn an_admin_client_that_trusts_another_authority_does_not_speak_to_the_coordinator() {
    let scene = Scene::new(true).await;
    let theirs = Authority::new();
    let careful = scene.ours.identity(scene.dir.path(), &["somebody"], &theirs, true);
    let refused = scene.status(&wire(careful)).await.unwrap_err();
    assert!(refused.message().contains("its certificate is"), "{refused}");
}

/// Whoever passes a call on speaks for a coordinator.
#[tokio::test]
async fn a_call_that_was_passed_on_without_a_certificate_is_refused() {
    let scene = Scene::new(true).await;
    let passed_on = async |wire: Wire| {
        let channel = wire.connect(&wire.endpoint(&scene.url()).unwrap()).await.unwrap();
        let mut request = Request::new(StatusRequest {});
        request.metadata_mut().insert("shardwright-passed-on-by", "https://c:1".parse().unwrap());
        AdminClient::new(channel).status(request).await
    };
    let refused = passed_on(scene.nobody()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
}

#[tokio::test]
async fn an_advertised_address_without_tls_is_refused_at_the_start() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let (ours, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let tls = ours.identity(dir.path(), &["coordinator"], &ours, true);
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: Some("http://c.example:7070".to_owned()),
        ..Config::default()
    };
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let started =
        Server::start_secured(Some(tls), config, fake_source::registry(), store, CancellationToken::new())
            .await;
    let error = started.err().unwrap().to_string();
    assert!(error.contains("coordinator.advertise") && error.contains("https://c.example:7070"), "{error}");
}
