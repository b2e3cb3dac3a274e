//! The control API, and the program around it.

use std::{process::Stdio, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
};

use crate::front::{client, code, front, shard};

async fn ask(method: &str, url: &str, body: Option<Value>) -> (u16, Value) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<axum::body::Bytes>>();
    let mut request = hyper::Request::builder().method(method).uri(url);
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let answer = client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&text).unwrap_or(json!(String::from_utf8_lossy(&text))))
}

#[tokio::test]
async fn the_program_is_driven_over_http() {
    let front = front(2).await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = format!("etcd=127.0.0.1:0/{}", server.local_addr().unwrap());
    let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("faults");
    let mut child = Command::new(&program)
        .args(["--kinesis", &front.url, "--link", &link, "--seed", "3"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}: build the workspace first", program.display()));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut named = std::collections::BTreeMap::new();
    while named.len() < 3 {
        let line =
            tokio::time::timeout(Duration::from_secs(10), lines.next_line()).await.unwrap().unwrap().unwrap();
        let (name, at) = line.split_once(' ').unwrap();
        named.insert(name.to_owned(), at.to_owned());
    }
    let (control, through) = (&named["control"], client(&named["kinesis"]));

    let rule = json!({ "operations": ["ListShards"], "times": 1, "fault": { "kind": "error", "code": "X", "status": 500 } });
    assert_eq!(ask("POST", &format!("{control}/rules"), Some(rule)).await, (200, json!({ "id": 1 })));
    let list = || through.list_shards().stream_name(crate::front::STREAM).send();
    assert_eq!(code(&list().await.unwrap_err()), "X");
    assert_eq!(list().await.unwrap().shards().len(), 2);
    let (_, rules) = ask("GET", &format!("{control}/rules"), None).await;
    assert_eq!((&rules[0]["hits"], &rules[0]["active"]), (&json!(1), &json!(false)));
    let (_, counts) = ask("GET", &format!("{control}/counts"), None).await;
    assert_eq!(counts["ListShards"], json!({ "calls": 2, "faulted": 1 }));
    let unknown = json!({ "operations": ["ListShard"], "fault": { "kind": "cut" } });
    let (status, text) = ask("POST", &format!("{control}/rules"), Some(unknown)).await;
    assert_eq!((status, text), (400, json!("operation `ListShard` is not known")));
    assert_eq!(ask("DELETE", &format!("{control}/rules/1"), None).await, (200, json!({ "hits": 1 })));
    assert_eq!(ask("DELETE", &format!("{control}/rules/1"), None).await.0, 404);

    let gone = json!({ "stream": crate::front::STREAM, "shard": shard(0) });
    assert_eq!(ask("DELETE", &format!("{control}/shards"), Some(gone)).await.0, 204);
    assert_eq!(list().await.unwrap().shards().len(), 1);
    let limits = json!({ "reads_per_second": 0.0 });
    assert_eq!(ask("PUT", &format!("{control}/limits"), Some(limits)).await.0, 204);

    let held = json!({ "there": "hold" });
    assert_eq!(ask("PUT", &format!("{control}/links/etcd"), Some(held)).await.0, 204);
    let (_, links) = ask("GET", &format!("{control}/links"), None).await;
    assert_eq!((&links["etcd"]["there"], &links["etcd"]["back"]), (&json!("hold"), &json!("pass")));
    let _caller = TcpStream::connect(&named["etcd"]).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(150), server.accept()).await.is_err());
    assert_eq!(ask("PUT", &format!("{control}/links/etcd"), Some(json!({}))).await.0, 204);
    tokio::time::timeout(Duration::from_secs(5), server.accept())
        .await
        .expect("it gets through now")
        .unwrap();
    assert_eq!(ask("DELETE", &format!("{control}/links/kafka"), None).await.0, 404);
}
