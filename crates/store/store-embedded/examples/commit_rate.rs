//! Prints commits per second at several concurrencies, for creates and for updates of 1 KB values, and a plain
//! append-and-sync log beside it: `cargo run --release --example commit_rate [DIRECTORY]`.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use xebec_store::{Op, Precondition, Store, Write};
use xebec_store_embedded::{EmbeddedStore, Options};

const RUN: Duration = Duration::from_secs(3);
const WATCHERS: usize = 20;

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let directory = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(directory).unwrap();
    for batch in [1, 32, 64] {
        println!(
            "append + fdatasync, {batch:>2} x 1 KB per sync: {:>7.0}/s",
            log_rate(directory.path(), batch)
        );
    }
    for watchers in [0, WATCHERS] {
        for tasks in [1, 32, 64] {
            let path = directory.path().join(format!("{watchers}-{tasks}"));
            let store = Arc::new(EmbeddedStore::open(&path, Options::default()).unwrap());
            for n in 0..watchers {
                let mut watch = store.watch(&format!("/k/{n}"), 1).await.unwrap();
                tokio::spawn(async move { while watch.next().await.is_some_and(|batch| batch.is_ok()) {} });
            }
            let creates = rate(&store, tasks, Precondition::Absent).await;
            let updates = rate(&store, tasks, Precondition::None).await;
            println!(
                "store, {tasks:>2} writers, {watchers:>2} watchers: {creates:>7.0} creates/s \
                 {updates:>7.0} updates/s, {} MB resident",
                resident() >> 20
            );
        }
    }
}

async fn rate(store: &Arc<EmbeddedStore>, tasks: usize, precondition: Precondition) -> f64 {
    let done = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let (store, done) = (store.clone(), done.clone());
            tokio::spawn(async move {
                let value = Bytes::from(vec![task as u8; 1024]);
                let mut n = 0;
                while start.elapsed() < RUN {
                    let name = if precondition == Precondition::Absent { n } else { n % 100 };
                    let key = format!("/k/{task}/{name}").into();
                    store.commit(Write { key, precondition, op: Op::Put(value.clone()) }).await.unwrap();
                    n += 1;
                }
                done.fetch_add(n, Ordering::Relaxed);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

fn log_rate(directory: &Path, batch: usize) -> f64 {
    let mut log = File::create(directory.join("log")).unwrap();
    let record = vec![7; 1024 * batch];
    let start = Instant::now();
    let mut written = 0;
    while start.elapsed() < RUN {
        log.write_all(&record).unwrap();
        log.sync_data().unwrap();
        written += batch;
    }
    written as f64 / start.elapsed().as_secs_f64()
}

/// Bytes of memory in use by this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
