//! A real etcd on free ports and a temporary directory, and a proxy that can lose answers.

use std::{
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use shardwright_store::{EtcdConfig, EtcdStore};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

/// One etcd; killed when this value goes.
pub struct Etcd {
    folder: tempfile::TempDir,
    program: PathBuf,
    scheme: &'static str,
    port: u16,
    arguments: Vec<String>,
    child: Child,
}

impl Etcd {
    /// Starts the etcd at `$SHARDWRIGHT_TEST_ETCD`, or the one in the path; `None`, said aloud, if there is none.
    pub async fn start(test: &str, arguments: &[&str]) -> Option<Self> {
        Self::start_with(test, "http", arguments).await
    }

    pub async fn start_with(test: &str, scheme: &'static str, arguments: &[&str]) -> Option<Self> {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let program =
            std::env::var_os("SHARDWRIGHT_TEST_ETCD").map_or_else(|| PathBuf::from("etcd"), PathBuf::from);
        if let Err(why) = available(&program) {
            // Past the capture of the test runner: a skipped test must be seen.
            let mut aloud = std::io::stdout();
            writeln!(aloud, "\nskipped: {test}: {why}").unwrap();
            return None;
        }
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        // Another process may take the port between the look and the start: then it is tried again.
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let port = free_port();
            let child = spawn(&program, folder.path(), scheme, port, &arguments);
            let mut etcd =
                Self { folder, program: program.clone(), scheme, port, arguments: arguments.clone(), child };
            if etcd.listens().await {
                return Some(etcd);
            }
        }
        panic!("etcd does not come up");
    }

    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub async fn store(&self) -> EtcdStore {
        let mut config = EtcdConfig::new(vec![self.endpoint()]);
        config.connect_timeout = Duration::from_secs(20);
        EtcdStore::connect(config).await.unwrap()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same port and data.
    pub async fn revive(&mut self) {
        self.revive_authenticated(EtcdConfig::new(vec![self.endpoint()])).await;
    }

    /// The same, for one that must be asked as `config` says.
    pub async fn revive_authenticated(&mut self, mut config: EtcdConfig) {
        self.child = spawn(&self.program, self.folder.path(), self.scheme, self.port, &self.arguments);
        assert!(self.listens().await, "etcd does not come back");
        config.connect_timeout = Duration::from_secs(20);
        EtcdStore::connect(config).await.unwrap();
    }

    async fn listens(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn available(program: &Path) -> Result<(), &'static str> {
    if std::env::var_os("SHARDWRIGHT_TEST_SERVERS").is_some_and(|servers| servers == "off") {
        return Err("servers are switched off");
    }
    let asked = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.map(drop).map_err(|_| "etcd not installed")
}

pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn spawn(program: &Path, folder: &Path, scheme: &str, port: u16, arguments: &[String]) -> Child {
    let client = format!("{scheme}://127.0.0.1:{port}");
    // A cluster of one needs no peer to find it; port 0 would be refused.
    let peer = format!("http://127.0.0.1:{}", free_port());
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    Command::new(program)
        .arg("--data-dir")
        .arg(folder.join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// What becomes of an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Pass,
    /// Nobody hears of it, and the connection stays.
    Lose,
    /// The connection is closed instead, once.
    Cut,
}

/// Passes bytes on, until it is told to lose answers.
pub struct Proxy {
    port: u16,
    answers: Arc<Mutex<Answers>>,
}

impl Proxy {
    pub async fn start(to: u16) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers = Arc::new(Mutex::new(Answers::Pass));
        let shared = answers.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let answers = shared.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                    let ((client_in, client_out), (server_in, server_out)) =
                        (client.into_split(), server.into_split());
                    let always = Arc::new(Mutex::new(Answers::Pass));
                    tokio::select! {
                        () = pass(client_in, server_out, always) => {}
                        () = pass(server_in, client_out, answers) => {}
                    }
                });
            }
        });
        Self { port, answers }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn lose_answers(&self) {
        *self.answers.lock().unwrap() = Answers::Lose;
    }

    pub fn cut_next_answer(&self) {
        *self.answers.lock().unwrap() = Answers::Cut;
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    answers: Arc<Mutex<Answers>>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let now = *answers.lock().unwrap();
        match now {
            Answers::Pass if to.write_all(&buffer[..n]).await.is_err() => return,
            Answers::Pass | Answers::Lose => {}
            Answers::Cut => {
                *answers.lock().unwrap() = Answers::Pass;
                return;
            }
        }
    }
}
