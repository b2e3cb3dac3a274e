//! The objects of a release as `helm template` printed them, as far as the runner knows them. Objects that start nothing and hold
//! nothing for pods (policies, accounts, monitors) are passed over; one that would start pods in a way the runner does not know is
//! refused, so that nothing is tested less than it looks.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use crate::pod::{Container, Item, PodSpec, Port, Probe, ValueFrom, Volume};

/// Labels, annotations, data.
pub type Texts = BTreeMap<String, String>;

/// The head of an object.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Meta {
    /// Its name; empty in a template.
    #[serde(default)]
    pub name: String,
    /// Its namespace, as rendered.
    #[serde(default)]
    pub namespace: String,
    /// What selects it.
    #[serde(default)]
    pub labels: Texts,
    /// What helm reads.
    #[serde(default)]
    pub annotations: Texts,
}

/// What selects pods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// A pod must have all of them.
    #[serde(default)]
    pub match_labels: Texts,
}

impl Selector {
    /// Whether a pod with these labels is meant.
    #[must_use]
    pub fn selects(&self, labels: &Texts) -> bool {
        self.match_labels.iter().all(|(name, value)| labels.get(name) == Some(value))
    }
}

/// What the pods of a set are made from.
#[derive(Clone, Debug, Deserialize)]
pub struct Template {
    /// Their labels.
    pub metadata: Meta,
    /// What they are.
    pub spec: PodSpec,
}

/// In which order pods are made and taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
pub enum Policy {
    /// One after the other, each waiting for the one before.
    #[default]
    OrderedReady,
    /// All at once.
    Parallel,
}

/// How an update goes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStrategy {
    /// The runner knows `RollingUpdate`.
    #[serde(rename = "type", default)]
    pub kind: String,
}

/// What a set wants.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetSpec {
    /// How many pods.
    pub replicas: u32,
    /// Making and taking away.
    #[serde(default)]
    pub pod_management_policy: Policy,
    /// How long a pod must have been ready to count.
    #[serde(default)]
    pub min_ready_seconds: u64,
    /// Replacing.
    #[serde(default)]
    pub update_strategy: UpdateStrategy,
    /// What the pods are made from.
    pub template: Template,
    /// The runner takes none.
    #[serde(default)]
    pub volume_claim_templates: Vec<Value>,
}

/// A StatefulSet.
#[derive(Clone, Debug, Deserialize)]
pub struct StatefulSet {
    /// Its head.
    pub metadata: Meta,
    /// What it wants.
    pub spec: SetSpec,
    /// Stands for the template: pods of another one are replaced.
    #[serde(skip)]
    pub revision: String,
}

/// A port of a service.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Where it listens.
    pub port: u16,
    /// Where it leads.
    pub target_port: Port,
}

/// What a service is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `None` for one without an address.
    #[serde(rename = "clusterIP", default)]
    pub cluster_ip: String,
    /// The pods behind it.
    #[serde(default)]
    pub selector: Texts,
    /// Its ports.
    #[serde(default)]
    pub ports: Vec<ServicePort>,
}

/// A Service.
#[derive(Clone, Debug, Deserialize)]
pub struct Service {
    /// Its head.
    pub metadata: Meta,
    /// What it is.
    pub spec: ServiceSpec,
}

/// A number of pods, or a part of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// So many.
    Number(u32),
    /// `25%`
    Percent(String),
}

/// What a budget allows.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BudgetSpec {
    /// Of which pods.
    #[serde(default)]
    pub selector: Selector,
    /// At least so many are well.
    pub min_available: Option<Amount>,
    /// At most so many are away.
    pub max_unavailable: Option<Amount>,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug, Deserialize)]
pub struct Budget {
    /// Its head.
    pub metadata: Meta,
    /// What it allows.
    pub spec: BudgetSpec,
}

/// A pod that helm starts at certain moments and that ends by itself.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Its head.
    pub metadata: Meta,
    /// What it is.
    pub spec: PodSpec,
}

impl Hook {
    /// Whether helm starts it at this moment (`post-install`, `test`).
    #[must_use]
    pub fn at(&self, moment: &str) -> bool {
        self.metadata
            .annotations
            .get("helm.sh/hook")
            .is_some_and(|at| at.split(',').any(|at| at.trim() == moment))
    }
}

/// All objects of a release that matter here.
#[derive(Clone, Debug, Default)]
pub struct Release {
    /// Data by name.
    pub config_maps: BTreeMap<String, Texts>,
    /// Data by name.
    pub secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// By name.
    pub services: Vec<Service>,
    /// By name.
    pub sets: Vec<StatefulSet>,
    /// By name.
    pub budgets: Vec<Budget>,
    /// In the order of the text.
    pub hooks: Vec<Hook>,
}

/// Kinds that start nothing and hold nothing that a pod reads.
const PASSED_OVER: &[&str] =
    &["NetworkPolicy", "ServiceAccount", "ServiceMonitor", "PodMonitor", "PrometheusRule"];

impl Release {
    /// Reads what helm printed.
    ///
    /// # Errors
    /// When it is no YAML, or holds what the runner does not know.
    pub fn read(text: &str) -> Result<Self> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("the manifests are no YAML")?;
        let mut release = Self::default();
        for document in documents.into_iter().filter(|document| !document.is_null()) {
            let kind = document["kind"].as_str().context("an object has no kind")?.to_owned();
            let name = document["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            release.take(&kind, document).with_context(|| format!("{kind} {name}"))?;
        }
        Ok(release)
    }

    fn take(&mut self, kind: &str, document: Value) -> Result<()> {
        let name = document["metadata"]["name"].as_str().context("it has no name")?.to_owned();
        match kind {
            "ConfigMap" => {
                let data = document.get("data").cloned().unwrap_or_default();
                self.config_maps.insert(name, serde_json::from_value(data).context("its data")?);
            }
            "Secret" => {
                self.secrets.insert(name, secret(&document)?);
            }
            "Service" => self.services.push(serde_json::from_value(document)?),
            "StatefulSet" => self.sets.push(set(document)?),
            "PodDisruptionBudget" => self.budgets.push(serde_json::from_value(document)?),
            "Pod" | "Job" => {
                let metadata: Meta = serde_json::from_value(document["metadata"].clone())?;
                ensure!(
                    metadata.annotations.contains_key("helm.sh/hook"),
                    "the runner takes it as a hook only"
                );
                let spec =
                    if kind == "Job" { &document["spec"]["template"]["spec"] } else { &document["spec"] };
                self.hooks.push(Hook { metadata, spec: serde_json::from_value(spec.clone())? });
            }
            kind if PASSED_OVER.contains(&kind) => {}
            _ => bail!("the runner does not know this kind"),
        }
        Ok(())
    }
}

fn secret(document: &Value) -> Result<BTreeMap<String, Vec<u8>>> {
    let texts = |name: &str| -> Result<Texts> {
        document
            .get(name)
            .map_or_else(|| Ok(Texts::new()), |value| Ok(serde_json::from_value(value.clone())?))
    };
    let mut data = BTreeMap::new();
    for (key, text) in texts("data")? {
        data.insert(key, BASE64_STANDARD.decode(text).context("its data is no base64")?);
    }
    data.extend(texts("stringData")?.into_iter().map(|(key, text)| (key, text.into_bytes())));
    Ok(data)
}

fn set(document: Value) -> Result<StatefulSet> {
    let revision = revision(&document["spec"]["template"]);
    let mut set: StatefulSet = serde_json::from_value(document)?;
    ensure!(set.spec.volume_claim_templates.is_empty(), "the runner takes no volumeClaimTemplates");
    ensure!(matches!(set.spec.update_strategy.kind.as_str(), "" | "RollingUpdate"), "the runner rolls only");
    set.spec.template.spec.container()?;
    set.revision = revision;
    Ok(set)
}

/// The same for the same template, whatever the order of its fields.
fn revision(template: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let ordered: BTreeMap<&String, &Value> = fields.iter().collect();
                ordered.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect()
            }
            Value::Array(values) => values.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }
    let digest = Sha256::digest(sorted(template).to_string().as_bytes());
    digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stateful_set(extra: &str) -> String {
        format!(
            "---\nkind: StatefulSet\nmetadata: {{name: w}}\nspec:\n  replicas: 3\n  podManagementPolicy: Parallel\n  \
             template:\n    metadata: {{labels: {{a: b}}}}\n    spec:\n      containers: [{{name: c, args: [x]}}]\n{extra}"
        )
    }

    #[test]
    fn documents_are_read_and_comments_between_them_are_none() {
        let text = "# Source: a\n---\nkind: ConfigMap\nmetadata: {name: m}\ndata:\n  a.toml: |\n    x = 1\n---\n# nothing\n---\n\
                    kind: Secret\nmetadata: {name: s}\ndata: {k: c2VjcmV0}\nstringData: {p: plain}\n";
        let release = Release::read(text).unwrap();
        assert_eq!(release.config_maps["m"]["a.toml"], "x = 1\n");
        assert_eq!(release.secrets["s"]["k"], b"secret");
        assert_eq!(release.secrets["s"]["p"], b"plain");
    }

    #[test]
    fn a_set_is_its_numbers_and_a_template() {
        let release = Release::read(&stateful_set("")).unwrap();
        let set = &release.sets[0];
        assert_eq!((set.spec.replicas, set.spec.pod_management_policy), (3, Policy::Parallel));
        assert_eq!(set.spec.template.spec.termination_grace_period_seconds, 30);
    }

    #[test]
    fn a_revision_changes_with_the_template_and_with_nothing_else() {
        let revision = |text: &str| Release::read(text).unwrap().sets[0].revision.clone();
        let plain = revision(&stateful_set(""));
        assert_eq!(plain, revision(&stateful_set("").replace("replicas: 3", "replicas: 4")));
        assert_eq!(
            plain,
            revision(&stateful_set("").replace("{name: c, args: [x]}", "{args: [x], name: c}"))
        );
        assert_ne!(plain, revision(&stateful_set("").replace("{a: b}", "{a: c}")));
    }

    #[test]
    fn what_the_runner_does_not_know_is_refused() {
        let refused = |text: &str| format!("{:#}", Release::read(text).unwrap_err());
        assert!(
            refused("kind: Deployment\nmetadata: {name: d}")
                .contains("Deployment d: the runner does not know")
        );
        assert!(refused("kind: Pod\nmetadata: {name: p}\nspec: {containers: []}").contains("as a hook only"));
        let two = stateful_set("").replace("args: [x]}", "args: [x]}, {name: d}");
        assert!(refused(&two).contains("one container"));
        let first = stateful_set("      initContainers: [{name: i}]\n");
        assert!(refused(&first).contains("no init containers"));
    }

    #[test]
    fn a_hook_has_its_moments() {
        let text = "kind: Pod\nmetadata: {name: t, annotations: {helm.sh/hook: 'post-install,post-upgrade'}}\n\
                    spec: {containers: [{name: c}]}";
        let release = Release::read(text).unwrap();
        assert!(release.hooks[0].at("post-upgrade") && !release.hooks[0].at("test"));
    }
}
