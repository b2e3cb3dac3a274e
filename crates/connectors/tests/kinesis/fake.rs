//! A service that does what a test says: each request goes to a closure, by operation.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, response::IntoResponse};
use serde_json::{Value, json};

use crate::rustls_ready;

/// What the fake answers.
pub enum Answer {
    /// 200 and this.
    Ok(Value),
    /// 400 with this code.
    Error(&'static str),
    /// A status with a body that is not the service's.
    Status(u16),
    /// Nothing for so long.
    Silence(Duration),
}

type Script = Box<dyn FnMut(&str, &Value) -> Answer + Send>;

/// A running fake. Every request so far is kept.
pub struct Fake {
    pub endpoint: String,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

struct Shared {
    script: Mutex<Script>,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Fake {
    pub async fn start(script: impl FnMut(&str, &Value) -> Answer + Send + 'static) -> Self {
        rustls_ready();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::new(Shared { script: Mutex::new(Box::new(script)), seen: Arc::clone(&seen) });
        let app = Router::new().fallback(answer).with_state(shared);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { endpoint, seen }
    }

    /// The requests of one operation, in order.
    pub fn requests(&self, operation: &str) -> Vec<Value> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(name, _)| name == operation).map(|(_, body)| body.clone()).collect()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let target = headers.get("x-amz-target").map(|t| t.to_str().unwrap().to_owned()).unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let answer = (shared.script.lock().unwrap())(&operation, &body);
    shared.seen.lock().unwrap().push((operation, body));
    let (status, text) = match answer {
        Answer::Ok(value) => (200, value.to_string()),
        Answer::Error(code) => (400, json!({"__type": code, "message": format!("said {code}")}).to_string()),
        Answer::Status(status) => (status, "<html>proxy</html>".to_owned()),
        Answer::Silence(time) => {
            tokio::time::sleep(time).await;
            (200, "{}".to_owned())
        }
    };
    (
        axum::http::StatusCode::from_u16(status).unwrap(),
        [("content-type", "application/x-amz-json-1.1")],
        text,
    )
}

/// `DescribeStreamSummary` of a stream that was created at this second.
pub fn summary(created: i64) -> Answer {
    Answer::Ok(json!({"StreamDescriptionSummary": {
        "StreamName": "in", "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/in", "StreamStatus": "ACTIVE",
        "RetentionPeriodHours": 24, "StreamCreationTimestamp": created, "EnhancedMonitoring": [],
        "OpenShardCount": 1, "MaxRecordSizeInKiB": 1024,
    }}))
}

/// `GetRecords` with these numbers as payload and sequence number, base64.
pub fn get_records(numbers: &[u64], next: Option<&str>, behind: u64) -> Answer {
    let records: Vec<Value> = numbers
        .iter()
        .map(|n| json!({"SequenceNumber": n.to_string(), "Data": "eA==", "PartitionKey": "k", "ApproximateArrivalTimestamp": 1.5}))
        .collect();
    let mut answer = json!({"Records": records, "MillisBehindLatest": behind});
    if let Some(next) = next {
        answer["NextShardIterator"] = json!(next);
    }
    Answer::Ok(answer)
}
