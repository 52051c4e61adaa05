//! What every backend must do, as one program.
//!
//! A backend's test calls [`run`] with a function that opens the store of a name: the first time empty, and later,
//! when the suite has dropped every handle to it, with what it held. Failures are panics that say what was
//! expected.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;

use crate::{
    Commit, Event, EventKind, KeyValue, Op, Precondition, Revision, Store, StoreError, WatchStream, Write,
};

/// Runs every check, each on a store of its own.
///
/// # Panics
/// If the backend breaks the contract.
pub async fn run<F, Fut>(open: F)
where
    F: Fn(&'static str) -> Fut,
    Fut: Future<Output = Arc<dyn Store>>,
{
    revisions_and_preconditions(&*open("preconditions").await).await;
    lists_are_ordered_pages(&*open("lists").await).await;
    watches_follow_from_any_revision(&*open("watches").await).await;
    compaction_forgets_history_only(&*open("compaction").await).await;
    list_and_watch_leave_no_gap(open("gaps").await).await;
    one_of_many_wins(open("races").await).await;
    restart_keeps_everything(&open).await;
}

/// A write that puts `value` under `key`.
#[must_use]
pub fn put(key: &str, value: &str, precondition: Precondition) -> Write {
    Write { key: key.into(), precondition, op: Op::Put(Bytes::copy_from_slice(value.as_bytes())) }
}

/// A write that deletes `key`.
#[must_use]
pub fn delete(key: &str, precondition: Precondition) -> Write {
    Write { key: key.into(), precondition, op: Op::Delete }
}

fn kv(key: &str, value: &str, create_revision: Revision, mod_revision: Revision) -> KeyValue {
    let value = Bytes::copy_from_slice(value.as_bytes());
    KeyValue { key: key.into(), value, create_revision, mod_revision }
}

async fn revisions_and_preconditions(store: &dyn Store) {
    use Precondition::{Absent, ModRevision, None as Any};
    assert_eq!(store.revision().await.unwrap(), 1, "a new store is at 1");
    assert_eq!(store.get("/a").await.unwrap(), None);

    let made = store.commit(put("/a", "1", Absent)).await.unwrap();
    assert_eq!(made, Commit { revision: 2, previous: None });
    let first = kv("/a", "1", 2, 2);
    match store.commit(put("/a", "2", Absent)).await {
        Err(StoreError::Conflict { key, current }) => {
            assert_eq!((&*key, current), ("/a", Some(first.clone())));
        }
        other => panic!("creating an existing key: {other:?}"),
    }
    let stale = store.commit(put("/a", "2", ModRevision(1))).await;
    assert!(matches!(stale, Err(StoreError::Conflict { current: Some(_), .. })), "{stale:?}");
    let missing = store.commit(put("/b", "2", ModRevision(1))).await;
    assert!(matches!(missing, Err(StoreError::Conflict { current: None, .. })), "{missing:?}");
    assert_eq!(store.revision().await.unwrap(), 2, "a refused write makes no revision");

    let updated = store.commit(put("/a", "2", ModRevision(2))).await.unwrap();
    assert_eq!(updated, Commit { revision: 3, previous: Some(first) });
    let second = kv("/a", "2", 2, 3);
    assert_eq!(store.get("/a").await.unwrap(), Some(second.clone()));

    let stale = store.commit(delete("/a", ModRevision(2))).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })), "{stale:?}");
    let deleted = store.commit(delete("/a", ModRevision(3))).await.unwrap();
    assert_eq!(deleted, Commit { revision: 4, previous: Some(second) });
    for precondition in [Any, Absent, ModRevision(3)] {
        let missing = store.commit(delete("/a", precondition)).await;
        assert!(matches!(missing, Err(StoreError::NotFound { .. })), "{missing:?}");
    }

    store.commit(put("/a", "", Absent)).await.unwrap();
    assert_eq!(store.get("/a").await.unwrap(), Some(kv("/a", "", 5, 5)), "made again, and empty");
    assert_eq!(store.get("/").await.unwrap(), None, "a prefix is not a key");
}

async fn lists_are_ordered_pages(store: &dyn Store) {
    for key in ["/p/b", "/p/a", "/q/x", "/p/a/1", "/p", "/p/c", "/o"] {
        store.commit(put(key, key, Precondition::Absent)).await.unwrap();
    }
    let keys = |items: &[KeyValue]| items.iter().map(|kv| kv.key.to_string()).collect::<Vec<_>>();
    let all = store.list("/p/", None, 0).await.unwrap();
    assert_eq!((all.revision, all.more), (8, false));
    assert_eq!(keys(&all.items), ["/p/a", "/p/a/1", "/p/b", "/p/c"]);
    assert_eq!(all.items[2], kv("/p/b", "/p/b", 2, 2));

    let page = store.list("/p/", None, 3).await.unwrap();
    assert_eq!((keys(&page.items), page.more), (keys(&all.items[..3]), true));
    let page = store.list("/p/", Some("/p/b"), 3).await.unwrap();
    assert_eq!((keys(&page.items), page.more), (keys(&all.items[3..]), false));
    let page = store.list("/p/", None, 4).await.unwrap();
    assert_eq!((page.items.len(), page.more), (4, false), "an exact page is the last");
    let page = store.list("/p/", Some("/p/aa"), 1).await.unwrap();
    assert_eq!(keys(&page.items), ["/p/b"], "a start that was deleted");
    let page = store.list("/p/", Some("/a"), 1).await.unwrap();
    assert_eq!(keys(&page.items), ["/p/a"], "a start before the prefix");
    let page = store.list("/p/", Some("/z"), 1).await.unwrap();
    assert_eq!((page.items.len(), page.more), (0, false), "a start after the prefix");
    assert_eq!(store.list("", None, 0).await.unwrap().items.len(), 7, "everything");
    assert!(store.list("/r/", None, 0).await.unwrap().items.is_empty());
}

async fn watches_follow_from_any_revision(store: &dyn Store) {
    use Precondition::None as Any;
    store.commit(put("/w/a", "1", Any)).await.unwrap();
    store.commit(put("/x/b", "1", Any)).await.unwrap();
    store.commit(put("/w/a", "2", Any)).await.unwrap();
    let mut early = store.watch("/w/", 1).await.unwrap();
    let mut late = store.watch("/w/", 3).await.unwrap();
    let mut future = store.watch("", 6).await.unwrap();
    store.commit(delete("/w/a", Any)).await.unwrap();
    store.commit(put("/w/c", "3", Any)).await.unwrap();
    store.commit(put("/y", "4", Any)).await.unwrap();

    let put_event = |revision, value: KeyValue, previous| Event {
        revision,
        key: value.key.clone(),
        kind: EventKind::Put { value },
        previous,
    };
    let (one, two) = (kv("/w/a", "1", 2, 2), kv("/w/a", "2", 2, 4));
    let gone =
        Event { revision: 5, key: "/w/a".into(), kind: EventKind::Delete, previous: Some(two.clone()) };
    let wanted = [
        put_event(2, one.clone(), None),
        put_event(4, two, Some(one)),
        gone,
        put_event(6, kv("/w/c", "3", 6, 6), None),
    ];
    assert_eq!(collect_until(&mut early, 1, 7).await, wanted);
    assert_eq!(collect_until(&mut late, 3, 7).await, wanted[1..]);
    let only_newer = collect_until(&mut future, 6, 7).await;
    assert_eq!(only_newer, [put_event(7, kv("/y", "4", 7, 7), None)], "nothing up to `after` is shown");
}

async fn compaction_forgets_history_only(store: &dyn Store) {
    for n in 0..5 {
        store.commit(put("/k", &n.to_string(), Precondition::None)).await.unwrap();
    }
    store.compact(4).await.unwrap();
    let Err(StoreError::Compacted { oldest: 4 }) = store.watch("/k", 3).await.map(|_| ()) else {
        panic!("a watch into compacted history")
    };
    let mut watch = store.watch("/k", 4).await.unwrap();
    assert_eq!(collect_until(&mut watch, 4, 6).await.len(), 2);
    store.compact(2).await.unwrap();
    assert!(store.watch("/k", 4).await.is_ok(), "compacting less changes nothing");
    store.compact(1000).await.unwrap();
    assert!(matches!(store.watch("/k", 5).await.map(|_| ()), Err(StoreError::Compacted { oldest: 6 })));
    assert_eq!(store.get("/k").await.unwrap(), Some(kv("/k", "4", 2, 6)), "live keys stay");
    store.commit(put("/k", "x", Precondition::None)).await.unwrap();
    assert_eq!(collect_until(&mut watch, 6, 7).await.len(), 1, "a watcher that had seen all goes on");
}

/// Writers at work; each reader lists somewhere in the middle, watches from there and must end with the same map.
async fn list_and_watch_leave_no_gap(store: Arc<dyn Store>) {
    const WRITERS: u64 = 4;
    const WRITES: u64 = 100;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..WRITES {
                    let key = format!("/g/{}", (writer * 7 + n * 13) % 17);
                    let write = if n % 5 == 4 {
                        delete(&key, Precondition::None)
                    } else {
                        put(&key, &format!("{writer}:{n}"), Precondition::None)
                    };
                    match store.commit(write).await {
                        Ok(_) | Err(StoreError::NotFound { .. }) => {}
                        Err(error) => panic!("write {key}: {error}"),
                    }
                }
                let done = format!("/done/{writer}");
                store.commit(put(&done, "", Precondition::Absent)).await.unwrap();
            })
        })
        .collect();
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let listed = store.list("/", None, 0).await.unwrap();
                let watch = store.watch("/", listed.revision).await.unwrap();
                replay(listed.items, listed.revision, watch, WRITERS).await
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let end = store.list("/", None, 0).await.unwrap();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), end.items, "list + watch = list");
    }
}

/// Applies a watch to a list until `writers` keys under `/done/` are there, checking the order of events.
async fn replay(items: Vec<KeyValue>, at: Revision, mut watch: WatchStream, writers: u64) -> Vec<KeyValue> {
    let mut map: BTreeMap<Arc<str>, KeyValue> = items.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
    let mut last = at;
    let done = |map: &BTreeMap<Arc<str>, KeyValue>| {
        map.keys().filter(|key| key.starts_with("/done/")).count() as u64 == writers
    };
    while !done(&map) {
        let batch = watch.next().await.unwrap().unwrap();
        for event in batch.events {
            assert_eq!(event.revision, last + 1, "everything is watched: no revision is skipped");
            last = event.revision;
            let previous = match event.kind {
                EventKind::Put { value } => map.insert(event.key, value),
                EventKind::Delete => map.remove(&event.key),
            };
            assert_eq!(previous, event.previous, "previous at {last}");
        }
        assert_eq!(batch.revision, last);
    }
    map.into_values().collect()
}

async fn one_of_many_wins(store: Arc<dyn Store>) {
    let creators: Vec<_> = (0..16)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                store.commit(put("/one", &n.to_string(), Precondition::Absent)).await.is_ok()
            })
        })
        .collect();
    let mut created = 0;
    for creator in creators {
        created += u32::from(creator.await.unwrap());
    }
    assert_eq!(created, 1, "one creator wins");

    store.commit(put("/count", "0", Precondition::Absent)).await.unwrap();
    let adders: Vec<_> = (0..8).map(|_| tokio::spawn(add(store.clone(), 10))).collect();
    for adder in adders {
        adder.await.unwrap();
    }
    let count = store.get("/count").await.unwrap().unwrap();
    assert_eq!(count.value, "80", "no lost update");
}

/// Adds one to `/count`, `times` times, by compare and swap.
async fn add(store: Arc<dyn Store>, times: u32) {
    let mut current = store.get("/count").await.unwrap();
    for _ in 0..times {
        loop {
            let seen = current.take().unwrap();
            let count: u32 = std::str::from_utf8(&seen.value).unwrap().parse().unwrap();
            let next = (count + 1).to_string();
            let write = put("/count", &next, Precondition::ModRevision(seen.mod_revision));
            match store.commit(write).await {
                Ok(commit) => {
                    current = Some(kv("/count", &next, seen.create_revision, commit.revision));
                    break;
                }
                Err(StoreError::Conflict { current: now, .. }) => current = now,
                Err(error) => panic!("add: {error}"),
            }
        }
    }
}

async fn restart_keeps_everything<F, Fut>(open: &F)
where
    F: Fn(&'static str) -> Fut,
    Fut: Future<Output = Arc<dyn Store>>,
{
    let store = open("restart").await;
    let big = "v".repeat(300_000);
    for (n, value) in ["1", &big, "", "4"].into_iter().enumerate() {
        store.commit(put(&format!("/r/{n}"), value, Precondition::Absent)).await.unwrap();
    }
    store.commit(put("/r/0", "again", Precondition::None)).await.unwrap();
    store.commit(delete("/r/3", Precondition::None)).await.unwrap();
    let before = store.list("/", None, 0).await.unwrap();
    drop(store);

    let store = open("restart").await;
    assert_eq!(store.list("/", None, 0).await.unwrap(), before);
    assert_eq!(store.revision().await.unwrap(), 7, "the deletion counts");
    let mut watch = store.watch("/", before.revision).await.unwrap();
    store.commit(put("/r/4", "5", Precondition::Absent)).await.unwrap();
    assert_eq!(collect_until(&mut watch, 7, 8).await.len(), 1, "a watch goes on where the list was");
    match store.watch("/", 2).await {
        Err(StoreError::Compacted { .. }) => {}
        Err(error) => panic!("an old watch: {error}"),
        Ok(mut watch) => assert_eq!(collect_until(&mut watch, 2, 8).await.len(), 6, "or all of it"),
    }
}

/// Reads a watch that stands at `position` until it has reached `revision`.
async fn collect_until(watch: &mut WatchStream, mut position: Revision, revision: Revision) -> Vec<Event> {
    let mut events = Vec::new();
    while position < revision {
        let batch = watch.next().await.unwrap().unwrap();
        assert!(batch.revision > position, "progress moves on from {position}: {}", batch.revision);
        assert!(
            batch.events.iter().all(|event| event.revision > position && event.revision <= batch.revision)
        );
        position = batch.revision;
        events.extend(batch.events);
    }
    assert_eq!(position, revision);
    events
}
