//! The embedded store against the suite, and what only a store on disk can get wrong.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use xebec_store::history::Limits;
use xebec_store::suite::{self, delete, put};
use xebec_store::{Op, Precondition, Store, StoreError, Write};
use xebec_store_embedded::{EmbeddedStore, Options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_suite() {
    let directory = tempfile::tempdir().unwrap();
    suite::run(|name| {
        let store = EmbeddedStore::open(directory.path().join(name), Options::default()).unwrap();
        async move { Arc::new(store) as Arc<dyn Store> }
    })
    .await;
}

#[tokio::test]
async fn a_second_open_names_path_and_holder() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path(), Options::default()).unwrap();
    let error = EmbeddedStore::open(directory.path(), Options::default()).err().unwrap();
    let wanted = format!("store {}: in use by process {}", directory.path().display(), std::process::id());
    assert_eq!(error.to_string(), wanted);
    drop(store);
    EmbeddedStore::open(directory.path(), Options::default()).unwrap();
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { value_bytes: 10, ..Options::default() };
    let store = EmbeddedStore::open(directory.path(), options).unwrap();
    let long = put("/a", "12345678901", Precondition::None);
    let error = store.commit(long).await.unwrap_err();
    assert_eq!(error.to_string(), "write /a: 11 bytes are more than the limit of 10");
    let key = "k".repeat(5000);
    let error = store.commit(put(&key, "", Precondition::None)).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { bytes: 5000, limit: 4096, .. }), "{error}");
    assert_eq!(store.revision().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_ends_compacted_and_dropping_ends_watches() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { history: Limits { events: 8, bytes: 1 << 20 }, ..Options::default() };
    let store = EmbeddedStore::open(directory.path(), options).unwrap();
    let mut slow = store.watch("/", 1).await.unwrap();
    for n in 0..20 {
        store.commit(put("/k", &n.to_string(), Precondition::None)).await.unwrap();
    }
    let end = slow.next().await.unwrap().unwrap_err();
    assert!(matches!(end, StoreError::Compacted { oldest: 13 }), "{end}");
    let mut watch = store.watch("/", 20).await.unwrap();
    drop(store);
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 21);
    assert!(matches!(watch.next().await, Some(Err(StoreError::Closed))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_group_may_write_a_key_many_times() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path(), Options::default()).unwrap();
    let writes = (0..99).map(|n| {
        let write = if n % 3 == 2 && n < 98 {
            delete("/same", Precondition::None)
        } else {
            put("/same", &n.to_string(), Precondition::None)
        };
        store.commit(write)
    });
    let commits = futures::future::join_all(writes).await;
    let revisions: Vec<_> = commits.iter().map(|commit| commit.as_ref().unwrap().revision).collect();
    assert_eq!(revisions, (2..101).collect::<Vec<_>>());
    let last = store.get("/same").await.unwrap().unwrap();
    assert_eq!((&last.value[..], last.create_revision, last.mod_revision), (&b"98"[..], 98, 100));
    drop(store);
    let store = EmbeddedStore::open(directory.path(), Options::default()).unwrap();
    assert_eq!(store.get("/same").await.unwrap().unwrap(), last);
}

/// Rewrites 2 MB of live values a hundred times over, with lists in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overwritten_values_are_reclaimed() {
    const KEYS: usize = 64;
    const ROUNDS: usize = 100;
    let directory = tempfile::tempdir().unwrap();
    let options = Options { memtable_bytes: 2 << 20, ..Options::default() };
    let store = EmbeddedStore::open(directory.path(), options).unwrap();
    let mut seed = 1_u64;
    for _ in 0..ROUNDS {
        let writes = (0..KEYS).map(|n| {
            // Not compressible, not alike.
            let value: Vec<u8> = std::iter::repeat_with(|| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed.to_le_bytes()
            })
            .take(4096)
            .flatten()
            .collect();
            let op = Op::Put(Bytes::from(value));
            store.commit(Write { key: format!("/k/{n}").into(), precondition: Precondition::None, op })
        });
        for commit in futures::future::join_all(writes).await {
            commit.unwrap();
        }
        assert_eq!(store.list("/", None, 0).await.unwrap().items.len(), KEYS);
    }
    drop(store);
    let tables = allocated(&directory.path().join("data/keyspaces"));
    let all = allocated(directory.path());
    println!("live 2 MiB, written 200 MiB: tables {} KiB, all {} KiB", tables >> 10, all >> 10);
    assert!(tables < 40 << 20, "tables hold {tables} bytes");
    assert!(all < 180 << 20, "the store holds {all} bytes");
}

/// Bytes of disk under a path, holes not counted.
fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(path).unwrap();
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own;
    }
    std::fs::read_dir(path).unwrap().map(|entry| allocated(&entry.unwrap().path())).sum::<u64>() + own
}
