//! The address of a service: listens there and passes each connection on to one of its ready pods, in turn. A pod that ends or is
//! not ready gets no new connection; those that are open go on, as with Kubernetes.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::{
    kubelet::State,
    manifest::{Container, Selector, Service},
};

/// A pod behind services.
#[derive(Clone)]
pub struct Endpoint {
    /// Where it is.
    pub ip: Ipv4Addr,
    /// What selects it.
    pub labels: BTreeMap<String, String>,
    /// Its ports.
    pub container: Arc<Container>,
    /// How it is.
    pub state: watch::Receiver<State>,
}

/// All pods by name.
#[derive(Clone, Default)]
pub struct Endpoints(Arc<Mutex<BTreeMap<String, Endpoint>>>);

impl Endpoints {
    /// There is a pod.
    pub fn put(&self, name: &str, endpoint: Endpoint) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), endpoint);
    }

    /// It is gone.
    pub fn remove(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn ready(&self, selector: &Selector) -> Vec<Endpoint> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values()
            .filter(|pod| selector.selects(&pod.labels) && pod.state.borrow().serves())
            .cloned()
            .collect()
    }
}

/// A service that is served.
pub struct Served {
    /// Its address.
    pub ip: Ipv4Addr,
    _ports: JoinSet<()>,
}

impl Served {
    /// Serves a service.
    ///
    /// # Errors
    /// When its address cannot be bound.
    pub async fn start(service: &Service, ip: Ipv4Addr, endpoints: &Endpoints) -> Result<Self> {
        let mut ports = JoinSet::new();
        let selector = Selector { match_labels: service.spec.selector.clone() };
        for port in &service.spec.ports {
            let listener = TcpListener::bind((ip, port.port)).await;
            let listener = listener
                .with_context(|| format!("service {} at {ip}:{}", service.metadata.name, port.port))?;
            let (endpoints, selector, target) =
                (endpoints.clone(), selector.clone(), port.target_port.clone());
            let turn = AtomicUsize::new(0);
            ports.spawn(async move {
                let mut open = JoinSet::new();
                while let Ok((mut from, _)) = listener.accept().await {
                    while open.try_join_next().is_some() {}
                    let ready = endpoints.ready(&selector);
                    // Nobody is ready: the connection is closed at once, as kube-proxy refuses it.
                    if ready.is_empty() {
                        continue;
                    }
                    let pod = &ready[turn.fetch_add(1, Ordering::Relaxed) % ready.len()];
                    let Some(port) = pod.container.port(&target) else { continue };
                    let at = (pod.ip, port);
                    open.spawn(async move {
                        if let Ok(mut to) = TcpStream::connect(at).await {
                            from.set_nodelay(true).ok();
                            to.set_nodelay(true).ok();
                            tokio::io::copy_bidirectional(&mut from, &mut to).await.ok();
                        }
                    });
                }
            });
        }
        Ok(Self { ip, _ports: ports })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::manifest::Release;

    async fn pod(name: &str, port: u16, ip: Ipv4Addr, endpoints: &Endpoints) -> watch::Sender<State> {
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        let said = name.to_owned();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(said.as_bytes()).await.unwrap();
            }
        });
        let container = format!(r#"{{"name": "c", "ports": [{{"name": "api", "containerPort": {port}}}]}}"#);
        let (tell, state) =
            watch::channel(State { ready_since: Some(tokio::time::Instant::now()), ..State::default() });
        let container = Arc::new(serde_json::from_str(&container).unwrap());
        endpoints.put(
            name,
            Endpoint { ip, labels: [("app".to_owned(), "x".to_owned())].into(), container, state },
        );
        tell
    }

    async fn asked(ip: Ipv4Addr, port: u16) -> String {
        let mut text = String::new();
        let mut stream = TcpStream::connect((ip, port)).await.unwrap();
        stream.read_to_string(&mut text).await.ok();
        text
    }

    #[tokio::test]
    async fn connections_go_to_ready_pods_in_turn() {
        let mut network = crate::network::Network::claim().unwrap();
        let endpoints = Endpoints::default();
        let a = pod("a", 7171, network.address(), &endpoints).await;
        let b = pod("b", 7171, network.address(), &endpoints).await;
        let text = "kind: Service\nmetadata: {name: s}\nspec: {selector: {app: x}, ports: [{port: 7272, targetPort: api}]}";
        let release = Release::read(text).unwrap();
        let served = Served::start(&release.services[0], network.address(), &endpoints).await.unwrap();
        let mut both = [asked(served.ip, 7272).await, asked(served.ip, 7272).await];
        both.sort();
        assert_eq!(both, ["a", "b"]);
        a.send_modify(|state| state.ends = true);
        assert_eq!([asked(served.ip, 7272).await, asked(served.ip, 7272).await], ["b", "b"]);
        b.send_modify(|state| state.ready_since = None);
        assert_eq!(asked(served.ip, 7272).await, "", "nobody is ready");
    }
}
