//! The probes of a container: when each looks next, and what its answers in a row mean.

use std::{future::pending, net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::manifest::{Container, Probe};

/// Which probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// Holds the others up.
    Startup,
    /// Ends the container.
    Liveness,
    /// Takes it out of its services.
    Readiness,
}

/// Answers in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    good: u32,
    bad: u32,
}

impl Row {
    /// What one more answer means: `Some(true)` at the success threshold, `Some(false)` at the failure threshold, and while they last.
    pub fn add(&mut self, good: bool, probe: &Probe) -> Option<bool> {
        (self.good, self.bad) = if good { (self.good + 1, 0) } else { (0, self.bad + 1) };
        if good {
            (self.good >= probe.success_threshold).then_some(true)
        } else {
            (self.bad >= probe.failure_threshold).then_some(false)
        }
    }
}

struct Look {
    which: Which,
    probe: Probe,
    row: Row,
    at: Instant,
}

/// The probes of one run of a container.
pub struct Probes {
    ip: Ipv4Addr,
    container: Container,
    looks: Vec<Look>,
}

impl Probes {
    /// Those of a container that starts now.
    #[must_use]
    pub fn new(container: &Container, ip: Ipv4Addr) -> Self {
        let mut probes = Self { ip, container: container.clone(), looks: Vec::new() };
        match &container.startup_probe {
            Some(startup) => probes.add(Which::Startup, startup.clone()),
            None => probes.started(),
        }
        probes
    }

    fn add(&mut self, which: Which, probe: Probe) {
        let at = Instant::now() + Duration::from_secs(probe.initial_delay_seconds);
        self.looks.push(Look { which, probe, row: Row::default(), at });
    }

    /// The container has started: the other probes begin.
    pub fn started(&mut self) {
        self.looks.retain(|look| look.which != Which::Startup);
        if let Some(probe) = self.container.liveness_probe.clone() {
            self.add(Which::Liveness, probe);
        }
        if let Some(probe) = self.container.readiness_probe.clone() {
            self.add(Which::Readiness, probe);
        }
    }

    /// Whether this probe is there at all.
    #[must_use]
    pub fn has(&self, which: Which) -> bool {
        self.looks.iter().any(|look| look.which == which)
    }

    /// Waits for the next look that means something. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> (Which, bool) {
        loop {
            let due = (0..self.looks.len()).min_by_key(|number| self.looks[*number].at);
            let Some(due) = due else { return pending().await };
            let look = &self.looks[due];
            tokio::time::sleep_until(look.at).await;
            let within = Duration::from_secs(look.probe.timeout_seconds);
            let good = tokio::time::timeout(within, self.ask(&look.probe)).await.unwrap_or(false);
            let look = &mut self.looks[due];
            look.at = Instant::now() + Duration::from_secs(look.probe.period_seconds);
            if let Some(meaning) = look.row.add(good, &look.probe) {
                return (look.which, meaning);
            }
        }
    }

    async fn ask(&self, probe: &Probe) -> bool {
        let Some(get) = &probe.http_get else { return false };
        let Some(port) = self.container.port(&get.port) else { return false };
        status(self.ip, port, &get.path).await.is_ok_and(|code| (200..400).contains(&code))
    }
}

/// The status of a page.
async fn status(ip: Ipv4Addr, port: u16, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect((ip, port)).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {ip}:{port}\r\nUser-Agent: kube-probe\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(64 << 10).read_to_end(&mut answer).await?;
    let head = String::from_utf8_lossy(&answer);
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.ok_or_else(|| std::io::Error::other("no status line"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_in_a_row_count() {
        let probe = Probe { success_threshold: 2, failure_threshold: 3, ..Probe::default() };
        let mut row = Row::default();
        let answers = [false, false, true, false, false, false, false, true, true, true];
        let meanings: Vec<_> = answers.iter().map(|good| row.add(*good, &probe)).collect();
        let (no, yes) = (Some(false), Some(true));
        assert_eq!(meanings, [None, None, None, None, None, no, no, None, yes, yes]);
    }

    fn container(port: u16) -> Container {
        let get = format!(r#"{{"httpGet": {{"path": "/x", "port": {port}}}, "periodSeconds": 0}}"#);
        serde_json::from_str(&format!(
            r#"{{"name": "c", "startupProbe": {get}, "livenessProbe": {get}, "readinessProbe": {get}}}"#
        ))
        .unwrap()
    }

    #[tokio::test]
    async fn the_startup_probe_holds_the_others_up() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = tokio::spawn(async move {
            for code in ["503 No", "200 OK", "200 OK", "204 Empty"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut seen = [0; 512];
                let _ = stream.read(&mut seen).await.unwrap();
                stream.write_all(format!("HTTP/1.1 {code}\r\n\r\n").as_bytes()).await.unwrap();
            }
        });
        let mut probes = Probes::new(&container(port), Ipv4Addr::LOCALHOST);
        assert!(!probes.has(Which::Readiness));
        assert_eq!(probes.next().await, (Which::Startup, true));
        probes.started();
        let (first, second) = (probes.next().await, probes.next().await);
        assert!(first.1 && second.1 && first.0 != second.0, "{first:?} {second:?}");
        serve.await.unwrap();
    }

    #[tokio::test]
    async fn nobody_listening_is_a_bad_answer() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut probes = Probes::new(&container(port), Ipv4Addr::LOCALHOST);
        assert_eq!(probes.next().await, (Which::Startup, false));
    }
}
