//! The control API: HTTP and JSON on a port of its own, loopback only by custom.
//!
//! ```text
//! GET    /rules                 every rule with its id, hits and whether it is still active
//! POST   /rules                 a rule (see `Rule`) → {"id": 7}
//! DELETE /rules/7               takes one away
//! DELETE /rules                 takes all rules and limits away
//! PUT    /limits                {"reads_per_second": 5, "bytes_per_second": 2097152, "empty": false}, or null
//! PUT    /iterators             {"life_ms": 300000}
//! DELETE /iterators             every iterator is too old; with {"stream": …, "shard": …} those of one shard
//! POST   /trim                  {"stream": …, "shard": …, "before": {"number": "495…"} or {"moment": 1700000000000}}
//! PUT    /retention             {"stream": …, "hours": 24}: what the stream says of itself
//! DELETE /shards                {"stream": …, "shard": …} is not there any more
//! GET    /counts                calls and faulted calls by operation
//! GET    /links                 the lines by name
//! PUT    /links/etcd            {"there": "hold", "back": {"delay": 100}, "refuse": false}; absent means sound
//! DELETE /links/etcd            resets its connections
//! ```

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post, put},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Before, Faults, Limits, Rule,
    tcp::{Handle, Line},
};

/// What the API drives.
#[derive(Clone)]
struct Driven {
    faults: Faults,
    links: Arc<BTreeMap<String, Handle>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shard {
    stream: String,
    shard: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trim {
    stream: String,
    shard: String,
    before: Before,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Iterators {
    life_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Retention {
    stream: String,
    hours: u64,
}

type Refused = (StatusCode, String);

/// The routes, over one Kinesis handle and links by name.
pub fn router(faults: Faults, links: BTreeMap<String, Handle>) -> Router {
    Router::new()
        .route("/rules", get(rules).post(add).delete(heal))
        .route("/rules/{id}", axum::routing::delete(remove))
        .route("/limits", put(limits))
        .route("/iterators", put(iterators).delete(expire))
        .route("/trim", post(trim))
        .route("/retention", put(retention))
        .route("/shards", axum::routing::delete(remove_shard))
        .route("/counts", get(async |State(on): State<Driven>| Json(json!(on.faults.counts()))))
        .route("/links", get(lines))
        .route("/links/{name}", put(set_line).delete(cut))
        .with_state(Driven { faults, links: Arc::new(links) })
}

async fn rules(State(on): State<Driven>) -> Json<Value> {
    Json(json!(on.faults.rules()))
}

async fn add(State(on): State<Driven>, Json(rule): Json<Rule>) -> Result<Json<Value>, Refused> {
    let id = on.faults.try_add(rule).map_err(|error| (StatusCode::BAD_REQUEST, error))?;
    Ok(Json(json!({ "id": id })))
}

async fn heal(State(on): State<Driven>) -> StatusCode {
    on.faults.heal();
    StatusCode::NO_CONTENT
}

async fn remove(State(on): State<Driven>, Path(id): Path<u64>) -> Result<Json<Value>, Refused> {
    let hits = on.faults.remove(id).ok_or((StatusCode::NOT_FOUND, format!("rule {id} not found")))?;
    Ok(Json(json!({ "hits": hits })))
}

async fn limits(State(on): State<Driven>, Json(limits): Json<Option<Limits>>) -> StatusCode {
    on.faults.set_limits(limits);
    StatusCode::NO_CONTENT
}

async fn iterators(State(on): State<Driven>, Json(iterators): Json<Iterators>) -> StatusCode {
    on.faults.set_iterator_life(Duration::from_millis(iterators.life_ms));
    StatusCode::NO_CONTENT
}

async fn expire(State(on): State<Driven>, shard: Option<Json<Shard>>) -> StatusCode {
    on.faults.expire_iterators(shard.as_ref().map(|Json(of)| (of.stream.as_str(), of.shard.as_str())));
    StatusCode::NO_CONTENT
}

async fn trim(State(on): State<Driven>, Json(trim): Json<Trim>) -> StatusCode {
    on.faults.trim(&trim.stream, &trim.shard, trim.before);
    StatusCode::NO_CONTENT
}

async fn retention(State(on): State<Driven>, Json(retention): Json<Retention>) -> StatusCode {
    on.faults.set_retention(&retention.stream, retention.hours);
    StatusCode::NO_CONTENT
}

async fn remove_shard(State(on): State<Driven>, Json(of): Json<Shard>) -> StatusCode {
    on.faults.remove_shard(&of.stream, &of.shard);
    StatusCode::NO_CONTENT
}

async fn lines(State(on): State<Driven>) -> Json<Value> {
    let lines: BTreeMap<&String, Line> = on.links.iter().map(|(name, link)| (name, link.line())).collect();
    Json(json!(lines))
}

fn link<'a>(on: &'a Driven, name: &str) -> Result<&'a Handle, Refused> {
    on.links.get(name).ok_or((StatusCode::NOT_FOUND, format!("link `{name}` not found")))
}

async fn set_line(
    State(on): State<Driven>,
    Path(name): Path<String>,
    Json(line): Json<Line>,
) -> Result<StatusCode, Refused> {
    link(&on, &name)?.set(line.there, line.back, line.refuse);
    Ok(StatusCode::NO_CONTENT)
}

async fn cut(State(on): State<Driven>, Path(name): Path<String>) -> Result<StatusCode, Refused> {
    link(&on, &name)?.cut();
    Ok(StatusCode::NO_CONTENT)
}
