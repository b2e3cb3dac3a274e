//! The control plane: holds what the manifests want, and makes, takes away and replaces pods until it is so. Nothing here decides:
//! [`set`](crate::set) says the steps, [`budget`](crate::budget) whether a well pod may be taken away.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::time::Instant;

use crate::{
    budget,
    kubelet::{self, Plan, Pod},
    manifest::{Hook, Release, StatefulSet},
    network::Network,
    place::Places,
    service::{Endpoints, Served},
    set::{self, Seen, Step, Wanted},
};

const NAMESPACE: &str = "test";
const LOOK: Duration = Duration::from_millis(20);

struct Held {
    pod: Pod,
    revision: String,
}

/// A release that runs on this machine. Everything is killed when this value goes.
pub struct Cluster {
    binary: PathBuf,
    dir: PathBuf,
    network: Network,
    release: Release,
    services: BTreeMap<String, Served>,
    endpoints: Endpoints,
    /// By set and ordinal.
    pods: BTreeMap<(String, u32), Held>,
    /// Pods made so far.
    made: usize,
}

impl Cluster {
    /// An empty one; pods run `binary` and keep their files below `dir`.
    ///
    /// # Errors
    /// When no network can be had.
    pub fn new(binary: &Path, dir: &Path) -> Result<Self> {
        Ok(Self {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            network: Network::claim()?,
            release: Release::default(),
            services: BTreeMap::new(),
            endpoints: Endpoints::default(),
            pods: BTreeMap::new(),
            made: 0,
        })
    }

    /// From now on this is wanted. `helm install` and `helm upgrade` do it; nothing is awaited.
    ///
    /// # Errors
    /// When a service has no address.
    pub async fn apply(&mut self, release: Release) -> Result<()> {
        for service in &release.services {
            let name = &service.metadata.name;
            if service.spec.cluster_ip != "None" && !self.services.contains_key(name) {
                let served = Served::start(service, self.network.address(), &self.endpoints).await?;
                self.services.insert(name.clone(), served);
            }
        }
        self.release = release;
        Ok(())
    }

    /// The URL of a port of a service.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn url(&self, service: &str, port: u16) -> Result<String> {
        let served = self.services.get(service).with_context(|| format!("there is no service {service}"))?;
        Ok(format!("http://{}:{port}", served.ip))
    }

    /// Works until all sets are as wanted; how many pods were made on the way.
    ///
    /// # Errors
    /// After `deadline`, or when a pod cannot be started.
    pub async fn settle(&mut self, deadline: Duration) -> Result<usize> {
        let (until, before) = (Instant::now() + deadline, self.made);
        loop {
            if self.step()? {
                return Ok(self.made - before);
            }
            if Instant::now() > until {
                bail!("not settled after {deadline:?}: {}", self.describe());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How many pods were made so far.
    #[must_use]
    pub fn made(&self) -> usize {
        self.made
    }

    /// Does what is due now; whether nothing is left to do or to wait for.
    ///
    /// # Errors
    /// When a pod cannot be started, or did not end in time.
    pub fn step(&mut self) -> Result<bool> {
        let gone: Vec<_> =
            self.pods.iter().filter(|(_, held)| held.pod.state().gone).map(|(key, _)| key.clone()).collect();
        for key in gone {
            if let Some(held) = self.pods.remove(&key) {
                let state = held.pod.state();
                if let Some(reason) = state.failed {
                    bail!("pod {}: {reason}", held.pod.identity.name);
                }
                ensure!(!state.killed, "pod {} did not end within its grace period", held.pod.identity.name);
                self.endpoints.remove(&held.pod.identity.name);
            }
        }
        let mut settled = true;
        for set in self.release.sets.clone() {
            let name = &set.metadata.name;
            let wanted = Wanted {
                replicas: set.spec.replicas,
                policy: set.spec.pod_management_policy,
                revision: &set.revision,
            };
            for step in set::steps(wanted, &self.seen(&set)) {
                match step {
                    Step::Make(ordinal) => self.make(&set, ordinal)?,
                    Step::Remove(ordinal) => self.remove(&(name.clone(), ordinal))?,
                }
            }
            settled &= set::settled(wanted, &self.seen(&set));
        }
        Ok(settled)
    }

    fn seen(&self, set: &StatefulSet) -> BTreeMap<u32, Seen> {
        let mine = self.pods.iter().filter(|((name, _), _)| *name == set.metadata.name);
        let min_ready = Duration::from_secs(set.spec.min_ready_seconds);
        mine.map(|((_, ordinal), held)| {
            let state = held.pod.state();
            let available = state.ready_since.is_some_and(|since| since.elapsed() >= min_ready);
            (*ordinal, Seen { revision: held.revision.clone(), available, ends: state.ends })
        })
        .collect()
    }

    fn names(&self) -> Places {
        let mut names = Places::default();
        for (name, served) in &self.services {
            for suffix in ["svc", "svc.cluster.local"] {
                names.put(&format!("{name}.{NAMESPACE}.{suffix}"), &served.ip.to_string());
            }
        }
        names
    }

    fn make(&mut self, set: &StatefulSet, ordinal: u32) -> Result<()> {
        let template = &set.spec.template;
        let name = format!("{}-{ordinal}", set.metadata.name);
        let ip = self.network.address();
        let identity = kubelet::identity(&name, NAMESPACE, ip, &template.metadata);
        let plan = Plan {
            dir: kubelet::dir_of(&self.dir, &identity),
            identity,
            ip,
            spec: template.spec.clone(),
            binary: self.binary.clone(),
            logs: self.dir.join("logs"),
            names: self.names(),
        };
        let pod = Pod::start(plan, &self.release)?;
        if let Some(endpoint) = kubelet::endpoint(&pod, &template.spec) {
            self.endpoints.put(&name, endpoint);
        }
        self.made += 1;
        let held = Held { pod, revision: set.revision.clone() };
        self.pods.insert((set.metadata.name.clone(), ordinal), held);
        Ok(())
    }

    /// Takes a pod away, if every budget allows it now; it is asked again otherwise.
    fn remove(&mut self, key: &(String, u32)) -> Result<()> {
        let held = self.pods.get(key).with_context(|| format!("there is no pod {}-{}", key.0, key.1))?;
        if self.may_go(&held.pod)? {
            held.pod.stop();
        }
        Ok(())
    }

    /// A pod that is not ready protects nothing (`unhealthyPodEvictionPolicy: AlwaysAllow`).
    fn may_go(&self, pod: &Pod) -> Result<bool> {
        if !pod.state().serves() {
            return Ok(true);
        }
        for budget in &self.release.budgets {
            let selector = &budget.spec.selector;
            if !selector.selects(&pod.identity.labels) {
                continue;
            }
            let wanted =
                self.release.sets.iter().filter(|set| selector.selects(&set.spec.template.metadata.labels));
            let wanted = wanted.map(|set| set.spec.replicas).sum();
            let well = self.pods.values().map(|held| &held.pod);
            let well =
                well.filter(|pod| selector.selects(&pod.identity.labels) && pod.state().serves()).count();
            if budget::allowed(&budget.spec, wanted, u32::try_from(well)?)? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The name of the pod at this address.
    #[must_use]
    pub fn pod_at(&self, url: &str) -> Option<String> {
        let pods = self.pods.values().map(|held| &held.pod);
        let mut at = pods.filter(|pod| url.contains(&format!("//{}:", pod.ip)));
        at.next().map(|pod| pod.identity.name.clone())
    }

    fn pod(&self, name: &str) -> Result<&Pod> {
        let mut pods = self.pods.values().map(|held| &held.pod);
        pods.find(|pod| pod.identity.name == name).with_context(|| format!("there is no pod {name}"))
    }

    /// Evicts a pod, as the drain of its node would: its set makes another one.
    ///
    /// # Errors
    /// When a budget does not allow it.
    pub fn evict(&self, name: &str) -> Result<()> {
        let pod = self.pod(name)?;
        ensure!(self.may_go(pod)?, "the budget keeps pod {name}");
        pod.stop();
        Ok(())
    }

    /// kill -9 of a pod's process.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn crash(&self, name: &str) -> Result<()> {
        self.pod(name)?.crash();
        Ok(())
    }

    /// How often the container of a pod was started again.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn restarts(&self, name: &str) -> Result<u32> {
        Ok(self.pod(name)?.state().restarts)
    }

    /// Names of the pods of a set.
    #[must_use]
    pub fn pods_of(&self, set: &str) -> Vec<String> {
        let mine = self.pods.iter().filter(|((name, _), _)| name == set);
        mine.map(|(_, held)| held.pod.identity.name.clone()).collect()
    }

    /// Runs the hooks of a moment (`post-install`), one after the other; how many.
    ///
    /// # Errors
    /// When one does not succeed within `deadline`.
    pub async fn run_hooks(&mut self, moment: &str, deadline: Duration) -> Result<usize> {
        let hooks: Vec<Hook> = self.release.hooks.iter().filter(|hook| hook.at(moment)).cloned().collect();
        for hook in &hooks {
            let ip = self.network.address();
            let identity = kubelet::identity(&hook.metadata.name, NAMESPACE, ip, &hook.metadata);
            let plan = Plan {
                dir: kubelet::dir_of(&self.dir, &identity),
                identity,
                ip,
                spec: hook.spec.clone(),
                binary: self.binary.clone(),
                logs: self.dir.join("logs"),
                names: self.names(),
            };
            kubelet::complete(&plan, &self.release, deadline)
                .await
                .with_context(|| format!("hook {moment}"))?;
        }
        Ok(hooks.len())
    }

    /// How each pod is, in a line.
    #[must_use]
    pub fn describe(&self) -> String {
        let one = |held: &Held| {
            let state = held.pod.state();
            let how = match (state.ends, state.ready_since) {
                (true, _) => "ends".to_owned(),
                (_, Some(since)) => format!("ready for {:.1} s", since.elapsed().as_secs_f64()),
                (_, None) => {
                    format!("not ready, restarts {}, last exit code {:?}", state.restarts, state.code)
                }
            };
            format!("{} {how}", held.pod.identity.name)
        };
        self.pods.values().map(one).collect::<Vec<_>>().join("; ")
    }
}
