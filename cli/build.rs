//! Puts the git revision into the binary, if there is a git and a repository, or if `SHARDWRIGHT_REVISION` names it (a build
//! without them, as that of the image); a tarball builds just as well.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn told() -> Option<String> {
    println!("cargo:rerun-if-env-changed=SHARDWRIGHT_REVISION");
    let revision = std::env::var("SHARDWRIGHT_REVISION").ok()?.trim().to_owned();
    (!revision.is_empty()).then(|| revision.chars().take(12).collect())
}

fn main() {
    let version = env!("CARGO_PKG_VERSION");
    let long = match told().or_else(|| git(&["rev-parse", "--short=12", "HEAD"])) {
        Some(revision) => format!("{version} ({revision})"),
        None => version.to_owned(),
    };
    println!("cargo:rustc-env=SHARDWRIGHT_VERSION={long}");
    println!("cargo:rerun-if-changed=build.rs");
    // The log of HEAD grows with each commit and each checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && std::path::Path::new(&log).exists()
    {
        println!("cargo:rerun-if-changed={log}");
    }
}
