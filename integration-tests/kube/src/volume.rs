//! Lays the volumes of a pod out as directories. Text of ConfigMaps gets this machine's names in the place of the container's.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{
    manifest::{Item, PodSpec, Release, Volume},
    place::{Places, unresolved},
};

/// The directory of a volume of a pod.
fn dir_of(pod: &Path, volume: &str) -> PathBuf {
    pod.join("volumes").join(volume)
}

/// Says for each mount which directory it is.
///
/// # Errors
/// When a mount names a volume that is not there.
pub fn mount(spec: &PodSpec, pod: &Path, places: &mut Places) -> Result<()> {
    for mount in &spec.container()?.volume_mounts {
        if !spec.volumes.iter().any(|volume| volume.name == mount.name) {
            bail!("mount {} is of a volume that is not there", mount.mount_path);
        }
        let dir = dir_of(pod, &mount.name).join(&mount.sub_path);
        places.put(&mount.mount_path, &dir.display().to_string());
    }
    Ok(())
}

/// Writes the files of the volumes.
///
/// # Errors
/// When an object or a key is missing, or a file cannot be written.
pub fn fill(spec: &PodSpec, pod: &Path, release: &Release, places: &Places) -> Result<()> {
    for volume in &spec.volumes {
        let dir = dir_of(pod, &volume.name);
        std::fs::create_dir_all(&dir)?;
        for (path, bytes) in
            files(volume, release, places).with_context(|| format!("volume {}", volume.name))?
        {
            let file = dir.join(path);
            std::fs::create_dir_all(file.parent().unwrap_or(&dir))?;
            std::fs::write(file, bytes)?;
        }
    }
    Ok(())
}

fn files(volume: &Volume, release: &Release, places: &Places) -> Result<Vec<(String, Vec<u8>)>> {
    if let Some(from) = &volume.config_map {
        let data = release
            .config_maps
            .get(&from.name)
            .with_context(|| format!("there is no ConfigMap {}", from.name))?;
        let placed = |text: &String| -> Result<Vec<u8>> {
            let text = places.apply(text);
            match unresolved(&text) {
                Some(name) => bail!("nobody here resolves {name}"),
                None => Ok(text.into_bytes()),
            }
        };
        let data =
            data.iter().map(|(key, text)| Ok((key.clone(), placed(text)?))).collect::<Result<Vec<_>>>()?;
        return chosen(data, &from.items);
    }
    if let Some(from) = &volume.secret {
        let data = release
            .secrets
            .get(&from.secret_name)
            .with_context(|| format!("there is no Secret {}", from.secret_name))?;
        return chosen(data.clone().into_iter().collect(), &from.items);
    }
    if volume.empty_dir.is_some() { Ok(Vec::new()) } else { bail!("its kind is not known") }
}

fn chosen(data: Vec<(String, Vec<u8>)>, items: &[Item]) -> Result<Vec<(String, Vec<u8>)>> {
    if items.is_empty() {
        return Ok(data);
    }
    let one = |item: &Item| {
        let bytes = data.iter().find(|(key, _)| *key == item.key).map(|(_, bytes)| bytes.clone());
        Ok((item.path.clone(), bytes.with_context(|| format!("there is no key {}", item.key))?))
    };
    items.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_become_files_with_this_machines_names() {
        let text = "kind: ConfigMap\nmetadata: {name: m}\ndata: {a.toml: 'ca = \"/etc/x/tls/ca.crt\"'}\n---\n\
            kind: Secret\nmetadata: {name: s}\nstringData: {ca: PEM /etc/x, other: x}\n---\n\
            kind: Pod\nmetadata: {name: p, annotations: {helm.sh/hook: test}}\nspec:\n  volumes:\n  \
            - {name: config, configMap: {name: m}}\n  - {name: tls, secret: {secretName: s, items: [{key: ca, path: ca.crt}]}}\n  \
            - {name: data, emptyDir: {}}\n  containers:\n  - name: c\n    volumeMounts:\n    \
            - {name: config, mountPath: /etc/x/config}\n    - {name: tls, mountPath: /etc/x/tls}\n    \
            - {name: data, mountPath: /data}\n";
        let release = Release::read(text).unwrap();
        let spec = &release.hooks[0].spec;
        let dir = tempfile::tempdir().unwrap();
        let mut places = Places::default();
        mount(spec, dir.path(), &mut places).unwrap();
        fill(spec, dir.path(), &release, &places).unwrap();
        let config = places.apply("/etc/x/config/a.toml");
        let ca = places.apply("/etc/x/tls/ca.crt");
        assert_eq!(std::fs::read_to_string(config).unwrap(), format!("ca = \"{ca}\""));
        assert_eq!(std::fs::read_to_string(&ca).unwrap(), "PEM /etc/x", "a secret is left as it is");
        assert!(Path::new(&places.apply("/data")).is_dir());
        assert!(!dir.path().join("volumes/tls/other").exists());
    }

    #[test]
    fn what_is_missing_is_named() {
        let pod = |volume: &str| {
            let text = format!(
                "kind: Pod\nmetadata: {{name: p, annotations: {{helm.sh/hook: test}}}}\nspec: {{volumes: [{volume}], containers: [{{name: c}}]}}"
            );
            let release = Release::read(&text).unwrap();
            let dir = tempfile::tempdir().unwrap();
            format!(
                "{:#}",
                fill(&release.hooks[0].spec, dir.path(), &release, &Places::default()).unwrap_err()
            )
        };
        assert_eq!(pod("{name: v, configMap: {name: m}}"), "volume v: there is no ConfigMap m");
        assert_eq!(pod("{name: v, secret: {secretName: s}}"), "volume v: there is no Secret s");
    }
}
