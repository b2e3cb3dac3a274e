//! Strangers at every port: random bytes, silence, TLS that is cut off, HTTP/1, frames that are larger than allowed, messages
//! that promise more than comes. The cluster works on and nobody in it takes notice; what they send is chosen by a seed.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use rustls::pki_types::ServerName;
use shardwright_integration_tests::process::Process;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use crate::trial::{Dress, Trial, epochs, open};

/// Connections to each port that say something.
const TALKERS: usize = 120;
/// Connections to each port that say nothing for as long as the test lasts.
const SILENT: usize = 40;
/// At the same time.
const AT_ONCE: usize = 16;
/// How long a talker waits for an answer that it does not read.
const PAUSE: Duration = Duration::from_millis(20);
/// What a process may take for all of it; its buffers and the load are in it too.
const GROWTH_MAX_KIB: u64 = 128 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn garbage_at_every_port_changes_nothing() {
    let name = "garbage_at_every_port_changes_nothing";
    garbage(name, Dress { secured: false, telemetry: true }, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_at_every_port_changes_nothing_with_tls() {
    let name = "garbage_at_every_port_changes_nothing_with_tls";
    garbage(name, Dress { secured: true, telemetry: true }, 7).await;
}

async fn garbage(name: &str, dress: Dress, seed: u64) {
    let Some(mut trial) = open(name, (1, 2, 2), None, dress).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(200).await;
    let before = epochs(&trial.admin().status().await.unwrap());
    let processes: Vec<(String, u32)> =
        trial.cluster.processes().map(|p| (p.name().to_owned(), p.pid().unwrap())).collect();
    let memory = |(name, pid): &(String, u32)| (name.clone(), resident(*pid));
    let small: BTreeMap<String, u64> = processes.iter().map(memory).collect();

    let mut ports = Vec::new();
    for (name, pid) in &processes {
        let found = listening(*pid);
        // Telemetry and, beside it, the one listener of a coordinator or the exchange of a worker.
        assert_eq!(found.len(), 2, "{name} listens at {found:?}");
        ports.extend(found);
    }
    let tls = dress.secured.then(|| connector(&trial));
    let silent = throw(&ports, tls, seed).await;
    trial.records(200).await;

    for process in trial.cluster.processes() {
        unchanged(process, &processes);
    }
    for process in &processes {
        let (name, after) = memory(process);
        println!("{name}: {} KiB before, {after} KiB after", small[&name]);
        assert!(
            after < small[&name] + GROWTH_MAX_KIB,
            "{name} has grown from {} to {after} KiB",
            small[&name]
        );
    }
    let moved = epochs(&trial.admin().status().await.unwrap()) != before;
    println!("{} ports, tasks have moved: {moved}", ports.len());
    drop(silent);
    trial.reading().await;
    trial.ledger().await;
}

/// The process is the one that was there before, and complains of no panic.
fn unchanged(process: &Process, before: &[(String, u32)]) {
    let pid = before.iter().find(|(name, _)| name == process.name()).map(|(_, pid)| *pid);
    assert_eq!(process.pid(), pid, "{}", process.tail());
    assert!(fs::metadata(format!("/proc/{}", pid.unwrap())).is_ok(), "it has ended\n{}", process.tail());
    let log = fs::read_to_string(process.log()).unwrap();
    assert!(!log.contains("panicked"), "{}", process.tail());
}

/// KiB of memory that a process has in use.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// The ports at which a process listens, as the system knows them.
fn listening(pid: u32) -> Vec<u16> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let sockets: Vec<String> = links
        .filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.to_str()?.to_owned()))
        .filter(|link| link.starts_with("socket:["))
        .collect();
    let mut ports = Vec::new();
    for table in ["tcp", "tcp6"] {
        for line in fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default().lines().skip(1)
        {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(&"0A"), Some(inode)) = (words.get(1), words.get(3), words.get(9)) else {
                continue;
            };
            if sockets.contains(&format!("socket:[{inode}]")) {
                ports.push(u16::from_str_radix(local.rsplit(':').next().unwrap(), 16).unwrap());
            }
        }
    }
    ports
}

/// TLS as somebody without a certificate speaks it.
fn connector(trial: &Trial) -> TlsConnector {
    let pem = fs::read(trial.cluster.authority().ca()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// All of it; gives back those that say nothing and hold on.
async fn throw(ports: &[u16], tls: Option<TlsConnector>, seed: u64) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for port in ports {
        for _ in 0..SILENT {
            silent.extend(TcpStream::connect(("127.0.0.1", *port)).await);
        }
    }
    let mut talkers = JoinSet::new();
    for (n, port) in ports.iter().enumerate() {
        for turn in 0..TALKERS {
            let mut chance =
                StdRng::seed_from_u64(seed ^ ((n * TALKERS + turn) as u64).wrapping_mul(0x9E37_79B9));
            let inside = tls.clone().filter(|_| turn % 3 == 0);
            let (what, port) = (bytes(&mut chance, turn), *port);
            let linger = chance.random_bool(0.5);
            talkers.spawn(async move {
                let Ok(tcp) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                match inside {
                    Some(tls) => {
                        let name = ServerName::try_from("127.0.0.1").unwrap();
                        // Refused by those who demand a certificate.
                        if let Ok(Ok(stream)) =
                            tokio::time::timeout(Duration::from_secs(5), tls.connect(name, tcp)).await
                        {
                            say(stream, &what, linger).await;
                        }
                    }
                    None => say(tcp, &what, linger).await,
                }
            });
            if talkers.len() >= AT_ONCE {
                talkers.join_next().await.unwrap().unwrap();
            }
        }
    }
    while let Some(ended) = talkers.join_next().await {
        ended.unwrap();
    }
    silent
}

/// Says it, and hangs up: at once, or after a moment in which it does not read.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, what: &[u8], linger: bool) {
    // The other side may have hung up already: that is its right.
    if tokio::time::timeout(Duration::from_secs(5), stream.write_all(what))
        .await
        .is_ok_and(|said| said.is_ok())
        && linger
    {
        stream.flush().await.ok();
        let mut answer = [0; 1024];
        tokio::time::timeout(PAUSE, stream.read(&mut answer)).await.ok();
    }
}

/// What one of them says.
fn bytes(chance: &mut StdRng, turn: usize) -> Vec<u8> {
    match turn % 9 {
        0 => random(chance, 1, 4096),
        1 => cut_hello(chance),
        2 => [cut_hello(chance), random(chance, 1, 2048)].concat(),
        3 => http1(chance),
        4 => [PREFACE.to_vec(), random(chance, 9, 4096)].concat(),
        5 => huge_frame(chance),
        6 => many_frames(chance),
        7 => call(chance),
        _ => [vec![0x16, 0x03, 0x01, 0xff, 0xff], random(chance, 1 << 10, 1 << 17)].concat(),
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn random(chance: &mut StdRng, least: usize, most: usize) -> Vec<u8> {
    let length = chance.random_range(least..most);
    let mut bytes = vec![0; length];
    chance.fill(&mut bytes[..]);
    bytes
}

/// The beginning of a real handshake, ended or spoilt somewhere.
fn cut_hello(chance: &mut StdRng) -> Vec<u8> {
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let cut = chance.random_range(1..hello.len());
    if chance.random_bool(0.5) {
        hello[cut] ^= 1 << chance.random_range(0..8);
    } else {
        hello.truncate(cut);
    }
    hello
}

fn http1(chance: &mut StdRng) -> Vec<u8> {
    let long = "x".repeat(chance.random_range(1..60_000));
    match chance.random_range(0..4) {
        0 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        1 => format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
        2 => format!("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{long}")
            .into_bytes(),
        _ => format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: {long}").into_bytes(),
    }
}

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
}

/// A frame of 16 MiB that is announced, and a part of it.
fn huge_frame(chance: &mut StdRng) -> Vec<u8> {
    let announced = [0xff, 0xff, 0xff, chance.random_range(0..10), 0, 0, 0, 0, 1];
    [PREFACE, &frame(4, 0, 0, &[]), &announced, &random(chance, 1, 1 << 18)].concat()
}

/// Settings, pings and resets by the thousand, or headers that never end.
fn many_frames(chance: &mut StdRng) -> Vec<u8> {
    let mut said = [PREFACE, &frame(4, 0, 0, &[])].concat();
    let kind = chance.random_range(0..4);
    for n in 0..2_000_u32 {
        let stream = 2 * n + 1;
        said.extend(match kind {
            0 => frame(4, 0, 0, &[0, 3, 0, 0, 0, 1]),
            1 => frame(6, 0, 0, &[7; 8]),
            2 => [
                frame(1, 4, stream, &request("/shardwright.v1.Admin/Status")),
                frame(3, 0, stream, &[0, 0, 0, 8]),
            ]
            .concat(),
            _ if n == 0 => frame(1, 0, 1, &request("/")),
            _ => frame(9, 0, 1, &random(chance, 100, 200)),
        });
    }
    said
}

/// The headers of a call, spelt out.
fn request(path: &str) -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    headers.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// Calls whose messages promise gigabytes, or are nothing that anybody knows.
fn call(chance: &mut StdRng) -> Vec<u8> {
    let paths = [
        "/shardwright.v1.Session/Attach",
        "/shardwright.v1.Admin/Execute",
        "/shardwright.v1.Exchange/Feed",
        "/grpc.health.v1.Health/Check",
        "/no/body",
    ];
    let mut said = [PREFACE, &frame(4, 0, 0, &[])].concat();
    for (n, path) in paths.iter().enumerate() {
        let stream = u32::try_from(2 * n + 1).unwrap();
        said.extend(frame(1, 4, stream, &request(path)));
        let (compressed, promised) = (chance.random_range(0..3), chance.random_range(0..=u32::MAX));
        let message = [&[compressed], &promised.to_be_bytes()[..], &random(chance, 1, 8_000)].concat();
        said.extend(frame(0, 0, stream, &message));
        let small = random(chance, 1, 200);
        let whole = [&[0], &u32::try_from(small.len()).unwrap().to_be_bytes()[..], &small].concat();
        said.extend(frame(0, 1, stream, &whole));
    }
    said
}
