//! Services and their endpoints, arranged for lookups by name and by address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service as ApiService;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Namespace and name.
pub type Key = (String, String);

/// A named port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// Name in lower case; may be empty.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Number.
    pub number: u16,
}

/// What a Service's name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Addresses of its own.
    ClusterIp(Vec<IpAddr>),
    /// The addresses of its endpoints.
    Headless,
    /// Another name.
    External(String),
}

/// The parts of a Service that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceData {
    /// What its name means.
    pub kind: Kind,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// A ready endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SliceEndpoint {
    /// Address.
    pub ip: IpAddr,
    /// The label under the Service's name: its hostname, or its address with dashes.
    pub host: String,
}

/// The parts of an EndpointSlice that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceData {
    /// Name of its Service.
    pub service: String,
    /// Ready endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// Ports of all of them.
    pub ports: Vec<Port>,
}

impl ServiceData {
    /// Reads a Service; `None` when its name means nothing (a Service that has no address yet).
    pub fn parse(service: &ApiService) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let ports = spec.ports.iter().flatten();
        let ports = ports.filter_map(|p| port(p.name.as_deref(), p.protocol.as_deref(), p.port)).collect();
        let kind = if spec.type_.as_deref() == Some("ExternalName") {
            Kind::External(spec.external_name.clone()?.to_ascii_lowercase())
        } else if spec.cluster_ip.as_deref() == Some("None") {
            Kind::Headless
        } else {
            let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
            let ips: BTreeSet<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
            if ips.is_empty() {
                return None;
            }
            Kind::ClusterIp(ips.into_iter().collect())
        };
        Some(Self { kind, ports })
    }
}

impl SliceData {
    /// Reads a slice; `None` for slices of no Service and of FQDNs. Whether endpoints that are not ready are
    /// published is decided by who writes the slice, in its `ready` conditions.
    pub fn parse(slice: &EndpointSlice) -> Option<Self> {
        let service = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?.clone();
        if slice.address_type == "FQDN" {
            return None;
        }
        let ready = slice
            .endpoints
            .iter()
            .flatten()
            .filter(|e| e.conditions.as_ref().and_then(|c| c.ready) != Some(false));
        let endpoints = ready
            .flat_map(|endpoint| {
                let hostname = endpoint.hostname.as_deref().filter(|name| !name.is_empty());
                endpoint.addresses.iter().filter_map(move |address| {
                    let ip = address.parse().ok()?;
                    let host = hostname.map_or_else(|| dashed(ip), str::to_ascii_lowercase);
                    Some(SliceEndpoint { ip, host })
                })
            })
            .collect();
        let ports = slice.ports.iter().flatten();
        let ports = ports.filter_map(|p| port(p.name.as_deref(), p.protocol.as_deref(), p.port?)).collect();
        Some(Self { service, endpoints, ports })
    }
}

fn port(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Port> {
    Some(Port {
        name: name.unwrap_or("").to_ascii_lowercase(),
        protocol: protocol.unwrap_or("TCP").to_ascii_lowercase(),
        number: u16::try_from(number).ok()?,
    })
}

/// An address as a label.
pub fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

/// A Service with its endpoints.
#[derive(Debug)]
pub struct Entry {
    /// The Service.
    pub data: ServiceData,
    /// Its ready endpoints with the ports of their slice, each once.
    pub endpoints: Vec<(SliceEndpoint, Port)>,
    /// The addresses and labels of the endpoints, each once; also those without ports.
    pub hosts: Vec<SliceEndpoint>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Index {
    services: HashMap<String, HashMap<String, Entry>>,
    slices: HashMap<Key, SliceData>,
    slices_of: HashMap<Key, BTreeSet<String>>,
    by_address: HashMap<IpAddr, BTreeSet<Key>>,
}

impl Index {
    /// A Service by namespace and name in lower case.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Entry> {
        self.services.get(namespace)?.get(name)
    }

    /// Whether there are Services in a namespace.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.services.contains_key(namespace)
    }

    /// Services that an address belongs to: as cluster IP, or as endpoint of a headless one.
    pub fn of_address(&self, ip: IpAddr) -> impl Iterator<Item = (&Key, &Entry)> {
        let keys = self.by_address.get(&ip).into_iter().flatten();
        keys.filter_map(|key| Some((key, self.service(&key.0, &key.1)?)))
    }

    /// Puts a Service in, or takes it out.
    pub fn set_service(&mut self, key: &Key, data: Option<ServiceData>) {
        self.unlink(key);
        match data {
            Some(data) => {
                let entry = Entry { data, endpoints: Vec::new(), hosts: Vec::new() };
                self.services.entry(key.0.clone()).or_default().insert(key.1.clone(), entry);
            }
            None => {
                if let Some(of) = self.services.get_mut(&key.0) {
                    of.remove(&key.1);
                    if of.is_empty() {
                        self.services.remove(&key.0);
                    }
                }
            }
        }
        self.link(key);
    }

    /// Puts a slice in, or takes it out.
    pub fn set_slice(&mut self, key: &Key, data: Option<SliceData>) {
        let old = self.slices.get(key).map(|slice| (key.0.clone(), slice.service.clone()));
        let new = data.as_ref().map(|slice| (key.0.clone(), slice.service.clone()));
        let touched: BTreeSet<Key> = [&old, &new].into_iter().flatten().cloned().collect();
        touched.iter().for_each(|service| self.unlink(service));
        if let Some(old) = &old
            && let Some(of) = self.slices_of.get_mut(old)
        {
            of.remove(&key.1);
            if of.is_empty() {
                self.slices_of.remove(old);
            }
        }
        match data {
            Some(data) => drop(self.slices.insert(key.clone(), data)),
            None => drop(self.slices.remove(key)),
        }
        if let Some(new) = new {
            self.slices_of.entry(new).or_default().insert(key.1.clone());
        }
        touched.iter().for_each(|service| self.link(service));
    }

    /// Names of what is known: for finding what a new list lacks.
    pub fn service_keys(&self) -> BTreeSet<Key> {
        let of = |(namespace, of): (&String, &HashMap<String, Entry>)| -> Vec<Key> {
            of.keys().map(|name| (namespace.clone(), name.clone())).collect()
        };
        self.services.iter().flat_map(of).collect()
    }

    /// The same for slices.
    pub fn slice_keys(&self) -> BTreeSet<Key> {
        self.slices.keys().cloned().collect()
    }

    fn unlink(&mut self, key: &Key) {
        for ip in self.addresses(key) {
            if let Some(keys) = self.by_address.get_mut(&ip) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_address.remove(&ip);
                }
            }
        }
    }

    fn link(&mut self, key: &Key) {
        let names = self.slices_of.get(key).into_iter().flatten();
        let slices = names.filter_map(|name| self.slices.get(&(key.0.clone(), name.clone())));
        let (mut endpoints, mut hosts) = (BTreeSet::new(), BTreeSet::new());
        for slice in slices {
            for endpoint in &slice.endpoints {
                hosts.insert(endpoint.clone());
                endpoints.extend(slice.ports.iter().map(|port| (endpoint.clone(), port.clone())));
            }
        }
        let Some(entry) = self.services.get_mut(&key.0).and_then(|of| of.get_mut(&key.1)) else { return };
        entry.endpoints = endpoints.into_iter().collect();
        entry.hosts = hosts.into_iter().collect();
        for ip in self.addresses(key) {
            self.by_address.entry(ip).or_default().insert(key.clone());
        }
    }

    fn addresses(&self, key: &Key) -> Vec<IpAddr> {
        let Some(entry) = self.service(&key.0, &key.1) else { return Vec::new() };
        match &entry.data.kind {
            Kind::ClusterIp(ips) => ips.clone(),
            Kind::Headless => entry.hosts.iter().map(|e| e.ip).collect(),
            Kind::External(_) => Vec::new(),
        }
    }
}

impl Entry {
    /// Addresses that the Service's own name has.
    pub fn addresses(&self) -> Vec<IpAddr> {
        match &self.data.kind {
            Kind::ClusterIp(ips) => ips.clone(),
            Kind::Headless => {
                let ips: BTreeSet<IpAddr> = self.hosts.iter().map(|e| e.ip).collect();
                ips.into_iter().collect()
            }
            Kind::External(_) => Vec::new(),
        }
    }

    /// Ports by name and protocol with the endpoints that have them, for a headless Service.
    pub fn endpoints_with<'a>(
        &'a self,
        wanted: impl Fn(&Port) -> bool + 'a,
    ) -> BTreeMap<(&'a str, u16), Vec<IpAddr>> {
        let mut hosts: BTreeMap<(&str, u16), Vec<IpAddr>> = BTreeMap::new();
        for (endpoint, port) in self.endpoints.iter().filter(|(_, port)| wanted(port)) {
            hosts.entry((&endpoint.host, port.number)).or_default().push(endpoint.ip);
        }
        hosts
    }
}
