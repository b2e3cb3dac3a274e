//! A gauge that shows what holds now and nothing else. One that is merely recorded shows for ever what it was told last: a shard
//! that has moved on, a worker that was forgotten, the splits of a leader that was.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::{KeyValue, global};

type Values = Vec<(Vec<KeyValue>, f64)>;

/// See the module. Dropping it takes its values off the page.
#[derive(Clone, Debug)]
pub struct Board(Arc<Mutex<Values>>);

impl Board {
    /// A gauge of this name, with a unit as OpenTelemetry writes it (or none). It shows nothing yet.
    #[must_use]
    pub fn new(name: &'static str, unit: &'static str, text: &'static str) -> Self {
        let board = Self(Arc::default());
        let values = Arc::downgrade(&board.0);
        // The instrument lives as long as the meter; what it shows does not.
        let _ = global::meter("shardwright")
            .f64_observable_gauge(name)
            .with_unit(unit)
            .with_description(text)
            .with_callback(move |gauge| {
                let Some(values) = values.upgrade() else { return };
                for (labels, value) in values.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    gauge.observe(*value, labels);
                }
            })
            .build();
        board
    }

    /// From now on it shows these, one for each set of labels.
    pub fn show(&self, values: Values) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = values;
    }

    /// From now on it shows this, without labels.
    pub fn show_one(&self, value: f64) {
        self.show(vec![(Vec::new(), value)]);
    }

    /// From now on it shows nothing.
    pub fn clear(&self) {
        self.show(Vec::new());
    }
}
