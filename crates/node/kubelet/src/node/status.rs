//! The Node's status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::facts::{Facts, meminfo_kib};
use crate::worker::Shared;

/// Images listed at most (upstream's default).
const MAX_IMAGES: usize = 50;
/// Less available memory than this is pressure (upstream's `memory.available<100Mi`), in KiB.
const MEMORY_PRESSURE_KIB: u64 = 100 << 10;
/// Less free disk than this is pressure (upstream's `nodefs.available<10%`), in percent.
const DISK_PRESSURE_PERCENT: u64 = 10;

/// Makes the status.
pub(super) async fn status(
    shared: &Shared,
    facts: &Facts,
    port: u16,
    old: Option<&NodeStatus>,
) -> NodeStatus {
    let config = &shared.config;
    let capacity = || {
        let amounts = [
            ("cpu", facts.cpus.to_string()),
            ("memory", format!("{}Ki", facts.memory_bytes / 1024)),
            ("ephemeral-storage", format!("{}Ki", facts.disk_bytes / 1024)),
            ("pods", config.max_pods.to_string()),
            ("hugepages-2Mi", "0".into()),
            ("hugepages-1Gi", "0".into()),
        ];
        amounts.map(|(k, v)| (k.to_owned(), Quantity(v))).into()
    };
    let ips = config.node_ips.iter().map(|ip| ("InternalIP", ip.to_string()));
    let addresses = ips.chain([("Hostname", config.node_name.clone())]);
    let address = |(type_, address): (&str, String)| NodeAddress { type_: type_.into(), address };
    let port = i32::from(port);
    NodeStatus {
        addresses: Some(addresses.map(address).collect()),
        capacity: Some(capacity()),
        allocatable: Some(capacity()),
        conditions: Some(conditions(shared, old).await),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port }) }),
        images: Some(images(shared).await),
        node_info: Some(facts.info.clone()),
        ..NodeStatus::default()
    }
}

async fn images(shared: &Shared) -> Vec<ContainerImage> {
    let mut all = shared.runtime.images.list_images().await.unwrap_or_default();
    all.sort_by_key(|i| std::cmp::Reverse(i.size));
    let image = |i: xebec_cri::Image| ContainerImage {
        names: Some(i.repo_digests.into_iter().chain(i.repo_tags).take(5).collect()),
        size_bytes: i64::try_from(i.size).ok(),
    };
    all.into_iter().take(MAX_IMAGES).map(image).collect()
}

async fn conditions(shared: &Shared, old: Option<&NodeStatus>) -> Vec<NodeCondition> {
    let ready = match shared.runtime.runtime.info().await {
        Err(error) => Err(format!("container runtime is down: {error}")),
        Ok(info) => match (info.runtime_ready, info.network_ready) {
            (Err(why), _) => Err(format!("container runtime not ready: {why}")),
            (_, Err(why)) => Err(format!("container runtime network not ready: NetworkReady=false {why}")),
            (Ok(()), Ok(())) => Ok(()),
        },
    };
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = meminfo_kib(&meminfo, "MemAvailable:").is_some_and(|kib| kib < MEMORY_PRESSURE_KIB);
    let disk = rustix::fs::statvfs(&shared.config.data_dir)
        .is_ok_and(|s| s.f_bavail * 100 < s.f_blocks * DISK_PRESSURE_PERCENT);
    let number = |path: &str| -> Option<u64> { std::fs::read_to_string(path).ok()?.trim().parse().ok() };
    let running = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let running = running.split_whitespace().nth(3).and_then(|f| f.split_once('/')?.1.parse::<u64>().ok());
    let pids =
        matches!((running, number("/proc/sys/kernel/pid_max")), (Some(r), Some(max)) if r * 10 > max * 9);
    let pressure = |what: &'static str, name: &'static str, holds: bool| {
        let (no, yes) = match what {
            "memory" => ("KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"),
            "disk" => ("KubeletHasNoDiskPressure", "KubeletHasDiskPressure"),
            _ => ("KubeletHasSufficientPID", "KubeletHasInsufficientPID"),
        };
        let message = match (what, holds) {
            ("memory", false) => "kubelet has sufficient memory available",
            ("memory", true) => "kubelet has insufficient memory available",
            ("disk", false) => "kubelet has no disk pressure",
            ("disk", true) => "kubelet has disk pressure",
            (_, false) => "kubelet has sufficient PID available",
            (_, true) => "kubelet has insufficient PID available",
        };
        condition(old, name, holds, if holds { yes } else { no }, message.to_owned())
    };
    let ready = match ready {
        Ok(()) => condition(old, "Ready", true, "KubeletReady", "kubelet is posting ready status".into()),
        Err(message) => condition(old, "Ready", false, "KubeletNotReady", message),
    };
    vec![
        pressure("memory", "MemoryPressure", memory),
        pressure("disk", "DiskPressure", disk),
        pressure("pid", "PIDPressure", pids),
        ready,
    ]
}

fn condition(
    old: Option<&NodeStatus>,
    type_: &str,
    holds: bool,
    reason: &str,
    message: String,
) -> NodeCondition {
    let status = if holds { "True" } else { "False" };
    let known = old.and_then(|o| o.conditions.as_ref());
    let same = known.and_then(|c| c.iter().find(|c| c.type_ == type_ && c.status == status));
    let now = Time(Timestamp::now());
    NodeCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: same.and_then(|c| c.last_transition_time.clone()).or(Some(now)),
    }
}

/// Whether two statuses say the same, heartbeats aside.
pub(super) fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let quiet = |status: &NodeStatus| {
        let mut list: Vec<NodeCondition> = status.conditions.clone().unwrap_or_default();
        list.retain(|c| {
            matches!(c.type_.as_str(), "Ready" | "MemoryPressure" | "DiskPressure" | "PIDPressure")
        });
        for condition in &mut list {
            condition.last_heartbeat_time = None;
            condition.last_transition_time = None;
        }
        list.sort_by(|a, b| a.type_.cmp(&b.type_));
        list
    };
    quiet(a) == quiet(b)
        && a.addresses == b.addresses
        && a.images == b.images
        && a.daemon_endpoints == b.daemon_endpoints
        && a.node_info == b.node_info
        && a.capacity == b.capacity
}
