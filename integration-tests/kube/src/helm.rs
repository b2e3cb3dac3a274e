//! Renders the chart.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// The name of the release.
pub const RELEASE: &str = "test";

/// Where the chart is.
#[must_use]
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/helm/shardwright")
}

/// The helm at `$SHARDWRIGHT_TEST_HELM`, or the one in the path.
#[must_use]
pub fn program() -> PathBuf {
    std::env::var_os("SHARDWRIGHT_TEST_HELM").map_or_else(|| PathBuf::from("helm"), PathBuf::from)
}

/// The manifests of the chart with these values (YAML).
///
/// # Errors
/// When helm cannot be started or refuses.
pub async fn template(dir: &Path, values: &str) -> Result<String> {
    let file = dir.join("values.yaml");
    std::fs::write(&file, values)?;
    let output = Command::new(program())
        .arg("template")
        .arg(RELEASE)
        .arg(chart())
        .args(["--namespace", "test", "--kube-version", "1.34.0", "--values"])
        .arg(&file)
        .output()
        .await;
    let output = output.with_context(|| {
        format!(
            "{} cannot be started: run `scripts/servers/helm install`, or set SHARDWRIGHT_TEST_HELM",
            program().display()
        )
    })?;
    if !output.status.success() {
        bail!("helm refuses: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
