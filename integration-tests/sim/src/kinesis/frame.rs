//! Messages of `application/vnd.amazon.eventstream`.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use serde_json::{Value, json};

use super::Refusal;

/// The first message of every stream of events.
pub(super) fn initial() -> Bytes {
    message("event", (":event-type", "initial-response"), &json!({}))
}

/// A `SubscribeToShardEvent`.
pub(super) fn event(body: &Value) -> Bytes {
    message("event", (":event-type", "SubscribeToShardEvent"), body)
}

/// The message after which nothing comes.
pub(super) fn exception(refusal: &Refusal) -> Bytes {
    message("exception", (":exception-type", refusal.code), &json!({ "message": refusal.message }))
}

fn message(kind: &'static str, named: (&'static str, &'static str), body: &Value) -> Bytes {
    let text = |text: &'static str| HeaderValue::String(text.into());
    let message = Message::new(Bytes::from(body.to_string()))
        .add_header(Header::new(":message-type", text(kind)))
        .add_header(Header::new(named.0, text(named.1)))
        .add_header(Header::new(":content-type", text("application/json")));
    let mut out = Vec::new();
    write_message_to(&message, &mut out).expect("the headers are short and an event is below 16 MiB");
    out.into()
}
