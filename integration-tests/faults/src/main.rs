//! `faults`: the fault layer as a program, driven over its control API. See `faults::api` for the routes.

use std::{collections::BTreeMap, net::SocketAddr, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use faults::{
    Faults, api,
    kinesis::{Fanout, Proxy},
    tcp::Link,
};
use tokio::net::TcpListener;

/// Stands between a cluster and what it uses, and makes it fail to order.
#[derive(Parser)]
struct Args {
    /// The Kinesis endpoint behind it: http://host:port
    #[arg(long)]
    kinesis: Option<String>,
    /// Where the Kinesis proxy listens
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Lets the endpoint serve SubscribeToShard by itself
    #[arg(long)]
    pass_fanout: bool,
    /// A TCP link: NAME=LISTEN/TARGET, for example etcd=127.0.0.1:0/127.0.0.1:2379; any number of them
    #[arg(long)]
    link: Vec<String>,
    /// Where the control API listens
    #[arg(long, default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// Where chance comes from
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> Result<()> {
    let faults = Faults::new(args.seed);
    let fanout = if args.pass_fanout { Fanout::Passed } else { Fanout::Made };
    let proxy = match &args.kinesis {
        Some(target) => {
            let proxy = Proxy::listen(args.listen, target, faults.clone(), fanout).await?;
            println!("kinesis {}", proxy.url());
            Some(proxy)
        }
        None => None,
    };
    let mut links = Vec::new();
    let mut handles = BTreeMap::new();
    for text in &args.link {
        let (name, listen, target) =
            parts(text).with_context(|| format!("`{text}` is not NAME=LISTEN/TARGET"))?;
        let link =
            Link::listen(listen, target).await.with_context(|| format!("cannot listen on {listen}"))?;
        println!("{name} {}", link.address());
        handles.insert(name, link.handle().clone());
        links.push(link);
    }
    let listener = TcpListener::bind(args.control).await?;
    println!("control http://{}", listener.local_addr()?);
    axum::serve(listener, api::router(faults, handles))
        .with_graceful_shutdown(async {
            tokio::signal::ctrl_c().await.ok();
        })
        .await?;
    drop(proxy);
    Ok(())
}

fn parts(text: &str) -> Option<(String, SocketAddr, SocketAddr)> {
    let (name, rest) = text.split_once('=')?;
    let (listen, target) = rest.split_once('/')?;
    Some((name.to_owned(), listen.parse().ok()?, target.parse().ok()?))
}
