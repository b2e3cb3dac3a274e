//! TLS as two processes see it: who is let in, who is sent away with which words, and what happens when files change.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    io::ErrorKind,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::http::Uri;
use daemon::{
    Peer,
    tls::{Dialed, Guard, Incoming, Look, Tls, TlsClient, TlsConfig, dial_plain},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use shardwright_daemon as daemon;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::StreamExt;
use tonic::transport::server::Connected;

/// No wait of a test is longer.
const PATIENCE: Duration = Duration::from_secs(30);

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// A folder with files for TLS.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// `NAME.pem`, `NAME.key` and `NAME.ca`.
    fn issue(&self, name: &str, params: CertificateParams, by: &Authority, trusts: &Authority) -> TlsConfig {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, by).unwrap();
        TlsConfig {
            cert_path: Some(self.write(&format!("{name}.pem"), certificate.pem())),
            key_path: Some(self.write(&format!("{name}.key"), key.serialize_pem())),
            ca_path: Some(self.write(&format!("{name}.ca"), trusts.pem())),
            verify_names: true,
            ..TlsConfig::default()
        }
    }

    fn identity(&self, name: &str, names: &[&str], by: &Authority) -> Tls {
        Tls::open(&self.issue(name, params(names), by, by)).unwrap().unwrap()
    }
}

fn refused(config: &TlsConfig) -> String {
    let error = Tls::open(config).unwrap_err();
    assert_eq!(error.kind, daemon::ErrorKind::Config);
    error.to_string()
}

/// A listener that says whom it let in, and greets them.
struct Greeter {
    uri: Uri,
    address: SocketAddr,
    came: mpsc::Receiver<Peer>,
}

async fn greeter(guard: Guard) -> Greeter {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let (sender, came) = mpsc::channel(1024);
    tokio::spawn(async move {
        let mut incoming = Incoming::new(tcp, guard, "test");
        while let Some(Ok(mut connection)) = incoming.next().await {
            sender.send(connection.connect_info()).await.unwrap();
            tokio::spawn(async move {
                connection.write_all(b"hello").await.ok();
                let mut all = Vec::new();
                connection.read_to_end(&mut all).await.ok();
            });
        }
    });
    Greeter { uri: format!("https://{address}").parse().unwrap(), address, came }
}

impl Greeter {
    async fn came(&mut self) -> Peer {
        tokio::time::timeout(PATIENCE, self.came.recv()).await.unwrap().unwrap()
    }
}

/// With TLS 1.3 a client knows that it was let in once it has read something.
async fn greeted(dialed: std::io::Result<Dialed>) -> Result<(), String> {
    let mut connection = dialed.map_err(|error| error.to_string())?;
    let mut hello = [0; 5];
    tokio::time::timeout(PATIENCE, connection.read_exact(&mut hello))
        .await
        .unwrap()
        .map_err(|e| e.to_string())?;
    assert_eq!(&hello, b"hello");
    Ok(())
}

#[test]
fn every_trouble_with_a_file_names_the_file_and_the_way_out() {
    let folder = Folder::new();
    let ca = authority("ours");
    let good = folder.issue("good", params(&["a"]), &ca, &ca);
    let other = folder.issue("other", params(&["a"]), &ca, &ca);
    let with = |change: &dyn Fn(&mut TlsConfig)| {
        let mut config = good.clone();
        change(&mut config);
        refused(&config)
    };
    let says = |text: String, words: &[&str]| {
        assert!(words.iter().all(|word| text.contains(word)), "{text} lacks one of {words:?}");
        assert!(!text.contains("PRIVATE KEY-----\nM"), "{text}");
    };
    says(with(&|c| c.ca_path = None), &["`tls.ca_path` is missing"]);
    says(with(&|c| c.key_path = Some(PathBuf::new())), &["`tls.key_path` is missing"]);
    says(with(&|c| c.cert_path = None), &["`tls.cert_path` is missing"]);
    says(
        with(&|c| c.cert_path = Some("/absent.pem".into())),
        &["`/absent.pem` (tls.cert_path)", "does not exist"],
    );
    says(with(&|c| c.key_path = Some(folder.path(""))), &["(tls.key_path)", "is a directory"]);
    let empty = folder.write("empty", "");
    says(with(&|c| c.ca_path = Some(empty.clone())), &["empty` (tls.ca_path) is empty"]);
    let words = folder.write("words", "these are words");
    says(with(&|c| c.cert_path = Some(words.clone())), &["words", "-----BEGIN CERTIFICATE-----"]);
    says(with(&|c| c.key_path = Some(words.clone())), &["words", "-----BEGIN PRIVATE KEY-----"]);
    says(with(&|c| std::mem::swap(&mut c.cert_path, &mut c.key_path)), &["are the two files exchanged?"]);
    says(with(&|c| c.key_path = c.cert_path.clone()), &["holds a certificate and no private key"]);
    says(
        with(&|c| c.key_path = other.key_path.clone()),
        &["other.key", "does not belong to the certificate", "good.pem"],
    );
    let whole = fs::read_to_string(folder.path("good.pem")).unwrap();
    let cut = folder.write("cut.pem", &whole[..whole.len() / 2]);
    says(with(&|c| c.cert_path = Some(cut.clone())), &["cut.pem", "is cut short"]);
    let key = fs::read_to_string(folder.path("good.key")).unwrap();
    let cut = folder.write("cut.key", &key[..key.len() / 2]);
    says(with(&|c| c.key_path = Some(cut.clone())), &["cut.key", "is cut short"]);
    let garbled = folder.write("garbled.pem", whole.replace("MII", "MI!"));
    says(with(&|c| c.cert_path = Some(garbled.clone())), &["garbled.pem", "is not PEM"]);
    let locked = folder.write(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    says(with(&|c| c.key_path = Some(locked.clone())), &["locked.key", "is encrypted", "openssl pkey"]);
    let der = folder.write("der", [0x30, 0x82, 0x01, 0x00]);
    says(with(&|c| c.cert_path = Some(der.clone())), &["is DER", "openssl x509"]);
    assert!(Tls::open(&TlsConfig::default()).unwrap().is_none());
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read_is_said_so() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let ca = authority("ours");
    let config = folder.issue("a", params(&["a"]), &ca, &ca);
    fs::set_permissions(folder.path("a.key"), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(folder.path("a.key")).is_ok() {
        // Root may read everything.
        assert!(Tls::open(&config).is_ok());
        return;
    }
    assert!(refused(&config).contains("this process may not"));
}

#[test]
fn a_certificate_out_of_its_time_is_refused_at_the_start() {
    let folder = Folder::new();
    let ca = authority("ours");
    let mut past = params(&["a"]);
    (past.not_before, past.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    let text = refused(&folder.issue("past", past, &ca, &ca));
    assert!(text.contains("past.pem` (tls.cert_path) expired on") && text.contains("2002"), "{text}");
    let mut future = params(&["a"]);
    (future.not_before, future.not_after) =
        (rcgen::date_time_ymd(2901, 1, 1), rcgen::date_time_ymd(2902, 1, 1));
    let text = refused(&folder.issue("future", future, &ca, &ca));
    assert!(text.contains("future.pem") && text.contains("is the clock of this machine right?"), "{text}");
}

#[tokio::test]
async fn members_know_each_other_by_name() {
    let folder = Folder::new();
    let ca = authority("ours");
    let server = folder.identity("server", &["worker-1", "127.0.0.1"], &ca);
    let client = folder.identity("client", &["worker-0"], &ca);
    for guard in [Guard::Asks(server.clone()), Guard::Demands(server.clone())] {
        let mut greeter = greeter(guard).await;
        greeted(client.dial(&greeter.uri, None).await).await.unwrap();
        let peer = greeter.came().await;
        assert_eq!(peer.names(), ["worker-0"]);
        assert!(
            peer.is_secured() && peer.check_name("worker-0").is_ok() && peer.check_name("worker-1").is_err()
        );
        greeted(client.dial(&greeter.uri, Some("worker-1")).await).await.unwrap();
        let error = greeted(client.dial(&greeter.uri, Some("worker-2")).await).await.unwrap_err();
        assert!(error.contains("`worker-1`") && error.contains("not for `worker-2`"), "{error}");
    }
}

#[tokio::test]
async fn a_host_that_the_certificate_does_not_name_is_refused_unless_names_are_not_compared() {
    let folder = Folder::new();
    let ca = authority("ours");
    let greeter = greeter(Guard::Asks(folder.identity("server", &["elsewhere.example"], &ca))).await;
    let strict = folder.issue("client", params(&["c"]), &ca, &ca);
    let error =
        greeted(Tls::open(&strict).unwrap().unwrap().dial(&greeter.uri, None).await).await.unwrap_err();
    assert!(error.contains("is for `elsewhere.example`, and not for `127.0.0.1`"), "{error}");
    let lax = TlsConfig { verify_names: false, ..strict };
    greeted(Tls::open(&lax).unwrap().unwrap().dial(&greeter.uri, None).await).await.unwrap();
}

#[tokio::test]
async fn without_a_certificate_one_is_let_in_where_it_is_asked_for_and_sent_away_where_it_is_demanded() {
    let folder = Folder::new();
    let ca = authority("ours");
    let server = folder.identity("server", &["127.0.0.1"], &ca);
    let tool = TlsClient::open(Some(&folder.path("server.ca")), None, None).unwrap();
    let mut asks = greeter(Guard::Asks(server.clone())).await;
    greeted(tool.dial(&asks.uri).await).await.unwrap();
    let peer = asks.came().await;
    assert!(peer.is_secured() && !peer.is_verified() && peer.check_member().is_err());
    let mut demands = greeter(Guard::Demands(server)).await;
    let error = greeted(tool.dial(&demands.uri).await).await.unwrap_err();
    assert!(error.contains("it asks for a certificate, and none was shown"), "{error}");
    assert!(demands.came.try_recv().is_err());
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_sent_away_even_where_none_is_demanded() {
    let folder = Folder::new();
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let server = folder.identity("server", &["127.0.0.1"], &ours);
    let stranger =
        Tls::open(&folder.issue("stranger", params(&["worker-0"]), &theirs, &ours)).unwrap().unwrap();
    for guard in [Guard::Asks(server.clone()), Guard::Demands(server)] {
        let mut greeter = greeter(guard).await;
        let error = greeted(stranger.dial(&greeter.uri, None).await).await.unwrap_err();
        assert!(error.contains("does not trust the authority of the certificate that was shown"), "{error}");
        assert!(greeter.came.try_recv().is_err());
    }
}

/// The same name, another key: what a forger would make.
#[tokio::test]
async fn an_authority_of_the_same_name_is_another_one() {
    let folder = Folder::new();
    let (ours, forged) = (authority("ours"), authority("ours"));
    let mut greeter = greeter(Guard::Demands(folder.identity("server", &["127.0.0.1"], &ours))).await;
    let forger = Tls::open(&folder.issue("forger", params(&["worker-0"]), &forged, &ours)).unwrap().unwrap();
    greeted(forger.dial(&greeter.uri, None).await).await.unwrap_err();
    assert!(greeter.came.try_recv().is_err());
    let fooled =
        Tls::open(&folder.issue("fooled", params(&["worker-0"]), &forged, &forged)).unwrap().unwrap();
    let error = greeted(fooled.dial(&greeter.uri, None).await).await.unwrap_err();
    assert!(error.contains("its certificate is"), "{error}");
}

/// What expires while a process runs is not stopped by the look at its start.
fn expired(by: &Authority) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let mut past = params(&["127.0.0.1"]);
    (past.not_before, past.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    let certificate = past.signed_by(&key, by).unwrap();
    (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

#[tokio::test]
async fn a_client_whose_certificate_has_expired_is_sent_away() {
    let folder = Folder::new();
    let ca = authority("ours");
    let mut greeter = greeter(Guard::Asks(folder.identity("server", &["127.0.0.1"], &ca))).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let (chain, key) = expired(&ca);
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let config = Arc::new(builder.with_client_auth_cert(chain, key).unwrap());
    let tcp = TcpStream::connect(greeter.address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await.unwrap();
    let error = stream.read(&mut [0; 5]).await.unwrap_err();
    assert!(error.to_string().contains("CertificateExpired"), "{error}");
    assert!(greeter.came.try_recv().is_err());
}

#[tokio::test]
async fn a_server_whose_certificate_has_expired_is_not_spoken_to() {
    let folder = Folder::new();
    let ca = authority("ours");
    let client = folder.identity("client", &["worker-0"], &ca);
    let (chain, key) = expired(&ca);
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri: Uri = format!("https://{}", tcp.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = tcp.accept().await {
            acceptor.accept(stream).await.ok();
        }
    });
    for name in [None, Some("127.0.0.1")] {
        let error = client.dial(&uri, name).await.unwrap_err().to_string();
        assert!(error.contains("its certificate expired on") && error.contains("2002"), "{error}");
    }
}

#[tokio::test]
async fn one_that_is_not_for_clients_is_sent_away() {
    let folder = Folder::new();
    let ca = authority("ours");
    let greeter = greeter(Guard::Demands(folder.identity("server", &["127.0.0.1"], &ca))).await;
    let mut only_server = params(&["worker-0"]);
    only_server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let client = Tls::open(&folder.issue("client", only_server, &ca, &ca)).unwrap().unwrap();
    let error = greeted(client.dial(&greeter.uri, None).await).await.unwrap_err();
    assert!(error.contains("not one for clients"), "{error}");
}

#[tokio::test]
async fn plain_against_tls_and_tls_against_plain_are_told_apart() {
    let folder = Folder::new();
    let ca = authority("ours");
    let identity = folder.identity("a", &["127.0.0.1"], &ca);
    let secured = greeter(Guard::Asks(identity.clone())).await;
    let mut plain = dial_plain(&secured.uri).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let error = plain.read(&mut [0; 64]).await.unwrap_err();
    assert_eq!(error.to_string(), "it speaks TLS there: write https://");
    let mut open = greeter(Guard::Plain).await;
    let error = greeted(identity.dial(&open.uri, None).await).await.unwrap_err();
    assert!(error.contains("it does not speak TLS there: write http://"), "{error}");
    let peer = open.came().await;
    assert!(!peer.is_secured() && peer.check_name("anybody").is_ok());
}

#[tokio::test]
async fn new_files_are_used_from_the_next_connection_on_and_the_old_ones_stand() {
    let folder = Folder::new();
    let ca = authority("ours");
    let server = folder.identity("server", &["first.example", "127.0.0.1"], &ca);
    let client = folder.identity("client", &["worker-0"], &ca);
    let greeter = greeter(Guard::Demands(server.clone())).await;
    let mut old = client.dial(&greeter.uri, Some("first.example")).await.unwrap();
    assert_eq!(server.look(), Look::Same);

    let renewed = folder.issue("server", params(&["second.example", "127.0.0.1"]), &ca, &ca);
    assert_eq!(server.look(), Look::Changed);
    assert_eq!(server.names(), ["second.example"]);
    greeted(client.dial(&greeter.uri, Some("second.example")).await).await.unwrap();
    greeted(client.dial(&greeter.uri, Some("first.example")).await).await.unwrap_err();
    let mut hello = [0; 5];
    old.read_exact(&mut hello).await.unwrap();

    // A pair of which only one half has been written is not used, and heals when the other half comes.
    let key = KeyPair::generate().unwrap();
    let third = params(&["third.example", "127.0.0.1"]).signed_by(&key, &ca).unwrap();
    fs::write(renewed.cert_path.unwrap(), third.pem()).unwrap();
    let Look::Broken(reason) = server.look() else { panic!("half a pair was taken") };
    assert!(reason.contains("does not belong to the certificate"), "{reason}");
    greeted(client.dial(&greeter.uri, Some("second.example")).await).await.unwrap();
    fs::write(renewed.key_path.unwrap(), key.serialize_pem()).unwrap();
    assert_eq!(server.look(), Look::Changed);
    greeted(client.dial(&greeter.uri, Some("third.example")).await).await.unwrap();

    // Another authority: those of the old one are sent away from now on, connections that stand live on.
    let other = authority("other");
    fs::write(renewed.ca_path.unwrap(), other.pem()).unwrap();
    assert_eq!(server.look(), Look::Changed);
    greeted(client.dial(&greeter.uri, Some("third.example")).await).await.unwrap_err();
    old.write_all(b"still here").await.unwrap();
}

#[tokio::test]
async fn files_that_change_are_found_without_being_told() {
    let folder = Folder::new();
    let ca = authority("ours");
    let config = folder.issue("a", params(&["before"]), &ca, &ca);
    let cancel = tokio_util::sync::CancellationToken::new();
    let tls = Tls::start(&config, cancel.clone()).unwrap().unwrap();
    fs::remove_file(folder.path("a.pem")).unwrap();
    folder.issue("a", params(&["after"]), &ca, &ca);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tls.names() != ["after"] {
        assert!(tokio::time::Instant::now() < deadline, "the new certificate was not found");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cancel.cancel();
}

/// More silent strangers than handshakes may be under way, and somebody with a certificate comes after them.
#[tokio::test]
async fn strangers_who_keep_silent_do_not_keep_others_out() {
    let folder = Folder::new();
    let ca = authority("ours");
    let identity = folder.identity("a", &["127.0.0.1"], &ca);
    let mut greeter = greeter(Guard::Demands(identity.clone())).await;
    let mut silent = Vec::new();
    for _ in 0..400 {
        match TcpStream::connect(greeter.address).await {
            Ok(stream) => silent.push(stream),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
    greeted(identity.dial(&greeter.uri, None).await).await.unwrap();
    assert!(greeter.came().await.is_verified());
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_begin_to_speak_http2_is_hung_up_on() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let mut incoming = Incoming::new(tcp, Guard::Plain, "test");
    let (client, server) = tokio::join!(TcpStream::connect(address), incoming.next());
    let (mut client, mut server) = (client.unwrap(), server.unwrap().unwrap());
    client.write_all(b"PRI").await.unwrap();
    let mut seen = [0; 3];
    server.read_exact(&mut seen).await.unwrap();
    let error = server.read(&mut seen).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn a_tool_names_what_is_missing() {
    let folder = Folder::new();
    let ca = authority("ours");
    folder.issue("a", params(&["a"]), &ca, &ca);
    let open = |cert: Option<&str>, key: Option<&str>| {
        let path = |name: Option<&str>| name.map(|name| folder.path(name));
        let (cert, key) = (path(cert), path(key));
        let ca: Arc<Path> = folder.path("a.ca").into();
        TlsClient::open(Some(&ca), cert.as_deref(), key.as_deref()).map(|_| ()).map_err(|e| e.to_string())
    };
    assert!(open(Some("a.pem"), Some("a.key")).is_ok() && open(None, None).is_ok());
    assert!(open(Some("a.pem"), None).unwrap_err().contains("add --key"));
    assert!(open(None, Some("a.key")).unwrap_err().contains("add --cert"));
    assert!(open(Some("a.pem"), Some("b.key")).unwrap_err().contains("b.key` (--key) does not exist"));
}
