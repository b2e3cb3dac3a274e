//! The file sink.

use std::{fs, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use connector::{ErrorKind, Registry, Run, Sink, SinkKind, suite::sink as suite};
use model::{Creation, Epoch, ObjectId, Options, SplitId, TaskId};
use shardwright_connectors::sink::file;
use tempfile::TempDir;

struct Fixture {
    folder: TempDir,
}

impl Fixture {
    async fn fresh() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn path(&self) -> String {
        self.folder.path().join("out").to_str().unwrap().to_owned()
    }

    /// Names and texts of the suite's split, in the order of the names.
    fn files(&self) -> Vec<(String, String)> {
        let split = self.folder.path().join("out/suite/split-0");
        let Ok(entries) = fs::read_dir(split) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
        paths.sort();
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
    }
}

#[async_trait]
impl suite::Destination for Fixture {
    fn kind(&self) -> SinkKind {
        let mut registry = Registry::new();
        file::register(&mut registry);
        registry.sink("file").unwrap().clone()
    }

    fn options(&self) -> Options {
        [("path", self.path().as_str()), ("rotate.bytes", "1000")].into_iter().collect()
    }

    async fn read(&self) -> Option<Vec<Bytes>> {
        let files = self.files();
        let lines = files.iter().flat_map(|(_, text)| text.split_inclusive('\n'));
        Some(lines.filter(|l| l.ends_with('\n')).map(|l| Bytes::from(l.to_owned())).collect())
    }

    async fn set_outage(&self, _: bool) -> bool {
        false
    }
}

fn sink(options: &Options) -> Arc<dyn Sink> {
    let mut registry = Registry::new();
    file::register(&mut registry);
    registry.build_sink(&suite::spec("file", options.clone())).unwrap().0
}

fn task() -> TaskId {
    TaskId::reads(ObjectId::from_parts(1, 1), SplitId::new(Creation(1), "split-0"))
}

fn run(revision: u64) -> Run {
    Run { epoch: Epoch { generation: 0, revision }, sink_instance: 0 }
}

#[tokio::test]
async fn it_keeps_the_promises_of_a_sink() {
    suite::all(Fixture::fresh).await;
}

#[tokio::test]
async fn files_rotate_and_their_names_are_their_order() {
    let fixture = Fixture::fresh().await;
    let sink = sink(&suite::Destination::options(&fixture));
    for revision in [9, 10] {
        let mut writer = sink.open(&task(), &run(revision)).await.unwrap();
        for n in 0..3 {
            let text = "x".repeat(600);
            let delivery = writer.write(suite::rows("a", n..n + 1, &text)).await.unwrap();
            assert!(delivery.await.unwrap().is_empty());
        }
    }
    let names: Vec<String> = fixture.files().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "0000.000000000009-000000.jsonl",
            "0000.000000000009-000001.jsonl",
            "0000.000000000010-000000.jsonl",
            "0000.000000000010-000001.jsonl",
        ]
    );
}

#[tokio::test]
async fn a_reopened_epoch_never_appends_to_a_file_that_is_there() {
    let fixture = Fixture::fresh().await;
    let sink = sink(&suite::Destination::options(&fixture));
    for n in 0..2 {
        let mut writer = sink.open(&task(), &run(1)).await.unwrap();
        writer.write(suite::rows("a", n..n + 1, "v")).await.unwrap().await.unwrap();
    }
    let files = fixture.files();
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files[0].1.contains("\"n\":0") && files[1].1.contains("\"n\":1"), "{files:?}");
}

#[tokio::test]
async fn a_path_that_cannot_be_is_a_clear_error() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a-file");
    fs::write(&file, "x").unwrap();
    let path = file.join("below").to_str().unwrap().to_owned();
    let sink = sink(&[("path", path.as_str())].into_iter().collect());
    let error = sink.validate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.to_string().contains(&format!("`{path}`")), "{error}");
    let mut writer = sink.open(&task(), &run(1)).await.unwrap();
    let error = writer.write(suite::rows("a", 0..1, "v")).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
}
