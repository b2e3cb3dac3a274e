//! Calls that another coordinator passes on: the leader looks for itself, and believes no header.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use daemon::tls::{Tls, TlsClient, TlsConfig};
use proto::{Wire, v1, v1::admin_client::AdminClient};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use shardwright_coordinator::{AuthConfig, Config, Server};
use store::{EmbeddedStore, MetadataStore};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, metadata::BinaryMetadataValue};

use crate::{
    fakes,
    login::{Caller, at, strict},
    setup::Coordinator,
};

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7070))
}

async fn client(address: SocketAddr) -> AdminClient<tonic::transport::Channel> {
    AdminClient::connect(format!("http://{address}")).await.unwrap()
}

#[tokio::test]
async fn a_follower_passes_a_password_on_and_the_leader_looks_at_it() {
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let config = || Config { auth: strict(), ..Config::default() };
    let leader = Coordinator::start_config(Arc::clone(&store), config()).await;
    Caller::admin(&leader).run("CREATE USER alice PASSWORD 'some good password'").await;
    let follower = Coordinator::start_config(store, config()).await;
    let alice = Caller::user(&follower, "alice", "some good password");
    alice.run("SHOW SOURCES").await;
    alice.lacks("SHOW WORKERS", "SELECT privilege on the cluster").await;
    Caller::user(&follower, "alice", "wrong").stays_out("wrong password").await;
    Caller::nobody(&follower).stays_out("this call needs a login").await;
}

#[tokio::test]
async fn who_shows_nothing_does_not_become_the_administrator_by_way_of_a_follower() {
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let (leader, _leads) = at(loopback(), AuthConfig::default(), Arc::clone(&store)).await;
    Caller::new(&client(leader).await, None).run("SHOW SOURCES").await;
    // The follower can be reached from elsewhere; the leader listens on this machine, where nobody has to log in.
    let outside = SocketAddr::from(([10, 0, 0, 1], 7070));
    let (follower, _follows) = at(outside, AuthConfig::default(), Arc::clone(&store)).await;
    let status = Caller::new(&client(follower).await, None).refused("SHOW SOURCES").await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    // A follower on this machine passes on what is allowed there.
    let (inside, _follows) = at(loopback(), AuthConfig::default(), store).await;
    Caller::new(&client(inside).await, None).run("SHOW SOURCES").await;
}

#[tokio::test]
async fn nobody_is_believed_who_says_whom_a_call_is_from() {
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let leader =
        Coordinator::start_config(Arc::clone(&store), Config { auth: strict(), ..Config::default() }).await;
    Caller::admin(&leader).run("CREATE USER boss; GRANT SYSTEM_ADMIN TO boss").await;
    let follower = Coordinator::start_config(store, Config { auth: strict(), ..Config::default() }).await;
    for cluster in [&leader, &follower] {
        for marked in [true, false] {
            let mut request = Request::new(v1::StatusRequest {});
            let names = BinaryMetadataValue::from_bytes(b"\x04boss");
            request.metadata_mut().insert_bin("shardwright-caller-names-bin", names);
            if marked {
                request
                    .metadata_mut()
                    .insert("shardwright-passed-on-by", "http://127.0.0.1:1".parse().unwrap());
            }
            let status = cluster.client.clone().status(request).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        }
    }
}

/// An authority, and identities of its.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// The files of a certificate for these names.
    fn files(&self, dir: &Path, names: &[&str]) -> TlsConfig {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let write = |end: &str, text: String| {
            let path = dir.join(format!("{}.{end}", names[0]));
            fs::write(&path, text).unwrap();
            Some(path)
        };
        TlsConfig {
            cert_path: write("pem", certificate.pem()),
            key_path: write("key", key.serialize_pem()),
            ca_path: write("ca", self.0.pem()),
            verify_names: true,
            ..TlsConfig::default()
        }
    }
}

/// A cluster with TLS: its authority and where its files are.
pub struct Secured {
    authority: Authority,
    dir: tempfile::TempDir,
    store: Arc<dyn MetadataStore>,
    cancel: CancellationToken,
}

impl Drop for Secured {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Secured {
    pub fn new() -> Self {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let (store, dir) = (Arc::new(EmbeddedStore::in_memory()), tempfile::tempdir().unwrap());
        Self { authority: Authority::new(), dir, store, cancel: CancellationToken::new() }
    }

    pub async fn coordinator(&self, name: &str, auth: AuthConfig) -> SocketAddr {
        let tls = Tls::open(&self.authority.files(self.dir.path(), &[name, "127.0.0.1"])).unwrap();
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), auth, ..Config::default() };
        let store = Arc::clone(&self.store);
        let server =
            Server::start_secured(tls, config, fakes::registry(), store, self.cancel.clone()).await.unwrap();
        server.local_addr()
    }

    /// A caller who shows a certificate for this name, or none.
    pub async fn caller(&self, address: SocketAddr, name: Option<&str>) -> Caller {
        let files = self.authority.files(self.dir.path(), &[name.unwrap_or("unused")]);
        let (cert, key) =
            (files.cert_path.filter(|_| name.is_some()), files.key_path.filter(|_| name.is_some()));
        let tls = TlsClient::open(files.ca_path.as_deref(), cert.as_deref(), key.as_deref()).unwrap();
        let wire = Wire::secured(move |uri, _| {
            let tls = tls.clone();
            async move { tls.dial(&uri).await }
        });
        let endpoint = wire.endpoint(&format!("https://{address}")).unwrap();
        Caller::new(&AdminClient::new(wire.connect(&endpoint).await.unwrap()), None)
    }
}

#[tokio::test]
async fn a_certificate_is_a_user_without_a_password_and_nobody_else() {
    let scene = Secured::new();
    let address = scene.coordinator("first", strict()).await;
    let admin = scene.caller(address, None).await;
    admin.stays_out("this call needs a login").await;
    let admin = Caller::new(&admin.client, Some(crate::login::basic("admin", crate::login::ADMIN)));
    admin
        .run(
            "CREATE USER \"ops.example\"; CREATE USER bob PASSWORD 'some good password'; CREATE ROLE readers",
        )
        .await;
    let ops = scene.caller(address, Some("ops.example")).await;
    assert!(ops.run("SHOW USERS").await.rows[0].starts_with("ops.example|certificate or token|"));
    ops.lacks("SHOW WORKERS", "SELECT privilege on the cluster").await;
    // A certificate of the same authority with the name of a user with a password, of a role, of a worker.
    for name in ["admin", "bob", "readers", "worker-0"] {
        scene.caller(address, Some(name)).await.stays_out("this call needs a login").await;
    }
    // A password is worth more than the certificate that it comes with, and a wrong one is wrong.
    let both = Caller::new(&ops.client, Some(crate::login::basic("admin", "wrong")));
    both.stays_out("wrong password").await;
    admin.run("DROP USER \"ops.example\"").await;
    ops.stays_out("this call needs a login").await;
}

#[tokio::test]
async fn a_follower_is_believed_about_a_certificate_if_the_leader_names_it() {
    for believed in [false, true] {
        let scene = Secured::new();
        let peers = if believed { vec!["second".to_owned()] } else { Vec::new() };
        let leader = scene.coordinator("first", AuthConfig { peers, ..strict() }).await;
        let admin = scene.caller(leader, None).await;
        let admin = Caller::new(&admin.client, Some(crate::login::basic("admin", crate::login::ADMIN)));
        admin.run("CREATE USER ops; GRANT SELECT ON CLUSTER TO ops; CREATE USER second; GRANT SYSTEM_ADMIN TO second").await;
        let follower = scene.coordinator("second", strict()).await;
        let ops = scene.caller(follower, Some("ops")).await;
        if believed {
            ops.run("SHOW WORKERS").await;
            // It has its own rights, not those of who passed it on.
            ops.lacks("REBALANCE", "ADMIN privilege on the cluster").await;
        } else {
            let status = ops.refused("SHOW WORKERS").await;
            assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        }
        // A worker's certificate passes nothing on, whatever it says.
        let worker = scene.caller(leader, Some("worker-0")).await;
        let mut request = Request::new(v1::StatusRequest {});
        let names = BinaryMetadataValue::from_bytes(b"\x06second");
        request.metadata_mut().insert_bin("shardwright-caller-names-bin", names);
        request.metadata_mut().insert("shardwright-passed-on-by", "https://127.0.0.1:1".parse().unwrap());
        let status = worker.client.clone().status(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    }
}
