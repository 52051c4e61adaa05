//! All fronts of the cluster, changed Service by Service: pure.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use xebec_netlink::cidr::addr_bytes;

use crate::{
    class::{Chain, Class},
    compile::Compiled,
    elements::{Changes, Elements, SetId, diff, number_bytes, pair_bytes},
    input::Name,
    model::{Front, FrontKey},
};

/// The key of an element that several fronts need: set, family, bytes.
type Shared = (SetId, bool, Vec<u8>);

/// The value of such an element, and how many need it.
#[derive(Clone, Debug)]
struct Needed {
    value: Vec<u8>,
    count: usize,
}

/// What all Services come down to.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    services: BTreeMap<Name, Compiled>,
    /// Services may claim the same front (external addresses): the first by name has it.
    claims: BTreeMap<FrontKey, BTreeMap<Name, Arc<Front>>>,
    shared: BTreeMap<Shared, Needed>,
    /// How many fronts need a chain.
    chains: BTreeMap<Chain, usize>,
}

/// What was there before the changes since the last [`Tables::changes`].
#[derive(Debug, Default)]
pub struct Touched {
    fronts: BTreeMap<FrontKey, Option<Arc<Front>>>,
    shared: BTreeMap<Shared, Option<Vec<u8>>>,
    chains: BTreeMap<Chain, bool>,
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
            self.need(touched, vip(ip), Vec::new());
        }
        for ip in old.vips {
            self.release(touched, vip(ip));
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
        for ((set, ipv4, key), was) in &touched.shared {
            if let Some(value) = was {
                before.insert(*set, *ipv4, key.clone(), value.clone());
            }
            if let Some(needed) = self.shared.get(&(*set, *ipv4, key.clone())) {
                after.insert(*set, *ipv4, key.clone(), needed.value.clone());
            }
        }
        before.chains.extend(touched.chains.iter().filter(|(_, was)| **was).map(|(chain, _)| *chain));
        after.chains.extend(touched.chains.keys().filter(|chain| self.chains.contains_key(chain)));
        diff(&before, &after)
    }

    /// Everything, as it should be in the kernel.
    pub fn elements(&self) -> Elements {
        let mut all = Elements::default();
        for ipv4 in [true, false] {
            for class in [Class::REJECT, Class::DROP] {
                let ((set, ipv4, key), chain) = class_element(&class, ipv4);
                all.insert(set, ipv4, key, chain);
            }
        }
        for (key, front) in self.fronts() {
            all.insert_front(key, front);
        }
        for ((set, ipv4, key), needed) in &self.shared {
            all.insert(*set, *ipv4, key.clone(), needed.value.clone());
        }
        all.chains.extend(self.chains.keys());
        all
    }

    fn claim(&mut self, touched: &mut Touched, key: FrontKey, name: &Name, front: Option<Arc<Front>>) {
        let old = self.front(&key).cloned();
        let claims = self.claims.entry(key).or_default();
        match front {
            Some(front) => {
                claims.insert(name.clone(), told_apart(&self.shared, key.ip.is_ipv4(), front));
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
        for (element, value) in new.iter().flat_map(|front| shared_of(&key, front)) {
            self.need(touched, element, value);
        }
        for (element, _) in old.iter().flat_map(|front| shared_of(&key, front)) {
            self.release(touched, element);
        }
        let ipv4 = key.ip.is_ipv4();
        for (front, more) in [(&new, true), (&old, false)] {
            for chain in front.iter().flat_map(|front| front.class.chains(ipv4)) {
                self.count(touched, chain, more);
            }
        }
        touched.fronts.entry(key).or_insert(old);
    }

    fn need(&mut self, touched: &mut Touched, element: Shared, value: Vec<u8>) {
        self.note(touched, &element);
        self.shared.entry(element).or_insert(Needed { value, count: 0 }).count += 1;
    }

    fn release(&mut self, touched: &mut Touched, element: Shared) {
        self.note(touched, &element);
        if let Entry::Occupied(mut entry) = self.shared.entry(element) {
            entry.get_mut().count -= 1;
            if entry.get().count == 0 {
                entry.remove();
            }
        }
    }

    fn count(&mut self, touched: &mut Touched, chain: Chain, more: bool) {
        let count = self.chains.get(&chain).copied().unwrap_or(0);
        touched.chains.entry(chain).or_insert(count > 0);
        match if more { count + 1 } else { count.saturating_sub(1) } {
            0 => self.chains.remove(&chain),
            count => self.chains.insert(chain, count),
        };
    }

    fn note(&self, touched: &mut Touched, element: &Shared) {
        let before = || self.shared.get(element).map(|needed| needed.value.clone());
        touched.shared.entry(element.clone()).or_insert_with(before);
    }
}

fn vip(ip: IpAddr) -> Shared {
    (SetId::Vips, ip.is_ipv4(), addr_bytes(ip))
}

fn class_element(class: &Class, ipv4: bool) -> (Shared, Vec<u8>) {
    ((SetId::Class, ipv4, number_bytes(class.id(ipv4))), class.chain(ipv4).into_bytes())
}

/// Gives the front's class a variant whose identifier no other class has.
fn told_apart(shared: &BTreeMap<Shared, Needed>, ipv4: bool, mut front: Arc<Front>) -> Arc<Front> {
    let fixed = [Class::REJECT, Class::DROP];
    loop {
        let class = front.class;
        let (element, chain) = class_element(&class, ipv4);
        let taken = shared.get(&element).is_some_and(|needed| needed.value != chain);
        let meant = fixed.iter().any(|other| other.id(ipv4) == class.id(ipv4) && *other != class);
        if !taken && !meant {
            return front;
        }
        Arc::make_mut(&mut front).class.variant += 1;
    }
}

fn shared_of(key: &FrontKey, front: &Front) -> BTreeMap<Shared, Vec<u8>> {
    let ipv4 = key.ip.is_ipv4();
    let mut shared: BTreeMap<Shared, Vec<u8>> =
        front.hairpin.iter().map(|ip| ((SetId::Hairpin, ipv4, pair_bytes(*ip)), Vec::new())).collect();
    // The two without endpoints are always there.
    if !front.class.reject && !front.class.drop {
        shared.extend([class_element(&front.class, ipv4)]);
    }
    shared
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::Transport;

    #[test]
    fn classes_with_one_identifier_are_told_apart() {
        let class = |endpoints| Class { endpoints, ..Class::default() };
        let (wanted, other) = (class(3), class(4));
        // As if another class had the identifier of the wanted one.
        let mut tables = Tables::default();
        let (element, _) = class_element(&wanted, true);
        tables.shared.insert(element, Needed { value: other.chain(true).into_bytes(), count: 1 });
        let key = FrontKey { ip: "10.96.0.1".parse().unwrap(), transport: Transport::Tcp, port: 80 };
        let front = Arc::new(Front { class: wanted, ..Front::default() });
        let compiled = Compiled { fronts: vec![(key, front)], ..Compiled::default() };
        let mut touched = Touched::default();
        tables.replace(&mut touched, &("ns".into(), "web".into()), Some(compiled));
        assert_eq!(tables.front(&key).unwrap().class, Class { variant: 1, ..wanted });
        let chains = &tables.changes(&touched).sets[&(SetId::Class, true)].added;
        assert_eq!(chains[0].1, b"addr4-3-variant-1");
    }
}
