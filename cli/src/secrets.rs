//! `shardwright secrets`: the key that encrypts the secrets of the catalog, and the change to another one.

use std::{io::Write, time::Duration};

use clap::{Args, Subcommand};
use proto::v1::{RotateSecretsReply, RotateSecretsRequest};
use secrecy::ExposeSecret;

use crate::{
    client::{self, Patience, Target},
    failure::Failure,
};

/// Keys, and how secrets are stored.
#[derive(Subcommand, Debug)]
pub enum Secrets {
    /// Print a new master key: for the file that `secrets.master_key_file` names
    NewKey,
    /// Encrypt the secrets of the catalog with the current key, where they are not yet
    Rotate(RotateArgs),
    /// Tell how the secrets of the catalog are stored
    Status(Patience),
}

/// How to rotate.
#[derive(Args, Debug)]
pub struct RotateArgs {
    /// Also what the current key protects already, with a new data key
    #[arg(long)]
    all: bool,
    /// How long to wait, in seconds; whatever was not done by then is done by another call
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

/// Does what was typed.
pub async fn run(what: Secrets, target: &Target) -> Result<(), Failure> {
    match what {
        Secrets::NewKey => new_key(),
        Secrets::Rotate(args) => rotate(args, target).await,
        Secrets::Status(patience) => {
            let mut admin = client::connect(target).await?;
            let request = RotateSecretsRequest { look: true, all: false };
            let reply = client::ask(patience, admin.rotate_secrets(request)).await?;
            tell(&reply)
        }
    }
}

fn new_key() -> Result<(), Failure> {
    let key = coordinator::new_master_key().map_err(|error| Failure::Refused(format!("ERROR: {error}")))?;
    writeln!(std::io::stdout(), "{}", key.expose_secret())?;
    Ok(())
}

async fn rotate(args: RotateArgs, target: &Target) -> Result<(), Failure> {
    let mut admin = client::connect(target).await?;
    let request = RotateSecretsRequest { look: false, all: args.all };
    let reply = client::within(Duration::from_secs(args.timeout.max(1)), admin.rotate_secrets(request)).await;
    let reply = reply.map_err(|status| Failure::of_status(&status, None))?.into_inner();
    let mut out = std::io::stdout();
    writeln!(out, "{} encrypted with key {}", objects(reply.rewritten), reply.key)?;
    if reply.rewritten > 0 {
        writeln!(
            out,
            "what was stored before is in the store's history until it is compacted, and in backups: a secret that lay there in \
             plain text should be changed at its service"
        )?;
    }
    tell(&reply)
}

fn tell(reply: &RotateSecretsReply) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let key = if reply.key.is_empty() { "none" } else { reply.key.as_str() };
    writeln!(out, "current key     {key}")?;
    writeln!(out, "encrypted       {}", objects(reply.current))?;
    if reply.previous > 0 {
        writeln!(out, "by earlier key  {}: `shardwright secrets rotate`", objects(reply.previous))?;
    }
    if reply.plain > 0 {
        let way = if reply.key.is_empty() {
            "give every coordinator `secrets.master_key_file`"
        } else {
            "`shardwright secrets rotate`"
        };
        writeln!(out, "in plain text   {}: {way}", objects(reply.plain))?;
    }
    Ok(())
}

fn objects(count: u32) -> String {
    format!("{count} object{}", if count == 1 { "" } else { "s" })
}
