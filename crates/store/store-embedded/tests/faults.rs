//! kill -9 and full disks, each against a child process: this test binary, started again for one of its tests.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use futures::StreamExt;
use xebec_store::history::Limits;
use xebec_store::suite::put;
use xebec_store::{Precondition, Store, StoreError};
use xebec_store_embedded::{EmbeddedStore, Options};

const DIRECTORY: &str = "XEBEC_STORE_TEST_DIRECTORY";
const ROUND: &str = "XEBEC_STORE_TEST_ROUND";

/// A child that is killed when the test ends, however it ends.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs one `#[ignore]`d test of this binary as a program.
fn again(program: &str, arguments: &[&str], test: &str, directory: &Path) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(arguments);
    if program != this.to_str().unwrap() {
        command.arg(&this);
    }
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(DIRECTORY, directory);
    command
}

fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

#[tokio::test]
async fn kill_9_loses_nothing_acknowledged() {
    const ROUNDS: usize = 8;
    let directory = tempfile::tempdir().unwrap();
    let this = std::env::current_exe().unwrap();
    let mut acknowledged: HashMap<String, (u64, String)> = HashMap::new();
    let mut total = 0;
    for round in 0..ROUNDS {
        let mut command = again(this.to_str().unwrap(), &[], "child_writes_until_killed", directory.path());
        let child = command.env(ROUND, round.to_string()).stdout(Stdio::piped()).spawn().unwrap();
        let mut child = Victim(child);
        let mut output = BufReader::new(child.0.stdout.take().unwrap());
        // A different point of the log each time; what is in the pipe by then counts too.
        let kill_after = 150 + round * 137;
        let mut seen = 0;
        let mut line = String::new();
        while output.read_line(&mut line).unwrap() > 0 {
            if let Some(ack) = line.strip_suffix('\n').and_then(|line| line.strip_prefix("ack ")) {
                let [key, revision, value] = ack.split(' ').collect::<Vec<_>>()[..] else { panic!("{ack}") };
                let new = (revision.parse().unwrap(), value.to_owned());
                let kept = acknowledged.entry(key.to_owned()).or_insert_with(|| new.clone());
                if kept.0 < new.0 {
                    *kept = new;
                }
                seen += 1;
                if seen == kill_after {
                    child.0.kill().unwrap();
                }
            }
            line.clear();
        }
        drop(child);
        assert!(seen >= kill_after, "round {round}: the child died by itself after {seen} writes");
        total += seen;
        verify(directory.path(), &acknowledged).await;
    }
    println!("{ROUNDS} kills, {total} acknowledged writes of {} keys, all there", acknowledged.len());
}

async fn verify(directory: &Path, acknowledged: &HashMap<String, (u64, String)>) {
    let store = EmbeddedStore::open(directory, Options::default()).unwrap();
    let newest = acknowledged.values().map(|(revision, _)| *revision).max().unwrap();
    let listed = store.list("/", None, 0).await.unwrap();
    assert!(listed.revision >= newest, "at {} after {newest}", listed.revision);
    let found: HashMap<_, _> = listed.items.iter().map(|kv| (&*kv.key, kv)).collect();
    for (key, (revision, value)) in acknowledged {
        let kv = found.get(key.as_str()).unwrap_or_else(|| panic!("{key} at {revision} is lost"));
        assert!(kv.mod_revision >= *revision, "{key} fell back to {} from {revision}", kv.mod_revision);
        assert!(kv.mod_revision > *revision || kv.value == value.as_bytes(), "{key} holds something else");
    }
    let mut revisions: Vec<_> = listed.items.iter().map(|kv| kv.mod_revision).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), listed.items.len(), "no revision was given twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of kill_9_loses_nothing_acknowledged"]
async fn child_writes_until_killed() {
    let Some(directory) = directory() else { return };
    let round = std::env::var(ROUND).unwrap();
    // Small memtables, so that kills hit flushes and merges too.
    let options = Options { memtable_bytes: 64 << 10, ..Options::default() };
    let store = Arc::new(EmbeddedStore::open(directory, options).unwrap());
    println!();
    let tasks = (0..8).map(|task| {
        let (store, round) = (store.clone(), round.clone());
        tokio::spawn(async move {
            for n in 0.. {
                let value = format!("{round}-{task}-{n}-{}", "x".repeat(n % 700));
                // Every third write goes over an old one.
                let key =
                    if n % 3 == 0 { format!("/same/{task}") } else { format!("/new/{round}/{task}/{n}") };
                let commit = store.commit(put(&key, &value, Precondition::None)).await.unwrap();
                let line = format!("ack {key} {} {value}\n", commit.revision);
                if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
                    return;
                }
            }
        })
    });
    futures::future::join_all(tasks).await;
}

#[test]
fn a_full_disk_loses_nothing_and_heals() {
    assert!(rustix::process::geteuid().is_root(), "this test mounts a tmpfs: run it as root");
    let directory = tempfile::tempdir().unwrap();
    let mut command = again("unshare", &["--mount", "--"], "child_fills_the_disk", directory.path());
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("1 passed"), "{told}");
    println!("{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of a_full_disk_loses_nothing_and_heals"]
async fn child_fills_the_disk() {
    let Some(directory) = directory() else { return };
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"])
        .arg(&directory)
        .status()
        .unwrap();
    assert!(mounted.success());
    // With a reserve the log never fails half way; without one it hits the wall itself.
    for reserve_bytes in [8 << 20, 0] {
        fill_and_heal(&directory, reserve_bytes).await;
    }
}

async fn fill_and_heal(directory: &Path, reserve_bytes: u64) {
    let path = directory.join("store");
    // All of it fits the history, so that only an opening can lose it.
    let history = Limits { events: 10_000, bytes: 64 << 20 };
    let options = Options { reserve_bytes, memtable_bytes: 1 << 20, history, ..Options::default() };
    let store = EmbeddedStore::open(&path, options).unwrap();
    let filler = directory.join("filler");
    std::fs::write(&filler, vec![1; 20 << 20]).unwrap();
    let before = store.revision().await.unwrap();
    let value = "f".repeat(64 << 10);
    let mut acknowledged = Vec::new();
    let error = loop {
        let key = format!("/f/{reserve_bytes}/{}", acknowledged.len());
        match store.commit(put(&key, &value, Precondition::None)).await {
            Ok(commit) => acknowledged.push((key, commit.revision)),
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 2000, "the disk never fills");
    };
    // A worker of the database may find the disk full first; then only its giving up is seen here.
    let full = matches!(error, StoreError::Full { .. });
    assert!(full || reserve_bytes == 0 && matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(acknowledged.len() > 50, "{}", acknowledged.len());
    for (key, revision) in &acknowledged {
        assert_eq!(store.get(key).await.unwrap().unwrap().mod_revision, *revision, "reads go on");
    }

    let mut watch = store.watch("/", store.revision().await.unwrap()).await.unwrap();
    std::fs::remove_file(&filler).unwrap();
    store.commit(put("/healed", "", Precondition::None)).await.unwrap();
    match watch.next().await.unwrap() {
        Ok(batch) => assert_eq!(&*batch.events[0].key, "/healed"),
        // A write whose failure was told had reached the log: those who watch start over.
        Err(error) => assert!(matches!(error, StoreError::Compacted { .. }), "{error}"),
    }
    // Only a database that was opened again has lost its history. With a reserve that is rare: a worker of the
    // database must have used the reserve up while this thread waited.
    let reopened = matches!(store.watch("/", before).await.map(|_| ()), Err(StoreError::Compacted { .. }));
    assert!(reopened || reserve_bytes > 0);
    println!("reserve {reserve_bytes}: {} writes, then: {error:?}", acknowledged.len());
    drop(store);
    let store = EmbeddedStore::open(&path, options).unwrap();
    let listed = store.list("/f/", None, 0).await.unwrap();
    assert!(listed.revision > before + acknowledged.len() as u64);
    for (key, revision) in &acknowledged {
        assert_eq!(store.get(key).await.unwrap().unwrap().mod_revision, *revision, "{key}");
    }
    for kv in listed.items {
        store.commit(xebec_store::suite::delete(&kv.key, Precondition::None)).await.unwrap();
    }
    drop(store);
    std::fs::remove_dir_all(&path).unwrap();
}
