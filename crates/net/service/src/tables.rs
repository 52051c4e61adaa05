//! All fronts of the cluster, changed Service by Service: pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use xebec_netlink::cidr::addr_bytes;

use crate::{
    compile::Compiled,
    elements::{Changes, Elements, SetId, diff, pair_bytes},
    input::Name,
    model::{Class, Front, FrontKey},
};

/// An element that several fronts need: set, family, key.
type Shared = (SetId, bool, Vec<u8>);

/// What all Services come down to.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    services: BTreeMap<Name, Compiled>,
    /// Services may claim the same front (external addresses): the first by name has it.
    claims: BTreeMap<FrontKey, BTreeMap<Name, Arc<Front>>>,
    /// How many need a shared element.
    shared: BTreeMap<Shared, usize>,
}

/// What was there before the changes since the last [`Tables::changes`].
#[derive(Debug, Default)]
pub struct Touched {
    fronts: BTreeMap<FrontKey, Option<Arc<Front>>>,
    shared: BTreeMap<Shared, bool>,
}

impl Touched {
    /// Fronts that may have changed.
    pub fn fronts(&self) -> impl Iterator<Item = &FrontKey> {
        self.fronts.keys()
    }
}

impl Tables {
    /// The front that has `key`.
    pub fn front(&self, key: &FrontKey) -> Option<&Arc<Front>> {
        self.claims.get(key)?.values().next()
    }

    /// All fronts.
    pub fn fronts(&self) -> impl Iterator<Item = (&FrontKey, &Arc<Front>)> {
        self.claims.iter().filter_map(|(key, claims)| Some((key, claims.values().next()?)))
    }

    /// What one Service came down to.
    pub fn service(&self, name: &Name) -> Option<&Compiled> {
        self.services.get(name)
    }

    /// All Services.
    pub fn services(&self) -> impl Iterator<Item = (&Name, &Compiled)> {
        self.services.iter()
    }

    /// Replaces what a Service comes down to, and notes in `touched` what was there.
    pub fn replace(&mut self, touched: &mut Touched, name: &Name, compiled: Option<Compiled>) {
        if self.services.get(name) == compiled.as_ref() {
            return;
        }
        let old = match &compiled {
            Some(new) => self.services.insert(name.clone(), new.clone()),
            None => self.services.remove(name),
        }
        .unwrap_or_default();
        let new = compiled.unwrap_or_default();
        let mut wanted: BTreeMap<FrontKey, Option<Arc<Front>>> =
            old.fronts.iter().map(|(key, _)| (*key, None)).collect();
        wanted.extend(new.fronts.into_iter().map(|(key, front)| (key, Some(front))));
        for (key, front) in wanted {
            self.claim(touched, key, name, front);
        }
        for ip in new.vips {
            self.count(touched, vip(ip), true);
        }
        for ip in old.vips {
            self.count(touched, vip(ip), false);
        }
    }

    /// The changes that lead from before `touched` to now.
    pub fn changes(&self, touched: &Touched) -> Changes {
        let (mut before, mut after) = (Elements::default(), Elements::default());
        for (key, old) in &touched.fronts {
            if let Some(old) = old {
                before.insert_front(key, old);
            }
            if let Some(new) = self.front(key) {
                after.insert_front(key, new);
            }
        }
        for (shared, was) in &touched.shared {
            if *was {
                insert_shared(&mut before, shared);
            }
            if self.shared.contains_key(shared) {
                insert_shared(&mut after, shared);
            }
        }
        diff(&before, &after)
    }

    /// Everything, as it should be in the kernel.
    pub fn elements(&self) -> Elements {
        let mut all = Elements::default();
        for ipv4 in [true, false] {
            for class in [Class::REJECT, Class::DROP] {
                insert_shared(&mut all, &(SetId::Class, ipv4, class.to_bytes()));
            }
        }
        for (key, front) in self.fronts() {
            all.insert_front(key, front);
        }
        for shared in self.shared.keys() {
            insert_shared(&mut all, shared);
        }
        all
    }

    fn claim(&mut self, touched: &mut Touched, key: FrontKey, name: &Name, front: Option<Arc<Front>>) {
        let old = self.front(&key).cloned();
        let claims = self.claims.entry(key).or_default();
        match front {
            Some(front) => {
                claims.insert(name.clone(), front);
            }
            None => {
                claims.remove(name);
            }
        }
        if claims.is_empty() {
            self.claims.remove(&key);
        }
        let new = self.front(&key).cloned();
        if old == new {
            return;
        }
        for element in new.iter().flat_map(|front| shared_of(&key, front)) {
            self.count(touched, element, true);
        }
        for element in old.iter().flat_map(|front| shared_of(&key, front)) {
            self.count(touched, element, false);
        }
        touched.fronts.entry(key).or_insert(old);
    }

    fn count(&mut self, touched: &mut Touched, element: Shared, more: bool) {
        let count = self.shared.get(&element).copied().unwrap_or(0);
        touched.shared.entry(element.clone()).or_insert(count > 0);
        let count = if more { count + 1 } else { count.saturating_sub(1) };
        if count == 0 {
            self.shared.remove(&element);
        } else {
            self.shared.insert(element, count);
        }
    }
}

fn vip(ip: IpAddr) -> Shared {
    (SetId::Vips, ip.is_ipv4(), addr_bytes(ip))
}

fn shared_of(key: &FrontKey, front: &Front) -> BTreeSet<Shared> {
    let ipv4 = key.ip.is_ipv4();
    let mut shared: BTreeSet<Shared> =
        front.hairpin.iter().map(|ip| (SetId::Hairpin, ipv4, pair_bytes(*ip))).collect();
    // The two without endpoints are always there.
    if !front.class.reject && !front.class.drop {
        shared.insert((SetId::Class, ipv4, front.class.to_bytes()));
    }
    shared
}

fn insert_shared(elements: &mut Elements, (set, ipv4, key): &Shared) {
    let value = match set {
        SetId::Class => {
            let class = Class::from_bytes(key).expect("invariant: made by to_bytes");
            class.chain(*ipv4).into_bytes()
        }
        _ => Vec::new(),
    };
    elements.insert(*set, *ipv4, key.clone(), value);
}
