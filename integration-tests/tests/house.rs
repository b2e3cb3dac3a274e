//! The house rules that a compiler does not know: which crate may use which (the list in ARCHITECTURE.md), how long a file
//! and a trait may be, and that every module says what it is. `make check` runs them.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// Lines of a file before its tests.
const FILE_LINES_MAX: usize = 500;
/// Methods of a trait.
const TRAIT_METHODS_MAX: usize = 6;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Crate → crates of this house that it uses.
type Arrows = BTreeMap<String, BTreeSet<String>>;

fn short(package: &str) -> Option<String> {
    package.strip_prefix("shardwright-").map(str::to_owned)
}

/// What `cargo metadata` says, without what only tests use.
fn arrows_drawn() -> Arrows {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--locked", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let list = |value: &serde_json::Value| value.as_array().unwrap().clone();
    list(&metadata["packages"])
        .iter()
        .map(|package| {
            let uses = list(&package["dependencies"])
                .iter()
                .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
                .filter_map(|dependency| short(dependency["name"].as_str().unwrap()))
                .collect();
            (short(package["name"].as_str().unwrap()).unwrap(), uses)
        })
        .collect()
}

/// What the ```` ```arrows ```` block of a text allows: lines `crate -> crate crate …`.
fn arrows_allowed(text: &str) -> Arrows {
    let (_, block) = text.split_once("```arrows\n").expect("ARCHITECTURE.md has a block ```arrows");
    let (block, _) = block.split_once("```").expect("the block ends");
    block
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let (from, to) = line.split_once("->").unwrap_or_else(|| panic!("`{line}` is not `crate -> …`"));
            (from.trim().to_owned(), to.split_whitespace().map(str::to_owned).collect())
        })
        .collect()
}

#[test]
fn crates_use_each_other_as_the_architecture_says() {
    let allowed = arrows_allowed(&std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap());
    let drawn = arrows_drawn();
    let names = |arrows: &Arrows| arrows.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&drawn), names(&allowed), "the crates are not those of ARCHITECTURE.md");
    let wrong: Vec<String> = drawn
        .iter()
        .flat_map(|(from, to)| to.difference(&allowed[from]).map(move |to| format!("{from} -> {to}")))
        .collect();
    assert!(wrong.is_empty(), "not allowed by ARCHITECTURE.md: {wrong:?}");
}

#[test]
fn the_arrows_make_no_circle() {
    let allowed = arrows_allowed(&std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap());
    let mut left = allowed;
    while !left.is_empty() {
        let (free, held): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|(_, uses): &(String, BTreeSet<String>)| uses.is_empty());
        assert!(!free.is_empty(), "a circle among {held:?}");
        let gone: BTreeSet<String> = free.into_iter().map(|(name, _)| name).collect();
        left = held.into_iter().map(|(name, uses)| (name, &uses - &gone)).collect();
    }
}

/// Every Rust file of the house that is not made only of tests.
fn sources() -> Vec<(PathBuf, String)> {
    let tracked = Command::new("git").args(["ls-files", "*.rs"]).current_dir(root()).output().unwrap();
    assert!(tracked.status.success(), "git ls-files: {}", String::from_utf8_lossy(&tracked.stderr));
    let found: Vec<(PathBuf, String)> = String::from_utf8(tracked.stdout)
        .unwrap()
        .lines()
        .filter(|path| !is_test(path))
        .filter_map(|path| Some((path.into(), std::fs::read_to_string(root().join(path)).ok()?)))
        .collect();
    assert!(found.len() > 50, "only {} sources found", found.len());
    found
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs") || path.ends_with("_tests.rs")
}

/// The lines before the tests at the end of a file: an item for tests among the code does not end it.
fn before_tests(text: &str) -> impl Iterator<Item = &str> {
    let next = text.lines().skip(1).map(Some).chain([None]);
    text.lines()
        .zip(next)
        .take_while(|(line, next)| {
            *line != "#[cfg(test)]" || !next.is_some_and(|next| next.starts_with("mod "))
        })
        .map(|(line, _)| line)
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(path, text)| (path, before_tests(text).count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "more than {FILE_LINES_MAX} lines before the tests: {long:#?}");
}

#[test]
fn every_module_says_what_it_is() {
    let mute: Vec<String> = sources()
        .iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(mute.is_empty(), "without `//!` at the head: {mute:#?}");
}

/// Traits of a source and the number of their methods. Knows formatted code only: what rustfmt made.
fn traits(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut lines = before_tests(text);
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let words: Vec<&str> = code.split_whitespace().filter(|word| !word.starts_with("pub")).collect();
        let name = match words.as_slice() {
            ["trait", name, ..] | ["unsafe", "trait", name, ..] => name.trim_end_matches(':'),
            _ => continue,
        };
        if code.ends_with("{}") || code.ends_with("{ }") {
            found.push((name.to_owned(), 0));
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let inner = " ".repeat(indent + 4);
        let methods = lines
            .by_ref()
            .take_while(|line| *line != end)
            .filter_map(|line| line.strip_prefix(&inner))
            .filter(|line| line.starts_with("fn ") || line.starts_with("async fn "))
            .count();
        found.push((name.to_owned(), methods));
    }
    found
}

#[test]
fn no_trait_has_too_many_methods() {
    let (mut large, mut seen) = (Vec::new(), 0);
    for (path, text) in sources() {
        for (name, methods) in traits(&text) {
            seen += 1;
            if methods > TRAIT_METHODS_MAX {
                large.push(format!("{}: {name} has {methods}", path.display()));
            }
        }
    }
    assert!(seen > 5, "only {seen} traits found");
    assert!(large.is_empty(), "more than {TRAIT_METHODS_MAX} methods: {large:#?}");
}

#[test]
fn the_measures_measure() {
    let text = "//! x\n\npub trait A: Send {\n    /// d\n    async fn a(&self);\n    fn b(&self) {\n        fn inner() {}\n    }\n}\n\n\
                trait B {}\n#[cfg(test)]\nmod tests {\n    trait C {\n        fn c();\n    }\n}\n";
    assert_eq!(traits(text), [("A".to_owned(), 2), ("B".to_owned(), 0)]);
    assert_eq!(before_tests(text).count(), 11);
    assert_eq!(before_tests("#[cfg(test)]\nuse x;\nfn a() {}\n#[cfg(test)]\nmod tests;\n").count(), 3);
    let arrows = arrows_allowed("…\n```arrows\na -> b c\nb ->\n```\n");
    assert_eq!(arrows["a"], BTreeSet::from(["b".to_owned(), "c".to_owned()]));
    assert!(arrows["b"].is_empty());
    assert!(is_test("crates/x/src/y/tests.rs") && is_test("a/tests/b.rs") && is_test("a/src/b_tests.rs"));
    assert!(!is_test("crates/x/src/attests.rs"));
}
