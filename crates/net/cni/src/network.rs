//! The node's network: carries out what the planner says.

use std::{
    collections::HashSet,
    fs, io,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use xebec_netlink::{Batch, Conntrack, Nft, Rtnl};

use crate::{
    config::{HostPort, NetworkConfig, Protocol},
    error::NetworkError,
    firewall, link,
    state::{PodRecord, State, host_interface},
};

/// A pod's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAddresses {
    /// Its addresses, in the order of the node's prefixes.
    pub ips: Vec<IpAddr>,
    /// Its gateways, one per family.
    pub gateways: Vec<IpAddr>,
    /// Link-layer address of its interface.
    pub mac: [u8; 6],
    /// Name of its interface inside the pod.
    pub interface: String,
}

/// The network of one node. Cheap to clone; all clones share the allocations.
#[derive(Clone, Debug)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: NetworkConfig,
    rtnl: Rtnl,
    nft: Nft,
    state: Mutex<Versioned>,
    /// Held while the file is written; the generation that is on disk.
    written: Mutex<u64>,
    mtu: Mutex<u32>,
}

#[derive(Debug)]
struct Versioned {
    state: State,
    generation: u64,
}

impl Network {
    /// Reads the allocations. Nothing is changed yet; the network namespace is the calling thread's.
    pub fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        validate(&config)?;
        let state = State::load(&config.state_file)?;
        Ok(Self {
            inner: Arc::new(Inner {
                rtnl: Rtnl::open()?,
                nft: Nft::open()?,
                state: Mutex::new(Versioned { state, generation: 0 }),
                written: Mutex::new(0),
                mtu: Mutex::new(config.mtu.unwrap_or(1500)),
                config,
            }),
        })
    }

    /// Makes or adopts the bridge, its addresses, kernel parameters and the packet filter. Running pods keep
    /// their connections.
    pub async fn setup(&self) -> Result<(), NetworkError> {
        self.blocking(|inner| {
            let mtu = link::setup_bridge(&inner.rtnl, &inner.config)?;
            *lock(&inner.mtu) = mtu;
            let batch = firewall::rebuild(&inner.config, &lock(&inner.state).state);
            Ok(inner.nft.commit(batch)?)
        })
        .await
    }

    /// Connects a sandbox: gives it addresses, a link and its host ports. Asking again with the same id gives the
    /// same answer.
    pub async fn add(
        &self,
        sandbox: &str,
        netns: &Path,
        pod_namespace: &str,
        pod_name: &str,
        host_ports: &[HostPort],
    ) -> Result<PodAddresses, NetworkError> {
        let sandbox = sandbox.to_owned();
        let record = PodRecord {
            namespace: pod_namespace.to_owned(),
            name: pod_name.to_owned(),
            netns: netns.to_owned(),
            ips: Vec::new(),
            host_interface: host_interface(&sandbox),
            host_ports: host_ports.to_vec(),
        };
        self.blocking(move |inner| inner.add(&sandbox, record)).await
    }

    /// Disconnects a sandbox and releases its addresses; an unknown one, or one whose namespace is gone, is fine.
    pub async fn delete(&self, sandbox: &str) -> Result<(), NetworkError> {
        let sandbox = sandbox.to_owned();
        self.blocking(move |inner| inner.delete(&sandbox)).await
    }

    /// Fails with what is wrong when a sandbox's link is not as it was made.
    pub async fn check(&self, sandbox: &str) -> Result<(), NetworkError> {
        let sandbox = sandbox.to_owned();
        self.blocking(move |inner| {
            let pod = lock(&inner.state).state.pods.get(&sandbox).cloned();
            let problem = match pod {
                Some(pod) => link::verify(&inner.rtnl, &inner.config, &pod)?,
                None => Some("it has no addresses".to_owned()),
            };
            problem.map_or(Ok(()), |problem| Err(NetworkError::Broken { sandbox, problem }))
        })
        .await
    }

    /// All sandboxes that have addresses.
    pub fn list(&self) -> Vec<(String, PodRecord)> {
        let versioned = lock(&self.inner.state);
        versioned.state.pods.iter().map(|(id, pod)| (id.clone(), pod.clone())).collect()
    }

    /// A sandbox's addresses, if it has some.
    pub fn addresses(&self, sandbox: &str) -> Option<PodAddresses> {
        let versioned = lock(&self.inner.state);
        versioned.state.pods.get(sandbox).map(|pod| self.inner.answer(pod))
    }

    /// Disconnects every sandbox that is not in `live` and returns their ids.
    pub async fn prune(&self, live: HashSet<String>) -> Result<Vec<String>, NetworkError> {
        self.blocking(move |inner| {
            let dead: Vec<String> =
                lock(&inner.state).state.pods.keys().filter(|id| !live.contains(*id)).cloned().collect();
            for sandbox in &dead {
                inner.delete(sandbox)?;
            }
            Ok(dead)
        })
        .await
    }

    /// Removes every link, the bridge, the packet filter's table and the file. Forwarding stays enabled: others may
    /// rely on it by now.
    pub async fn teardown(&self) -> Result<(), NetworkError> {
        self.blocking(Inner::teardown).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner)).await.map_err(|_| NetworkError::Interrupted)?
    }
}

impl Inner {
    fn add(&self, sandbox: &str, wanted: PodRecord) -> Result<PodAddresses, NetworkError> {
        let (pod, known) = {
            let mut versioned = lock(&self.state);
            let known = versioned.state.pods.contains_key(sandbox);
            let pod = versioned
                .state
                .allocate(sandbox, &self.config.pod_cidrs, |ips| PodRecord { ips, ..wanted })?;
            versioned.generation += u64::from(!known);
            (pod, known)
        };
        // On disk before the link exists: after a crash the record leads to the link, never the other way round.
        self.persist()?;
        let done = self.connect(&pod);
        if let (Err(error), false) = (&done, known) {
            tracing::warn!(sandbox, %error, "connecting a pod failed; releasing its addresses");
            self.delete(sandbox)?;
        }
        done.map(|()| self.answer(&pod))
    }

    fn connect(&self, pod: &PodRecord) -> Result<(), NetworkError> {
        let mtu = *lock(&self.mtu);
        link::connect(&self.rtnl, &self.config, pod, mtu)?;
        if !pod.host_ports.is_empty() {
            let mut batch = Batch::new();
            firewall::add_pod(&mut batch, &firewall::table(&self.config), pod);
            self.nft.commit(batch)?;
        }
        Ok(())
    }

    fn delete(&self, sandbox: &str) -> Result<(), NetworkError> {
        let Some(pod) = lock(&self.state).state.pods.get(sandbox).cloned() else {
            return Ok(());
        };
        if !pod.host_ports.is_empty() {
            let mut batch = Batch::new();
            firewall::delete_pod(&mut batch, &firewall::table(&self.config), &pod);
            match self.nft.commit(batch) {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
            self.forget_flows(&pod)?;
        }
        link::disconnect(&self.rtnl, &pod)?;
        {
            let mut versioned = lock(&self.state);
            versioned.state.release(sandbox);
            versioned.generation += 1;
        }
        self.persist()
    }

    /// A client that keeps sending UDP would reach the next pod with this address for ever.
    fn forget_flows(&self, pod: &PodRecord) -> Result<(), NetworkError> {
        if !pod.host_ports.iter().any(|port| port.protocol == Protocol::Udp) {
            return Ok(());
        }
        let conntrack = Conntrack::open()?;
        for ip in &pod.ips {
            let number = Protocol::Udp.number();
            conntrack.delete_where(number, ip.is_ipv4(), |flow| {
                flow.reply_source.ip() == *ip && flow.destination.ip() != *ip
            })?;
        }
        Ok(())
    }

    /// Writes the newest allocations unless someone else has done so while this call waited: concurrent changes
    /// share one write.
    fn persist(&self) -> Result<(), NetworkError> {
        let needed = lock(&self.state).generation;
        let mut written = lock(&self.written);
        if *written >= needed {
            return Ok(());
        }
        let (snapshot, generation) = {
            let versioned = lock(&self.state);
            (versioned.state.clone(), versioned.generation)
        };
        snapshot.save(&self.config.state_file)?;
        *written = generation;
        Ok(())
    }

    fn teardown(&self) -> Result<(), NetworkError> {
        let sandboxes: Vec<String> = lock(&self.state).state.pods.keys().cloned().collect();
        for sandbox in sandboxes {
            self.delete(&sandbox)?;
        }
        if let Some(bridge) = self.rtnl.link(&self.config.bridge)?.filter(|link| link.kind == "bridge") {
            let ports = self.rtnl.links()?;
            for port in ports.iter().filter(|port| port.master == Some(bridge.index)) {
                self.rtnl.delete_link(port.index)?;
            }
            self.rtnl.delete_link(bridge.index)?;
        }
        self.nft.remove_table(&firewall::table(&self.config))?;
        match fs::remove_file(&self.config.state_file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                let path = self.config.state_file.clone();
                Err(crate::StateError::Io { operation: "remove", path, source }.into())
            }
            _ => Ok(()),
        }
    }

    fn answer(&self, pod: &PodRecord) -> PodAddresses {
        let has = |ipv4| pod.ips.iter().any(|ip| ip.is_ipv4() == ipv4);
        let gateways = self.config.gateways().into_iter().map(|gateway| gateway.addr);
        PodAddresses {
            ips: pod.ips.clone(),
            gateways: gateways.filter(|gateway| has(gateway.is_ipv4())).collect(),
            mac: pod.ips.first().map_or([0; 6], |ip| link::mac_for(*ip)),
            interface: link::POD_INTERFACE.to_owned(),
        }
    }
}

fn validate(config: &NetworkConfig) -> Result<(), NetworkError> {
    let refuse = |problem: String| Err(NetworkError::Config(problem));
    if config.bridge.is_empty() || config.bridge.len() > 15 || config.bridge.contains('/') {
        return refuse(format!("{:?} is no name for a bridge: 1 to 15 bytes without slash", config.bridge));
    }
    if config.pod_cidrs.is_empty() {
        return refuse("the node has no podCIDR: give it one per address family".to_owned());
    }
    for ipv4 in [true, false] {
        let cidrs: Vec<_> = config.pod_cidrs.iter().filter(|cidr| cidr.is_ipv4() == ipv4).collect();
        match cidrs.as_slice() {
            [] => {}
            [one] if crate::Pool::new(**one).capacity() > 0 => {}
            [one] => return refuse(format!("podCIDR {one} has no room for pods: use /29 or /120 at least")),
            _ => return refuse(format!("more than one podCIDR of a family: {cidrs:?}")),
        }
    }
    for service in &config.service_cidrs {
        if let Some(pods) = config.pod_cidrs.iter().find(|pods| pods.overlaps(service)) {
            return refuse(format!("service prefix {service} overlaps podCIDR {pods}"));
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is complete in itself, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
