//! Bytes: connections that can be reset in the middle of anything, answers, errors.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::Response;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
};

/// The content type of the endpoints.
pub(super) const JSON: &str = "application/x-amz-json-1.1";

/// The body of an answer; an error in it breaks the connection off.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Cuts one connection.
#[derive(Clone, Default)]
pub(crate) struct Scissors {
    closed: Arc<AtomicBool>,
    wake: Arc<Notify>,
}

impl Scissors {
    /// Now.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Waits until somebody does.
    pub(super) async fn cut(&self) {
        self.wake.notified().await;
    }
}

/// A connection that goes with a reset instead of an orderly end once it is cut.
pub(super) struct Cuttable {
    stream: TcpStream,
    scissors: Scissors,
}

impl Cuttable {
    pub(super) fn new(stream: TcpStream, scissors: Scissors) -> Self {
        Self { stream, scissors }
    }
}

impl Drop for Cuttable {
    fn drop(&mut self) {
        if self.scissors.closed.load(Ordering::Acquire) {
            self.stream.set_zero_linger().ok();
        }
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A body that is there already.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn with(status: u16, value: &Value) -> Response<Body> {
    let mut answer = Response::new(full(value.to_string()));
    *answer.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::BAD_REQUEST);
    answer.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(JSON));
    answer
}

/// A success.
pub(super) fn answer(value: &Value) -> Response<Body> {
    with(200, value)
}

/// An error of the service.
pub(super) fn error(status: u16, code: &str, message: &str) -> Response<Body> {
    with(status, &json!({ "__type": code, "message": message }))
}
