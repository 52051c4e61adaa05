//! Carries changes of the tables into the kernel.

use std::{collections::HashSet, net::IpAddr};

use xebec_netlink::{
    Batch, Conntrack, Nft, NftError, Rtnl,
    nft::{Element, Value, Verdict},
};

use crate::{
    class::Chain,
    elements::{Changes, Elements, SetId, diff},
    flows::FlowCheck,
    model::Transport,
    rules::{self, RuleConfig},
};

/// Bytes of one transaction; larger changes are carried out in several, what others lead to first.
const TRANSACTION: usize = 64 * 1024 * 1024;

/// Why the kernel could not be programmed.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// nftables.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// Connection tracking or addresses.
    #[error(transparent)]
    Netlink(#[from] xebec_netlink::Error),
}

/// The kernel's side of the tables, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Dataplane {
    config: RuleConfig,
    nft: Nft,
    conntrack: Conntrack,
    rtnl: Rtnl,
}

impl Dataplane {
    /// A handle on the calling thread's network namespace; nothing is changed.
    pub fn open(config: RuleConfig) -> Result<Self, DataplaneError> {
        Ok(Self { config, nft: Nft::open()?, conntrack: Conntrack::open()?, rtnl: Rtnl::open()? })
    }

    /// Brings the kernel from whatever state it is in to `wanted`, by changing only what differs. A table with other
    /// rules (of another version or configuration) is replaced as a whole, in the same transaction. Returns the
    /// number of elements changed.
    pub fn adopt(&self, wanted: &Elements) -> Result<usize, DataplaneError> {
        let table = self.config.table();
        let mut batch = Batch::new();
        let found = match self.nft.table_comment(&table)? {
            Some(comment) if comment == self.config.fingerprint() => self.read()?,
            other => {
                if other.is_some() {
                    batch.delete_table(&table);
                }
                rules::add_skeleton(&mut batch, &self.config);
                Elements::default()
            }
        };
        let changes = diff(&found, wanted);
        let mut batches = vec![batch];
        self.plan(&changes, &mut batches);
        for batch in batches {
            self.nft.commit(batch)?;
        }
        Ok(changes.len())
    }

    /// Carries out changes: one transaction, unless they are very many.
    pub fn apply(&self, changes: &Changes) -> Result<(), DataplaneError> {
        let mut batches = vec![Batch::new()];
        self.plan(changes, &mut batches);
        for batch in batches {
            self.nft.commit(batch)?;
        }
        Ok(())
    }

    /// Forgets UDP flows that lead where they no longer should, and returns how many there were.
    pub fn check_flows(&self, check: &FlowCheck) -> Result<usize, DataplaneError> {
        if check.is_empty() {
            return Ok(0);
        }
        let local: HashSet<IpAddr> = self.rtnl.addresses()?.into_iter().map(|held| held.cidr.addr).collect();
        let mut count = 0;
        for ipv4 in [true, false] {
            let udp = Transport::Udp.number();
            count += self.conntrack.delete_where(udp, ipv4, |flow| check.is_stale(flow, &local))?;
        }
        Ok(count)
    }

    /// Removes the table with everything in it. Connections keep their translation until they end.
    pub fn uninstall(&self) -> Result<(), DataplaneError> {
        Ok(self.nft.remove_table(&self.config.table())?)
    }

    /// What is in the kernel's sets.
    pub fn read(&self) -> Result<Elements, DataplaneError> {
        let table = self.config.table();
        let chains = self.nft.chains(&table)?;
        let chains = chains.iter().filter_map(|name| Chain::parse(name)).collect();
        let mut found = Elements { chains, ..Elements::default() };
        for set in SetId::ALL {
            for ipv4 in [true, false] {
                for element in self.nft.elements(&table, &set.name(ipv4))? {
                    let value = match element.value {
                        Some(Value::Bytes(bytes)) => bytes,
                        Some(Value::Verdict(Verdict::Goto(chain))) => chain.into_bytes(),
                        _ => Vec::new(),
                    };
                    let mut key = element.key;
                    key.extend(element.key_end.unwrap_or_default());
                    found.insert(set, ipv4, key, value);
                }
            }
        }
        Ok(found)
    }

    /// Endpoints come before what leads to them and go after it, so that every state between is whole.
    fn plan(&self, changes: &Changes, batches: &mut Vec<Batch>) {
        rules::add_chains(room(batches), &self.config, &changes.added);
        for ((set, ipv4), change) in &changes.sets {
            self.delete(*set, *ipv4, &change.replaced, batches);
            self.add(*set, *ipv4, change.replaced.iter().chain(&change.added), batches);
        }
        // What is gone: the ones that lead there first, so in the opposite order.
        for ((set, ipv4), change) in changes.sets.iter().rev() {
            self.delete(*set, *ipv4, &change.removed, batches);
        }
        let (table, batch) = (self.config.table(), room(batches));
        // They lead to one another: none may be left with rules when the first one goes.
        for chain in &changes.removed {
            batch.flush_chain(&table, &chain.name());
        }
        for chain in &changes.removed {
            batch.delete_chain(&table, &chain.name());
        }
    }

    fn add<'a>(
        &self,
        set: SetId,
        ipv4: bool,
        elements: impl Iterator<Item = &'a (Vec<u8>, Vec<u8>)>,
        batches: &mut Vec<Batch>,
    ) {
        let elements = elements.map(|(key, value)| element(set, key, Some(value)));
        in_pieces(elements, batches, |batch, piece| {
            batch.add_elements(&self.config.table(), &set.name(ipv4), piece);
        });
    }

    fn delete(&self, set: SetId, ipv4: bool, elements: &[(Vec<u8>, Vec<u8>)], batches: &mut Vec<Batch>) {
        let elements = elements.iter().map(|(key, _)| element(set, key, None));
        in_pieces(elements, batches, |batch, piece| {
            batch.delete_elements(&self.config.table(), &set.name(ipv4), piece);
        });
    }
}

fn element(set: SetId, key: &[u8], value: Option<&Vec<u8>>) -> Element {
    if set == SetId::Allowed {
        let (first, last) = key.split_at(key.len() / 2);
        return Element { key_end: Some(last.to_vec()), ..Element::key(first.to_vec()) };
    }
    match (set, value) {
        (SetId::Class, Some(chain)) => {
            let chain = String::from_utf8_lossy(chain).into_owned();
            Element::verdict(key.to_vec(), Verdict::Goto(chain))
        }
        (_, Some(value)) if !value.is_empty() => Element::pair(key.to_vec(), value.clone()),
        _ => Element::key(key.to_vec()),
    }
}

/// Hands elements on in pieces of a few thousand, each to a transaction with room for it.
fn in_pieces(
    elements: impl Iterator<Item = Element>,
    batches: &mut Vec<Batch>,
    hand: impl Fn(&mut Batch, Vec<Element>),
) {
    let mut elements = elements.peekable();
    while elements.peek().is_some() {
        let piece: Vec<Element> = elements.by_ref().take(4096).collect();
        hand(room(batches), piece);
    }
}

/// The transaction to go on with.
fn room(batches: &mut Vec<Batch>) -> &mut Batch {
    if batches.last().is_none_or(|batch| batch.bytes() > TRANSACTION) {
        batches.push(Batch::new());
    }
    batches.last_mut().expect("invariant: just pushed")
}
