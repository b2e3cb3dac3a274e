//! The endpoint behind the proxy.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response, StatusCode, Uri, body::Incoming, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use super::{
    Reply,
    call::Call,
    wire::{Body, full},
};

/// An answer, or what the caller sees instead.
pub(crate) type Upstreamed = Result<Response<Body>, Reply>;

/// Headers that belong to one connection or to the old body.
const OWN_HEADERS: [header::HeaderName; 4] =
    [header::HOST, header::CONTENT_LENGTH, header::CONNECTION, header::TRANSFER_ENCODING];

/// The endpoint.
pub(super) struct Upstream {
    uri: Uri,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Upstream {
    pub(super) fn new(target: &str) -> Result<Self, String> {
        let uri: Uri = target.parse().map_err(|error| format!("`{target}`: {error}"))?;
        if uri.scheme_str() != Some("http") || uri.authority().is_none() {
            return Err(format!("`{target}` is not http://host:port"));
        }
        let client =
            Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(10)).build_http();
        Ok(Self { uri, client })
    }

    async fn send(&self, headers: &HeaderMap, body: Bytes) -> Result<Response<Incoming>, Reply> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.uri.clone();
        for (name, value) in headers.iter().filter(|(name, _)| !OWN_HEADERS.contains(name)) {
            request.headers_mut().append(name, value.clone());
        }
        // An endpoint that cannot be reached looks to the caller as it would without the proxy.
        self.client.request(request).await.map_err(|_| Reply::Cut)
    }

    /// The call as it came; its answer unbuffered.
    pub(super) async fn pass(&self, call: &Call) -> Upstreamed {
        let mut answer = self.send(&call.headers, call.body.clone()).await?;
        answer.headers_mut().remove(header::CONNECTION);
        Ok(answer.map(|body| body.map_err(io::Error::other).boxed_unsync()))
    }

    /// `operation` with this body in the name of the caller; the whole answer. An error of the endpoint is `Err`, ready to be
    /// handed on.
    pub(super) async fn ask(&self, call: &Call, operation: &str, body: &Value) -> Result<Answer, Reply> {
        let mut headers = call.headers.clone();
        let target = format!("Kinesis_20131202.{operation}");
        headers.insert("x-amz-target", target.parse().expect("an operation's name is a header value"));
        let (parts, body) = self.send(&headers, Bytes::from(body.to_string())).await?.into_parts();
        let body = body.collect().await.map_err(|_| Reply::Cut)?.to_bytes();
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        if parts.status != StatusCode::OK || !(json.is_object() || body.is_empty()) {
            return Err(Reply::Answer(rebuilt(parts, body)));
        }
        Ok(Answer { parts, json })
    }
}

/// A success that can be changed before it is handed on.
pub(super) struct Answer {
    parts: hyper::http::response::Parts,
    pub json: Value,
}

impl Answer {
    pub(super) fn into_response(self) -> Response<Body> {
        let body = Bytes::from(self.json.to_string());
        rebuilt(self.parts, body)
    }
}

fn rebuilt(mut parts: hyper::http::response::Parts, body: Bytes) -> Response<Body> {
    for name in OWN_HEADERS {
        parts.headers.remove(name);
    }
    Response::from_parts(parts, full(body))
}
