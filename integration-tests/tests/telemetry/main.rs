//! What the processes of a cluster tell of themselves: docs/metrics.md against `/metrics`, spans and logs against an OTLP collector,
//! `/readyz`, `/debug`, and the rules of alerts and the dashboard against docs/metrics.md.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod alerts;
mod collector;
mod manual;
mod pages;
mod site;
mod traces;
