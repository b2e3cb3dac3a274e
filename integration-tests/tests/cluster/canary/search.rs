//! Canaries, and the search for them.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A text that is nowhere else.
pub fn canary() -> String {
    let random: u64 = rand::random();
    format!("canary{:03}x{random:016x}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Where secrets were planted: what for, and which.
#[derive(Default)]
pub struct Planted(BTreeMap<String, String>);

impl Planted {
    /// A new canary for this use.
    pub fn plant(&mut self, used: &str) -> String {
        let canary = canary();
        self.0.insert(canary.clone(), used.to_owned());
        canary
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// How a text may look somewhere: as it is, as hexadecimal digits, as numbers of bytes, and within base64 at each of the three
/// places where it may begin.
fn guises(text: &str) -> Vec<Vec<u8>> {
    let bytes = text.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers = format!("{bytes:?}");
    let mut all = vec![text.to_owned(), hex.to_uppercase(), hex, numbers.trim_matches(['[', ']']).to_owned()];
    for (before, gone) in [(0, 0), (1, 2), (2, 3)] {
        let encoded = STANDARD.encode([vec![0; before], bytes.to_vec()].concat());
        // What stands at the edges depends on the neighbours.
        all.push(encoded[gone..encoded.len() - 4].to_owned());
    }
    all.into_iter().map(String::into_bytes).collect()
}

/// Everything that was said, written or stored, by where.
#[derive(Default)]
pub struct Haul(Vec<(String, Vec<u8>)>);

impl Haul {
    pub fn add(&mut self, place: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.to_owned(), bytes.into()));
    }

    /// Every file below a directory.
    pub fn add_files(&mut self, place: &str, dir: &Path) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.add_files(place, &path);
            } else if let Ok(mut bytes) = std::fs::read(&path) {
                // etcd's log is mostly room for more.
                bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
                self.add(&format!("{place}: {}", path.display()), bytes);
            }
        }
    }

    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// The places that hold a text, in whatever guise.
    pub fn places(&self, text: &str) -> Vec<&str> {
        let guises = guises(text);
        let holds = |bytes: &[u8]| guises.iter().any(|guise| contains(bytes, guise));
        self.0.iter().filter(|(_, bytes)| holds(bytes)).map(|(place, _)| place.as_str()).collect()
    }

    /// What was planted and is somewhere: use and place.
    pub fn found(&self, planted: &Planted) -> Vec<String> {
        // One pass for what all canaries have in common; only what has that is looked at closely.
        let common = guises("canary");
        let suspects: Vec<&(String, Vec<u8>)> =
            self.0.iter().filter(|(_, bytes)| common.iter().any(|guise| contains(bytes, guise))).collect();
        let mut found = Vec::new();
        for (canary, used) in &planted.0 {
            let guises = guises(canary);
            for (place, bytes) in &suspects {
                if let Some(guise) = guises.iter().find(|guise| contains(bytes, guise)) {
                    let at = bytes.windows(guise.len()).position(|part| part == guise.as_slice()).unwrap();
                    let around = &bytes[at.saturating_sub(120)..(at + guise.len() + 20).min(bytes.len())];
                    found.push(format!("{used} in {place}: …{}…", String::from_utf8_lossy(around)));
                }
            }
        }
        found
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    let Some(first) = part.first() else { return false };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(part) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[test]
fn a_canary_is_found_in_every_guise() {
    let mut planted = Planted::default();
    let canary = planted.plant("a test");
    let beside = |text: &str| format!("some {text} more");
    let hex: String = canary.bytes().map(|byte| format!("{byte:02x}")).collect();
    let ways = [
        beside(&canary),
        beside(&hex),
        format!("Bytes({:?})", beside(&canary).as_bytes()),
        STANDARD.encode(format!("u:{canary}!")),
        STANDARD.encode(format!("us:{canary}!")),
        STANDARD.encode(format!("usr:{canary}!")),
    ];
    for way in ways {
        let mut haul = Haul::default();
        haul.add("here", "nothing");
        assert!(haul.found(&planted).is_empty());
        haul.add("there", way.clone());
        assert_eq!(haul.found(&planted).len(), 1, "{way}");
        assert_eq!(haul.places(&canary), ["there"], "{way}");
    }
}
