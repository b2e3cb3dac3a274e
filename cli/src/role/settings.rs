//! The settings of all roles in one file, and the flags that say the same.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use daemon::{
    TelemetryConfig,
    config::{Flag, Layers, Loaded},
    tls::TlsConfig,
};
use serde::Deserialize;
use store::StoreConfig;

use crate::failure::Failure;

/// Variables with our prefix that the tools read, and those of the tests.
const RESERVED: &[&str] = &[
    "SHARDWRIGHT_SERVER",
    "SHARDWRIGHT_CA",
    "SHARDWRIGHT_CERT",
    "SHARDWRIGHT_KEY",
    "SHARDWRIGHT_USER",
    "SHARDWRIGHT_PASSWORD",
    "SHARDWRIGHT_PASSWORD_FILE",
    "SHARDWRIGHT_TOKEN_FILE",
    "SHARDWRIGHT_CONFIG",
];
const RESERVED_PREFIXES: &[&str] = &["SHARDWRIGHT_TEST_", "SHARDWRIGHT_BENCH_"];

/// What one file may say. Each role reads its own section; the others do no harm.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// `[coordinator]`
    pub(crate) coordinator: coordinator::Config,
    /// `[worker]`
    pub(crate) worker: worker::Config,
    /// `[auth]`
    pub(crate) auth: coordinator::AuthConfig,
    /// `[secrets]`
    pub(crate) secrets: coordinator::SecretsConfig,
    /// `[store]`
    pub(crate) store: Option<StoreConfig>,
    /// `[tls]`
    pub(crate) tls: TlsConfig,
    /// `[telemetry]`
    pub(crate) telemetry: TelemetryConfig,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Where settings come from.
#[derive(Args, Debug)]
pub(crate) struct SettingsArgs {
    /// TOML file with sections [coordinator], [worker], [store], [auth], [tls], [secrets], [telemetry]
    #[arg(long, value_name = "FILE", env = "SHARDWRIGHT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Any setting by its key, for example worker.capacity=4; `shardwright settings` lists them
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Flags of every role.
#[derive(Args, Debug)]
pub(crate) struct CommonArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Where /metrics, /livez, /readyz and /debug are served, or `off`
    #[arg(long, value_name = "HOST:PORT")]
    telemetry_listen: Option<String>,
    /// What is logged: info, debug, or a filter such as info,shardwright_worker=debug
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// How it is logged
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

/// Flags as settings.
#[derive(Debug, Default)]
pub(crate) struct Given(Vec<Flag>);

impl Given {
    /// The value of a flag, if it was typed.
    pub(crate) fn flag(&mut self, key: &str, written: &str, value: Option<impl ToString>) -> &mut Self {
        if let Some(value) = value {
            let (key, value, written) = (key.to_owned(), value.to_string(), written.to_owned());
            self.0.push(Flag { key, value, written });
        }
        self
    }
}

/// Reads all layers. `given` are the role's own flags, stronger than `--set`.
pub(crate) fn read(common: &CommonArgs, given: Given) -> Result<Loaded<Settings>, Failure> {
    let format = common.log_format.map(|format| match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    });
    let mut shared = Given::default();
    shared
        .flag("telemetry.listen", "--telemetry-listen", common.telemetry_listen.as_ref())
        .flag("telemetry.log", "--log", common.log.as_ref())
        .flag("telemetry.log_format", "--log-format", format);
    shared.0.extend(given.0);
    read_for_tool(&common.settings, shared)
}

/// The same for a tool, which has no telemetry.
pub(crate) fn read_for_tool(args: &SettingsArgs, given: Given) -> Result<Loaded<Settings>, Failure> {
    let mut flags = Vec::new();
    for text in &args.set {
        let Some((key, value)) = text.split_once('=') else {
            let text = format!("ERROR: --set {text}: write it KEY=VALUE, for example worker.capacity=4");
            return Err(Failure::Usage(text));
        };
        flags.push(Flag { key: key.to_owned(), value: value.to_owned(), written: format!("--set {key}") });
    }
    flags.extend(given.0);
    let layers = Layers { file: args.config.as_deref(), env: env(), env_reserved: RESERVED, flags };
    Ok(daemon::config::load(&layers)?)
}

fn env() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        .collect()
}
