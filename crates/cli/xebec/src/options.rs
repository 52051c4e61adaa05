//! The options of a cluster: flags over config file over defaults, checked once.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use xebec_netlink::Cidr;
use xebec_types::names;

use crate::cli::UpArgs;

/// The config file that is read when it exists.
pub const CONFIG_FILE: &str = "/etc/xebec/config.yaml";
/// The default data directory.
pub const DATA_DIR: &str = "/var/lib/xebec";

/// The config file: the flags of `up` by name. Unknown keys are errors.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct File {
    data_dir: Option<PathBuf>,
    bind_address: Option<IpAddr>,
    secure_port: Option<u16>,
    cluster_cidr: Option<String>,
    service_cidr: Option<String>,
    node_name: Option<String>,
    node_ip: Option<String>,
    kubelet_port: Option<u16>,
    kubeconfig_out: Option<PathBuf>,
}

/// Checked options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Data directory, absolute.
    pub data_dir: PathBuf,
    /// Address the API server listens on.
    pub bind_address: IpAddr,
    /// Port the API server listens on.
    pub secure_port: u16,
    /// Pod ranges, the primary family first.
    pub cluster_cidrs: Vec<Cidr>,
    /// Service ranges, in the same order of families.
    pub service_cidrs: Vec<Cidr>,
    /// Node name.
    pub node_name: String,
    /// Node addresses; empty: to be found.
    pub node_ips: Vec<IpAddr>,
    /// Port of the node's agent.
    pub kubelet_port: u16,
    /// Where the kubeconfig goes.
    pub kubeconfig_out: PathBuf,
}

impl Options {
    /// Reads the config file and puts flags over it.
    ///
    /// # Errors
    /// With the option's name and what to do about it.
    pub fn resolve(args: UpArgs, hostname: &str) -> Result<Self> {
        let file = read(&args.config)?;
        let data_dir = args.data_dir.or(file.data_dir).unwrap_or_else(|| DATA_DIR.into());
        let data_dir = std::path::absolute(&data_dir).with_context(|| format!("data-dir {data_dir:?}"))?;
        let cluster = args.cluster_cidr.or(file.cluster_cidr).unwrap_or_else(|| "10.244.0.0/16".into());
        let service = args.service_cidr.or(file.service_cidr).unwrap_or_else(|| "10.96.0.0/16".into());
        let node_ip = args.node_ip.or(file.node_ip).unwrap_or_default();
        let node_name = args.node_name.or(file.node_name).unwrap_or_else(|| hostname.to_lowercase());
        let kubeconfig_out = args.kubeconfig_out.or(file.kubeconfig_out);
        let options = Self {
            kubeconfig_out: match kubeconfig_out {
                Some(path) => {
                    std::path::absolute(&path).with_context(|| format!("kubeconfig-out {path:?}"))?
                }
                None => data_dir.join("kubeconfig"),
            },
            data_dir,
            bind_address: args.bind_address.or(file.bind_address).unwrap_or(IpAddr::from([0, 0, 0, 0])),
            secure_port: args.secure_port.or(file.secure_port).unwrap_or(6443),
            cluster_cidrs: cidrs("cluster-cidr", &cluster)?,
            service_cidrs: cidrs("service-cidr", &service)?,
            node_name,
            node_ips: addresses(&node_ip)?,
            kubelet_port: args.kubelet_port.or(file.kubelet_port).unwrap_or(10250),
        };
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<()> {
        if let Some(error) = names::dns1123_subdomain(&self.node_name).first() {
            bail!("node-name {:?}: {error}; choose one with --node-name", self.node_name);
        }
        ensure!(self.secure_port != 0, "secure-port: must be between 1 and 65535");
        ensure!(self.kubelet_port != 0, "kubelet-port: must be between 1 and 65535");
        ensure!(self.kubelet_port != self.secure_port, "kubelet-port: {} is secure-port", self.kubelet_port);
        let families = |list: &[Cidr]| list.iter().map(Cidr::is_ipv4).collect::<Vec<_>>();
        ensure!(
            families(&self.cluster_cidrs) == families(&self.service_cidrs),
            "cluster-cidr and service-cidr must have the same address families in the same order"
        );
        for cidr in &self.cluster_cidrs {
            let (share, least) = if cidr.is_ipv4() { (24, 8) } else { (64, 8) };
            ensure!(
                (least..=share).contains(&cidr.prefix),
                "cluster-cidr {cidr}: a node's share is a /{share}, so the range must be a /{share} or larger"
            );
        }
        for cidr in &self.service_cidrs {
            let (smallest, largest) = if cidr.is_ipv4() { (28, 12) } else { (124, 108) };
            ensure!(
                (largest..=smallest).contains(&cidr.prefix),
                "service-cidr {cidr}: must be between /{largest} and /{smallest}"
            );
            for pods in &self.cluster_cidrs {
                ensure!(!cidr.overlaps(pods), "service-cidr {cidr} overlaps cluster-cidr {pods}");
            }
        }
        Ok(())
    }

    /// The address of the `kubernetes` Service: the first of the primary Service range.
    pub fn kubernetes_address(&self) -> IpAddr {
        self.service_address(1)
    }

    /// The address of cluster DNS: the tenth of the primary Service range.
    pub fn dns_address(&self) -> IpAddr {
        self.service_address(10)
    }

    fn service_address(&self, offset: u128) -> IpAddr {
        self.service_cidrs[0].nth(offset).expect("invariant: Service ranges have at least 16 addresses")
    }
}

fn read(path: &Path) -> Result<File> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && path == Path::new(CONFIG_FILE) => {
            return Ok(File::default());
        }
        Err(error) => return Err(error).with_context(|| format!("config {}", path.display())),
    };
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    serde_yaml_ng::from_str(&text).with_context(|| format!("config {}", path.display()))
}

fn cidrs(option: &str, text: &str) -> Result<Vec<Cidr>> {
    let mut list: Vec<Cidr> = Vec::new();
    for part in text.split(',') {
        let cidr: Cidr = part.trim().parse().with_context(|| format!("{option} {text:?}"))?;
        ensure!(
            cidr.network().addr == cidr.addr,
            "{option} {cidr}: has bits set beyond its prefix; write {}",
            cidr.network()
        );
        ensure!(
            list.iter().all(|other| other.is_ipv4() != cidr.is_ipv4()),
            "{option} {text:?}: at most one range per address family"
        );
        list.push(cidr);
    }
    Ok(list)
}

fn addresses(text: &str) -> Result<Vec<IpAddr>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().with_context(|| format!("node-ip {part:?}"))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn resolve(yaml: &str, args: UpArgs) -> Result<Options> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        Options::resolve(UpArgs { config: file.path().into(), ..args }, "Host")
    }

    fn refusal(yaml: &str) -> String {
        format!("{:#}", resolve(yaml, UpArgs::default()).unwrap_err())
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let args = UpArgs { secure_port: Some(7443), ..UpArgs::default() };
        let options = resolve("secure-port: 1\nnode-name: n1\n", args).unwrap();
        assert_eq!((options.secure_port, options.node_name.as_str()), (7443, "n1"));
        assert_eq!(options.kubeconfig_out, Path::new("/var/lib/xebec/kubeconfig"));
        assert_eq!(options.dns_address().to_string(), "10.96.0.10");
    }

    #[test]
    fn mistakes_are_named() {
        for (yaml, words) in [
            ("secure_port: 1", "unknown field `secure_port`"),
            ("cluster-cidr: 10.244.0.1/16", "write 10.244.0.0/16"),
            ("cluster-cidr: 10.1.0.0/28", "cluster-cidr 10.1.0.0/28"),
            ("service-cidr: 10.244.0.0/20", "overlaps"),
            ("service-cidr: 10.96.0.0/30", "between /12 and /28"),
            ("service-cidr: fd00::/112", "same address families"),
            ("node-name: Bad_Name", "node-name"),
            ("node-ip: nowhere", "node-ip"),
        ] {
            let text = refusal(yaml);
            assert!(text.contains(words), "{yaml}: {text}");
        }
    }

    #[test]
    fn a_config_file_that_was_asked_for_must_exist() {
        let args = UpArgs { config: "/nonexistent/xebec.yaml".into(), ..UpArgs::default() };
        assert!(Options::resolve(args, "h").is_err());
    }
}
