//! A node with a pod network and a host outside, in network namespaces of their own. Needs root.
#![allow(clippy::unwrap_used, dead_code, missing_docs)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    thread,
    time::Duration,
};

use xebec_cni::{Network, NetworkConfig};
use xebec_netlink::{Cidr, LinkSettings, NetNs, Route, Rtnl};

pub const TIMEOUT: Duration = Duration::from_secs(3);

/// A node with a pod network, and an outside host at 203.0.113.1 that knows no route to the pods.
pub struct Lab {
    pub dir: tempfile::TempDir,
    pub node: NetNs,
    pub outside: NetNs,
    pub paths: Vec<PathBuf>,
}

impl Lab {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("xebec-cni-").tempdir_in("/run").unwrap();
        let paths = vec![dir.path().join("node"), dir.path().join("outside")];
        let node = NetNs::create(&paths[0]).unwrap();
        let outside = NetNs::create(&paths[1]).unwrap();
        let lab = Self { dir, node, outside, paths };
        lab.node
            .run(|| {
                let rtnl = Rtnl::open().unwrap();
                rtnl.add_veth("up0", "eth0", &lab.outside, 1400).unwrap();
                raise(&rtnl, "lo", &[]);
                raise(&rtnl, "up0", &["203.0.113.2/24", "2001:db8::2/64"]);
                let up0 = rtnl.link("up0").unwrap().unwrap().index;
                for (any, via) in [("0.0.0.0/0", "203.0.113.1"), ("::/0", "2001:db8::1")] {
                    let gateway = Some(via.parse().unwrap());
                    let destination = any.parse().unwrap();
                    let route =
                        Route { destination, gateway, link: up0, source: None, onlink: false, metric: 0 };
                    rtnl.replace_route(&route).unwrap();
                }
            })
            .unwrap();
        lab.outside
            .run(|| raise(&Rtnl::open().unwrap(), "eth0", &["203.0.113.1/24", "2001:db8::1/64"]))
            .unwrap();
        lab
    }

    pub fn config(&self) -> NetworkConfig {
        let cidrs: Vec<Cidr> = ["10.99.1.0/24", "fd00:99::/64"].iter().map(|c| c.parse().unwrap()).collect();
        let cluster = ["10.99.0.0/16", "fd00:99::/48"].iter().map(|c| c.parse().unwrap()).collect();
        let mut config = NetworkConfig::new(cidrs, cluster, self.dir.path().join("pods.json"));
        config.service_cidrs = vec!["10.98.0.0/16".parse().unwrap()];
        config
    }

    pub fn network(&self) -> Network {
        self.node.run(|| Network::open(self.config()).unwrap()).unwrap()
    }

    pub fn pod(&mut self, name: &str) -> (PathBuf, NetNs) {
        let path = self.dir.path().join(name);
        self.paths.push(path.clone());
        (path.clone(), NetNs::create(&path).unwrap())
    }

    pub fn block_on<T: Send>(&self, future: impl Future<Output = T> + Send) -> T {
        block_on(&self.node, future)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = NetNs::remove(path);
        }
    }
}

pub fn block_on<T: Send>(ns: &NetNs, future: impl Future<Output = T> + Send) -> T {
    ns.run(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future))
        .unwrap()
}

pub fn raise(rtnl: &Rtnl, name: &str, addresses: &[&str]) {
    let index = rtnl.link(name).unwrap().unwrap().index;
    rtnl.set_link(index, &LinkSettings { up: Some(true), ..LinkSettings::default() }).unwrap();
    for address in addresses {
        rtnl.add_address(index, address.parse().unwrap()).unwrap();
    }
}

/// Serves TCP and UDP on `port`: answers every request with `name` and the client's address as the server sees it.
pub fn serve(ns: &NetNs, port: u16, name: &str) {
    let name = name.to_owned();
    let udp_name = name.clone();
    let (tcp, udp) = ns
        .run(|| (TcpListener::bind(("::", port)).unwrap(), UdpSocket::bind(("::", port)).unwrap()))
        .unwrap();
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 4];
            if stream.read_exact(&mut buffer).is_ok() {
                let peer = stream.peer_addr().unwrap().ip().to_canonical().to_string();
                let _ = stream.write_all(format!("{name}{peer}").as_bytes());
            }
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(format!("{udp_name}{}", peer.ip().to_canonical()).as_bytes(), peer);
        }
    });
}

pub fn tcp(ns: &NetNs, target: &str) -> std::io::Result<String> {
    let target: SocketAddr = target.parse().unwrap();
    ns.run(|| {
        let mut stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(b"ping")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
    .unwrap()
}

pub fn udp(ns: &NetNs, target: &str) -> std::io::Result<String> {
    let target: SocketAddr = target.parse().unwrap();
    ns.run(|| {
        let socket = UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.connect(target)?;
        socket.send(b"ping")?;
        let mut buffer = [0; 64];
        let len = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
    })
    .unwrap()
}
