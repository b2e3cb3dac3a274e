//! What a pod is made of, as far as the runner knows it.

use anyhow::{Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// A port of a container or a service: its number, or the name of the container's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Port {
    /// Its number.
    Number(u16),
    /// Its name.
    Name(String),
}

/// A volume's key and where it goes.
#[derive(Clone, Debug, Deserialize)]
pub struct Item {
    /// Of the ConfigMap or Secret.
    pub key: String,
    /// Below the mount.
    pub path: String,
}

/// A volume of a pod; exactly one of its kinds is there.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// What mounts call it.
    pub name: String,
    /// Files of a ConfigMap.
    pub config_map: Option<FromConfigMap>,
    /// Files of a Secret.
    pub secret: Option<FromSecret>,
    /// An empty directory that lives as long as the pod.
    pub empty_dir: Option<Value>,
}

/// Files of a ConfigMap.
#[derive(Clone, Debug, Deserialize)]
pub struct FromConfigMap {
    /// Its name.
    pub name: String,
    /// All keys if empty.
    #[serde(default)]
    pub items: Vec<Item>,
}

/// Files of a Secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FromSecret {
    /// Its name.
    pub secret_name: String,
    /// All keys if empty.
    #[serde(default)]
    pub items: Vec<Item>,
}

/// Where a volume is seen.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Of the volume.
    pub name: String,
    /// In the container.
    pub mount_path: String,
    /// A part of the volume.
    #[serde(default)]
    pub sub_path: String,
}

/// A variable of a container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value, in which `$(NAME)` is an earlier variable.
    pub value: Option<String>,
    /// Where its value comes from instead.
    pub value_from: Option<ValueFrom>,
}

/// Where a variable's value comes from; exactly one is there.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueFrom {
    /// The pod itself.
    pub field_ref: Option<FieldRef>,
    /// A Secret's key.
    pub secret_key_ref: Option<KeyRef>,
    /// A ConfigMap's key.
    pub config_map_key_ref: Option<KeyRef>,
}

/// A field of the pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldRef {
    /// `metadata.name`, …
    pub field_path: String,
}

/// A key of a ConfigMap or Secret.
#[derive(Clone, Debug, Deserialize)]
pub struct KeyRef {
    /// The object.
    pub name: String,
    /// The key.
    pub key: String,
    /// Whether the variable may be missing.
    #[serde(default)]
    pub optional: bool,
}

/// How a container is looked at.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Probe {
    /// The only way that the runner knows.
    pub http_get: Option<HttpGet>,
    /// Before the first look.
    pub initial_delay_seconds: u64,
    /// Between two looks.
    pub period_seconds: u64,
    /// Until a look is given up.
    pub timeout_seconds: u64,
    /// In a row.
    pub success_threshold: u32,
    /// In a row.
    pub failure_threshold: u32,
}

impl Default for Probe {
    /// What Kubernetes takes for what is not said.
    fn default() -> Self {
        Self {
            http_get: None,
            initial_delay_seconds: 0,
            period_seconds: 10,
            timeout_seconds: 1,
            success_threshold: 1,
            failure_threshold: 3,
        }
    }
}

/// A page that must answer 200…399.
#[derive(Clone, Debug, Deserialize)]
pub struct HttpGet {
    /// Its path.
    pub path: String,
    /// Its port.
    pub port: Port,
}

/// A port of a container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its number.
    pub container_port: u16,
}

/// What happens before a container is told to stop.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lifecycle {
    /// Before SIGTERM.
    pub pre_stop: Option<PreStop>,
}

/// The only kind that the runner knows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreStop {
    /// It waits.
    pub sleep: Sleep,
}

/// How long.
#[derive(Clone, Debug, Deserialize)]
pub struct Sleep {
    /// Seconds.
    pub seconds: u64,
}

/// A container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Instead of the image's entry point, which is the program: refused.
    #[serde(default)]
    pub command: Vec<String>,
    /// After the entry point.
    #[serde(default)]
    pub args: Vec<String>,
    /// In this order.
    #[serde(default)]
    pub env: Vec<Variable>,
    /// Refused if there are any.
    #[serde(default)]
    pub env_from: Vec<Value>,
    /// By name.
    #[serde(default)]
    pub ports: Vec<ContainerPort>,
    /// Until it succeeds, the others wait.
    pub startup_probe: Option<Probe>,
    /// The container is started again when it fails.
    pub liveness_probe: Option<Probe>,
    /// No service leads here while it fails.
    pub readiness_probe: Option<Probe>,
    /// Its end.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// Where it sees volumes.
    #[serde(default)]
    pub volume_mounts: Vec<Mount>,
}

impl Container {
    /// The number of a port.
    #[must_use]
    pub fn port(&self, port: &Port) -> Option<u16> {
        match port {
            Port::Number(number) => Some(*number),
            Port::Name(name) => self.ports.iter().find(|p| p.name == *name).map(|p| p.container_port),
        }
    }
}

fn grace() -> u64 {
    30
}

/// What a pod is made of.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// The runner takes exactly one.
    pub containers: Vec<Container>,
    /// The runner takes none.
    #[serde(default)]
    pub init_containers: Vec<Value>,
    /// By name.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// From the wish to stop to SIGKILL.
    #[serde(default = "grace")]
    pub termination_grace_period_seconds: u64,
}

impl PodSpec {
    /// Its container.
    ///
    /// # Errors
    /// When it is not one that the runner can run.
    pub fn container(&self) -> Result<&Container> {
        let [container] = self.containers.as_slice() else { bail!("the runner takes pods of one container") };
        ensure!(self.init_containers.is_empty(), "the runner takes no init containers");
        ensure!(
            container.command.is_empty() && container.env_from.is_empty(),
            "the runner takes no `command` and no `envFrom`"
        );
        Ok(container)
    }
}
