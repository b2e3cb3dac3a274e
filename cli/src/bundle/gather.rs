//! Where the pieces of a support bundle come from.

use std::{
    fmt::Write as _,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    time::Duration,
};

use proto::{
    Protocols,
    v1::{
        Event, ExecuteReply, ExecuteRequest, StatusReply, StatusRequest, WatchEventsRequest,
        execute_reply::Answer,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::Pieces;
use crate::{
    client::{self, Admin, Patience, Target},
    failure::Failure,
    inspect, status,
};

/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The largest page of a telemetry listener that is taken along.
const PAGE_BYTES_MAX: u64 = 32 << 20;

/// This machine and this release.
pub(super) fn machine(pieces: &mut Pieces, at: &str) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_else(|error| format!("{error}\n"));
    let mut text = String::new();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    writeln!(text, "taken at   {at}").ok();
    writeln!(text, "release    {}", env!("SHARDWRIGHT_VERSION")).ok();
    writeln!(text, "protocol   {}", Protocols::OURS).ok();
    writeln!(text, "layout     {}", store::SCHEMA_VERSION).ok();
    writeln!(text, "cores      {cores}").ok();
    writeln!(text, "kernel     {}", read("/proc/version").trim()).ok();
    writeln!(text, "\n--- /proc/meminfo\n{}", read("/proc/meminfo")).ok();
    writeln!(text, "--- limits of this process\n{}", read("/proc/self/limits")).ok();
    pieces.add("machine.txt", &text);
}

/// What a coordinator tells.
pub(super) async fn cluster(pieces: &mut Pieces, target: &Target) {
    let mut admin = match client::connect(target).await {
        Ok(admin) => admin,
        Err(failure) => return pieces.lacks("cluster/", failure),
    };
    match client::ask(Patience::default(), admin.status(StatusRequest {})).await {
        Ok(status) => {
            pieces.add("cluster/versions.txt", &versions(&status));
            pieces.add("cluster/status.json", &pretty(&status::to_json(&status)));
        }
        Err(failure) => pieces.lacks("cluster/status.json", failure),
    }
    match tokio::time::timeout(ANSWER, events(&mut admin)).await {
        Ok(Ok(lines)) => pieces.add("cluster/events.jsonl", &lines),
        Ok(Err(failure)) => pieces.lacks("cluster/events.jsonl", failure),
        Err(_) => pieces.lacks("cluster/events.jsonl", "no answer in time"),
    }
    match tokio::time::timeout(ANSWER, objects(&mut admin)).await {
        Ok(Ok(text)) => pieces.add("cluster/objects.sql", &text),
        Ok(Err(failure)) => pieces.lacks("cluster/objects.sql", failure),
        Err(_) => pieces.lacks("cluster/objects.sql", "no answer in time"),
    }
}

fn versions(status: &StatusReply) -> String {
    let mut text = format!("leader  {}\nstore   {}\n", status.leader, status.store);
    for worker in &status.workers {
        writeln!(text, "worker  {} {}", worker.name, worker.version).ok();
    }
    text
}

fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string())
}

async fn events(admin: &mut Admin) -> Result<String, Failure> {
    let request = WatchEventsRequest { after_event: 0, follow: false };
    let failed = |status: tonic::Status| client::silent(&status);
    let mut events = admin.watch_events(request).await.map_err(failed)?.into_inner();
    let mut lines = String::new();
    while let Some(event) = events.message().await.map_err(failed)? {
        let event: Event = event;
        writeln!(lines, "{}", inspect::event_json(&event)).ok();
    }
    Ok(lines)
}

/// How every source and sink was made, as the coordinator shows it.
async fn objects(admin: &mut Admin) -> Result<String, Failure> {
    let mut text = String::new();
    for (list, kind) in [("SHOW SOURCES", "SOURCE"), ("SHOW SINKS", "SINK")] {
        for row in rows(admin, list).await? {
            let Some(name) = row.first().and_then(|name| name.strip_prefix("public.")) else { continue };
            if row.get(1).is_some_and(|kind| kind == "progress") {
                continue;
            }
            let name = name.replace('"', "\"\"");
            for shown in rows(admin, &format!("SHOW CREATE {kind} \"{name}\"")).await? {
                let statement = shown.last().cloned().unwrap_or_default();
                writeln!(text, "{};\n", statement.trim_end_matches(';')).ok();
            }
        }
    }
    Ok(text)
}

async fn rows(admin: &mut Admin, statement: &str) -> Result<Vec<Vec<String>>, Failure> {
    let request =
        ExecuteRequest { statement: statement.to_owned(), request_id: ulid::Ulid::new().to_string() };
    let failed = |status: tonic::Status| client::silent(&status);
    let mut replies = admin.execute(request).await.map_err(failed)?.into_inner();
    let mut rows = Vec::new();
    while let Some(reply) = replies.message().await.map_err(failed)? {
        let ExecuteReply { answer, .. } = reply;
        let Some(Answer::Rows(set)) = answer else { continue };
        rows.extend(set.rows.into_iter().map(|row| {
            row.values.into_iter().map(|value| value.text.unwrap_or_default()).collect::<Vec<_>>()
        }));
    }
    Ok(rows)
}

/// What a process tells of itself.
pub(super) async fn telemetry(pieces: &mut Pieces, address: &str) {
    let address = address.trim_start_matches("http://").trim_end_matches('/');
    let folder = address.replace(['/', ':', '[', ']'], "_");
    let pages = [("/metrics", "metrics.txt"), ("/readyz", "readyz.txt"), ("/debug/tasks", "tasks.json")];
    for (path, name) in pages {
        let name = format!("telemetry/{folder}/{name}");
        match tokio::time::timeout(ANSWER, get(address, path)).await {
            Ok(Ok(text)) => pieces.add(&name, &text),
            Ok(Err(why)) => pieces.lacks(&name, why),
            Err(_) => pieces.lacks(&name, "no answer in time"),
        }
    }
}

/// The body of a page: HTTP/1.0, so that the answer ends with the connection and comes in one piece.
async fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return Err(std::io::Error::other("it does not answer as HTTP does"));
    };
    let first = head.lines().next().unwrap_or_default();
    // Not being ready is an answer too, and the one that is looked for.
    if first.contains(" 200 ") || first.contains(" 503 ") {
        Ok(body.to_owned())
    } else {
        Err(std::io::Error::other(format!("it answers {first}")))
    }
}

/// The end of a log, from the first whole line on.
pub(super) fn log(pieces: &mut Pieces, path: &Path, bytes_max: u64) {
    let name = path.file_name().map_or_else(|| "log".to_owned(), |name| name.to_string_lossy().into_owned());
    let name = format!("logs/{}-{name}", pieces.all.len());
    match tail(path, bytes_max) {
        Ok(text) => pieces.add(&name, &text),
        Err(error) => pieces.lacks(&name, format!("{}: {error}", path.display())),
    }
}

fn tail(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let skipped = file.metadata()?.len().saturating_sub(bytes_max);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let whole = if skipped == 0 { Some(text.as_str()) } else { text.split_once('\n').map(|(_, rest)| rest) };
    Ok(whole.unwrap_or_default().to_owned())
}
