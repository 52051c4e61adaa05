//! What the node is: read once from the kernel and the file system.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::NodeSystemInfo;
use xebec_cri::RuntimeInfo;
use xebec_volumes::fields::Allocatable;

use crate::config::Config;

/// Facts of the node.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Number of CPUs.
    pub cpus: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Size of the data directory's file system in bytes.
    pub disk_bytes: u64,
    /// `status.nodeInfo`.
    pub info: NodeSystemInfo,
}

/// Reads the facts.
pub fn read(config: &Config, runtime: &RuntimeInfo) -> Facts {
    let text = |path: &str| std::fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
    let uname = rustix::system::uname();
    let meminfo = text("/proc/meminfo");
    let disk = rustix::fs::statvfs(&config.data_dir).map_or(0, |s| s.f_blocks * s.f_frsize);
    let release = text("/etc/os-release");
    let pretty = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    let machine_id = text("/etc/machine-id");
    let uuid = text("/sys/class/dmi/id/product_uuid");
    Facts {
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
        memory_bytes: meminfo_kib(&meminfo, "MemTotal:").unwrap_or(0) * 1024,
        disk_bytes: disk,
        info: NodeSystemInfo {
            architecture: architecture().into(),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            container_runtime_version: format!("{}://{}", runtime.name, runtime.version),
            kernel_version: uname.release().to_string_lossy().into_owned(),
            kube_proxy_version: String::new(),
            kubelet_version: config.version.clone(),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            operating_system: "linux".into(),
            os_image: pretty.map(|p| p.trim_matches('"').to_owned()).unwrap_or_else(|| "Linux".into()),
            swap: None,
        },
    }
}

/// A line of `/proc/meminfo` in KiB.
pub(crate) fn meminfo_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Architecture by Go's names, as node labels use them.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Facts {
    /// What pods may use, as the downward API shows it.
    pub fn allocatable(&self) -> Allocatable {
        let signed = |v: u64| i64::try_from(v).unwrap_or(i64::MAX);
        Allocatable {
            cpu_millis: signed(self.cpus * 1000),
            memory_bytes: signed(self.memory_bytes),
            storage_bytes: signed(self.disk_bytes),
        }
    }

    /// Labels of the node.
    pub fn labels(&self, config: &Config) -> BTreeMap<String, String> {
        let own = [
            ("kubernetes.io/hostname", config.node_name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", architecture()),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", architecture()),
        ];
        let mut labels: BTreeMap<_, _> = own.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        labels.extend(config.node_labels.clone());
        labels
    }
}
