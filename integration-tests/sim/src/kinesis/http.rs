//! The way of the SDK's requests: an HTTP client that carries each request of a process over the simulated network to the
//! model, and the answer back. Given to the SDK in place of its own, so that all above it is the product's real code.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::{DateTime, body::SdkBody, date_time::Format};
use tokio::sync::oneshot;

use super::{Answer, Model, Request, pipe::Pipe, wall_ms};
use crate::{net::Net, place::Place};

/// How the process at `place` reaches the service.
#[must_use]
pub fn client(net: Net, place: Place, model: Arc<Mutex<Model>>) -> SharedHttpClient {
    http_client_fn(move |settings, _| {
        let (net, model) = (net.clone(), model.clone());
        SharedHttpConnector::new(Service { net, place, model, patience: settings.read_timeout() })
    })
}

/// The service, as one process sees it.
#[derive(Clone)]
pub struct Service {
    net: Net,
    place: Place,
    model: Arc<Mutex<Model>>,
    /// The SDK's read timeout: how long the head of an answer may take.
    patience: Option<Duration>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kinesis, from {}", self.place)
    }
}

/// What of a request goes over the network.
struct Sent {
    target: String,
    signed: Option<String>,
    body: Vec<u8>,
}

impl Sent {
    fn read(request: &HttpRequest) -> Result<Self, ConnectorError> {
        let header = |name: &str| request.headers().get(name).map(ToOwned::to_owned);
        let body = request.body().bytes().map(<[u8]>::to_vec);
        Ok(Self {
            target: header("x-amz-target").unwrap_or_default(),
            signed: header("x-amz-date"),
            body: body
                .ok_or_else(|| ConnectorError::user("the body of a request is not in memory".into()))?,
        })
    }
}

/// An answer and when it was given.
struct Served {
    answer: Answer,
    at: Duration,
}

impl HttpConnector for Service {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let here = self.clone();
        HttpConnectorFuture::new(async move {
            match here.patience {
                None => here.send(request).await,
                Some(patience) => match tokio::time::timeout(patience, here.send(request)).await {
                    Ok(answer) => answer,
                    Err(elapsed) => Err(ConnectorError::timeout(elapsed.into())),
                },
            }
        })
    }
}

impl Service {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = Sent::read(&request)?;
        let subscribes = request.target.ends_with(".SubscribeToShard");
        let (pipe, events) = subscribes.then(|| Pipe::new(&self.net, self.place, &self.model)).unzip();
        let (tell, told) = oneshot::channel();
        let there = self.clone();
        self.net.carry(self.place, Place::Kinesis, move || there.serve(&request, pipe, tell));
        let served = told.await.map_err(|_| ConnectorError::io("connection reset".into()))?;
        let (kind, body) = match events {
            Some(events) if served.answer.subscription.is_some() => {
                ("application/vnd.amazon.eventstream", SdkBody::from_body_1_x(events))
            }
            _ => ("application/x-amz-json-1.1", SdkBody::from(served.answer.body.to_string())),
        };
        let length = body.content_length();
        let status = StatusCode::try_from(served.answer.status).expect("a status of ours is valid");
        let mut response = HttpResponse::new(status, body);
        let seconds = i64::try_from(wall_ms(served.at) / 1000).expect("a date of this era");
        let date = DateTime::from_secs(seconds).fmt(Format::HttpDate).expect("a date of this era");
        let headers = response.headers_mut();
        headers.insert("date", date);
        headers.insert("content-type", kind);
        if let Some(length) = length {
            headers.insert("content-length", length.to_string());
        }
        headers.insert("x-amzn-requestid", format!("{:032x}", served.at.as_nanos()));
        Ok(response)
    }

    /// At the service.
    fn serve(self, sent: &Sent, pipe: Option<Arc<Pipe>>, tell: oneshot::Sender<Served>) {
        let at = self.net.now();
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let request = Request { target: &sent.target, signed: sent.signed.as_deref(), body: &sent.body };
        let answer = model.serve(at, &request);
        drop(model);
        if let Some(note) = &answer.note {
            self.net.note(Place::Kinesis, format!("{} {note}", self.place));
        }
        let Self { net, place, .. } = self;
        let back = net.clone();
        net.after(answer.delay, move || {
            let subscription = answer.subscription;
            back.carry(Place::Kinesis, place, move || drop(tell.send(Served { answer, at })));
            if let (Some(subscription), Some(pipe)) = (subscription, pipe) {
                pipe.open(subscription);
            }
        });
    }
}
