//! docs/metrics.md as data.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// A row of the page.
#[derive(Debug)]
pub struct Row {
    pub section: String,
    pub kind: String,
    pub labels: Vec<String>,
    pub always: bool,
    pub alerts: Vec<String>,
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The metrics that are documented.
pub fn rows() -> BTreeMap<String, Row> {
    let text = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let (mut rows, mut section) = (BTreeMap::new(), String::new());
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_owned();
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, _unit, labels, served, _means, alerts] = cells[..] else { continue };
        if !name.starts_with('`') {
            continue;
        }
        let row = Row {
            section: section.clone(),
            kind: kind.to_owned(),
            labels: words(labels),
            always: served == "always",
            alerts: words(alerts),
        };
        assert!(rows.insert(name.trim_matches('`').to_owned(), row).is_none(), "{name} stands there twice");
    }
    assert!(rows.len() > 40, "only {} metrics found", rows.len());
    rows
}

fn words(cell: &str) -> Vec<String> {
    cell.split(',').map(|word| word.trim().trim_matches('`').to_owned()).filter(|w| !w.is_empty()).collect()
}

/// A metric's own name: without what a histogram adds.
pub fn family(name: &str, rows: &BTreeMap<String, Row>) -> String {
    let ends = ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
    let histogram = |base: &&str| rows.get(*base).is_some_and(|row| row.kind == "histogram");
    ends.clone().find(histogram).unwrap_or(name).to_owned()
}
