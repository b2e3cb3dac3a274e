//! The simulated Kinesis: its rules, the real SDK on it, and the real source on it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod rules;
mod sdk;
mod source;

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use aws_sdk_kinesis::{
    Client,
    config::{
        BehaviorVersion, Credentials, Region, SharedHttpClient, StalledStreamProtectionConfig,
        retry::RetryConfig,
    },
};
use aws_smithy_async::time::TimeSource;
use bytes::Bytes;
use shardwright_sim::{
    kinesis::{Model, REGION, Shape, http},
    net::Net,
    os::EPOCH_MS,
    place::Place,
};
use tokio::time::{Instant, sleep};

const HERE: Place = Place::Worker(0);

/// The wall clock of a machine: so much ahead of the truth.
struct Clock(Net, Duration);

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(EPOCH_MS) + self.0.now() + self.1
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("clock")
    }
}

/// Kinesis with a stream `in`, and a machine that reaches it.
struct World {
    net: Net,
    model: Arc<Mutex<Model>>,
    http: SharedHttpClient,
    client: Client,
}

impl World {
    /// A stream `in`, and a client of it. Must be called in a runtime whose clock is paused.
    fn new() -> Self {
        Self::ahead(Duration::ZERO)
    }

    /// As [`World::new`]; the client's clock is wrong.
    fn ahead(ahead: Duration) -> Self {
        let net = Net::new(11);
        let model = Arc::new(Mutex::new(Model::new(11)));
        model.lock().unwrap().create(net.now(), "in", Shape::default());
        let http = http::client(net.clone(), HERE, model.clone());
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .time_source(Clock(net.clone(), ahead))
            .http_client(http.clone())
            .build();
        let driven = net.clone();
        let begin = Instant::now();
        tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(1)).await;
                driven.run_until(begin.elapsed());
            }
        });
        Self { net, model, http, client: Client::from_conf(config) }
    }

    fn load(&self, values: std::ops::Range<u32>) {
        let mut model = self.model.lock().unwrap();
        for value in values {
            model.put(self.net.now(), "in", "key", Bytes::from(value.to_string()));
        }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }
}
