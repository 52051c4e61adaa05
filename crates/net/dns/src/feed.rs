//! Feeds the index from the API.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{PoisonError, RwLock};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};

use crate::index::{Index, Key, ServiceData, SliceData};

/// Follows the API for good; calls `complete` when all has been listed for the first time.
pub async fn follow(client: Client, index: &RwLock<Index>, complete: impl Fn()) {
    let mut events = pin!(events(client));
    let (mut services, mut slices) = (Listing::default(), Listing::default());
    while let Some(change) = events.next().await {
        let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Service(event) => {
                let (known, set) = (Index::service_keys, Index::set_service);
                services.take(*event, &mut index, ServiceData::parse, known, set);
            }
            Change::Slice(event) => {
                let (known, set) = (Index::slice_keys, Index::set_slice);
                slices.take(*event, &mut index, SliceData::parse, known, set);
            }
        }
        drop(index);
        if services.complete && slices.complete {
            complete();
        }
    }
}

enum Change {
    Service(Box<Event<Service>>),
    Slice(Box<Event<EndpointSlice>>),
}

fn events(client: Client) -> impl Stream<Item = Change> {
    let config = watcher::Config::default;
    let services = watcher(Api::<Service>::all(client.clone()), config()).default_backoff();
    let slices = watcher(Api::<EndpointSlice>::all(client), config()).default_backoff();
    let mut all = stream::SelectAll::new();
    all.push(
        services
            .filter_map(async |event| logged("services", event).map(Box::new).map(Change::Service))
            .boxed(),
    );
    all.push(
        slices
            .filter_map(async |event| logged("endpointslices", event).map(Box::new).map(Change::Slice))
            .boxed(),
    );
    all
}

fn logged<K>(kind: &str, event: Result<Event<K>, watcher::Error>) -> Option<Event<K>> {
    event.inspect_err(|error| tracing::warn!(kind, %error, "watch interrupted; it goes on by itself")).ok()
}

/// The state of one kind's list.
#[derive(Default)]
struct Listing {
    listed: BTreeSet<Key>,
    complete: bool,
}

impl Listing {
    fn take<K: ResourceExt, T>(
        &mut self,
        event: Event<K>,
        index: &mut Index,
        parse: fn(&K) -> Option<T>,
        known: fn(&Index) -> BTreeSet<Key>,
        set: fn(&mut Index, &Key, Option<T>),
    ) {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                self.listed.insert(key(&object));
                set(index, &key(&object), parse(&object));
            }
            Event::InitDone => {
                self.complete = true;
                let listed = std::mem::take(&mut self.listed);
                for gone in known(index).difference(&listed) {
                    set(index, gone, None);
                }
            }
            Event::Apply(object) => set(index, &key(&object), parse(&object)),
            Event::Delete(object) => set(index, &key(&object), None),
        }
    }
}
