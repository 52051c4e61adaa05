//! Limits, as v1 and v2 spell them.

use std::path::Path;

use xebec_cri::LinuxResources;

use super::tree::write;
use super::{CgroupError, Cgroups, Hierarchy};

/// Writes what is set in `resources`.
pub fn apply(cgroups: &Cgroups, group: &str, resources: &LinuxResources) -> Result<(), CgroupError> {
    let at = |controller: &'static str, limit: &'static str| {
        let hierarchy = cgroups.with(controller).ok_or(CgroupError::NoController { limit, controller })?;
        Ok::<_, CgroupError>((hierarchy, cgroups.path(hierarchy, group)))
    };
    let has_quota = resources.cpu_quota_us.is_some_and(|q| q != 0);
    if has_quota || resources.cpu_shares.is_some_and(|s| s != 0) {
        let (hierarchy, path) = at("cpu", "cpu")?;
        cpu(hierarchy, &path, resources)?;
    }
    if resources.memory_limit_bytes.is_some_and(|m| m != 0)
        || resources.memory_swap_limit_bytes.is_some_and(|m| m != 0)
    {
        let (hierarchy, path) = at("memory", "memory")?;
        memory(hierarchy, &path, resources)?;
    }
    if let Some(limit) = resources.pids_limit.filter(|l| *l != 0) {
        let (_, path) = at("pids", "pids")?;
        let value = if limit < 0 { "max".to_owned() } else { limit.to_string() };
        write(&path.join("pids.max"), &value)?;
    }
    for (file, value) in [("cpuset.cpus", &resources.cpuset_cpus), ("cpuset.mems", &resources.cpuset_mems)] {
        if let Some(value) = value.as_ref().filter(|v| !v.is_empty()) {
            let (_, path) = at("cpuset", "cpuset")?;
            write(&path.join(file), value)?;
        }
    }
    for (size, bytes) in &resources.hugepage_limits {
        // Kubernetes always passes a limit of 0; where the kernel has no such controller that changes nothing.
        if *bytes == 0 && cgroups.with("hugetlb").is_none() {
            continue;
        }
        let (hierarchy, path) = at("hugetlb", "hugetlb")?;
        let suffix = if hierarchy.v2 { "max" } else { "limit_in_bytes" };
        write(&path.join(format!("hugetlb.{size}.{suffix}")), &bytes.to_string())?;
    }
    if let Some(unified) = cgroups.hierarchies.iter().find(|h| h.v2) {
        let path = cgroups.path(unified, group);
        resources.unified.iter().try_for_each(|(file, value)| write_if_there(&path.join(file), value))?;
    }
    Ok(())
}

fn cpu(hierarchy: &Hierarchy, path: &Path, resources: &LinuxResources) -> Result<(), CgroupError> {
    let period = resources.cpu_period_us.filter(|p| *p != 0).unwrap_or(100_000);
    let quota = resources.cpu_quota_us.filter(|q| *q != 0);
    if let Some(shares) = resources.cpu_shares.filter(|s| *s != 0) {
        if hierarchy.v2 {
            write(&path.join("cpu.weight"), &weight(shares).to_string())?;
        } else {
            write(&path.join("cpu.shares"), &shares.to_string())?;
        }
    }
    let Some(quota) = quota else { return Ok(()) };
    if hierarchy.v2 {
        let value = if quota < 0 { format!("max {period}") } else { format!("{quota} {period}") };
        write(&path.join("cpu.max"), &value)
    } else {
        write(&path.join("cpu.cfs_period_us"), &period.to_string())?;
        write(&path.join("cpu.cfs_quota_us"), &quota.max(-1).to_string())
    }
}

/// Shares 2–262144 to weight 1–10000, and one default, 1024, to the other, 100: not the linear map of KEP-2254 any
/// more, but the quadratic one that replaced it (runc 1.3.2, crun 1.23).
pub fn weight(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // A rounding error must not lift a whole number to the next.
    (10_f64.powf(exponent) - 1e-6).ceil() as u64
}

fn memory(hierarchy: &Hierarchy, path: &Path, resources: &LinuxResources) -> Result<(), CgroupError> {
    let limit = resources.memory_limit_bytes.filter(|m| *m != 0);
    let swap = resources.memory_swap_limit_bytes.filter(|m| *m != 0);
    if hierarchy.v2 {
        if let Some(limit) = limit {
            write(&path.join("memory.max"), &limit.to_string())?;
        }
        if let Some(total) = swap {
            let swap_only = total.saturating_sub(limit.unwrap_or(0));
            write_if_there(&path.join("memory.swap.max"), &swap_only.to_string())?;
        }
        return Ok(());
    }
    let memory = path.join("memory.limit_in_bytes");
    let both = path.join("memory.memsw.limit_in_bytes");
    let Some(limit) = limit else {
        return swap.map_or(Ok(()), |total| write_if_there(&both, &total.to_string()));
    };
    // The sum must never be below the memory limit: which of the two goes first depends on the direction.
    let now = std::fs::read_to_string(&both).ok().and_then(|t| t.trim().parse::<u64>().ok());
    let grow_sum_first = swap.is_some_and(|total| now.is_some_and(|now| total > now));
    if grow_sum_first {
        write_if_there(&both, &swap.unwrap_or(limit).to_string())?;
    }
    write(&memory, &limit.to_string())?;
    if let Some(total) = swap.filter(|_| !grow_sum_first) {
        write_if_there(&both, &total.to_string())?;
    }
    Ok(())
}

/// Kernels without swap accounting lack its file, and hybrid systems those of controllers that live elsewhere.
fn write_if_there(path: &Path, value: &str) -> Result<(), CgroupError> {
    if path.exists() { write(path, value) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_has_files_of_its_own() {
        let mount = tempfile::tempdir().unwrap();
        let group = mount.path().join("root/group");
        std::fs::create_dir_all(&group).unwrap();
        let wanted = [
            ("cpu.weight", "100"),
            ("cpu.max", "25000 100000"),
            ("memory.max", "1048576"),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "1"),
            ("pids.max", "max"),
            ("cpuset.cpus", "0-1"),
        ];
        wanted.iter().for_each(|(file, _)| std::fs::write(group.join(file), "").unwrap());
        let controllers = ["cpu", "cpuset", "memory", "pids"].map(str::to_owned).to_vec();
        let unified = Hierarchy { name: "v2".into(), mount: mount.path().into(), controllers, v2: true };
        let devices = super::super::DeviceControl::Missing;
        let cgroups = Cgroups { hierarchies: vec![unified], root: "root".into(), devices };
        let resources = LinuxResources {
            cpu_shares: Some(1024),
            cpu_quota_us: Some(25_000),
            memory_limit_bytes: Some(1 << 20),
            memory_swap_limit_bytes: Some(1 << 20),
            pids_limit: Some(-1),
            cpuset_cpus: Some("0-1".into()),
            unified: [("memory.oom.group", "1"), ("not.there", "1")]
                .map(|(f, v)| (f.into(), v.into()))
                .into(),
            ..LinuxResources::default()
        };
        apply(&cgroups, "group", &resources).unwrap();
        for (file, value) in wanted {
            assert_eq!(std::fs::read_to_string(group.join(file)).unwrap(), value, "{file}");
        }
        assert!(!group.join("not.there").exists());
    }

    #[test]
    fn shares_to_weight() {
        let wanted = [(1, 1), (2, 1), (102, 17), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000)];
        for (shares, weight) in wanted.into_iter().chain([(u64::MAX, 10_000)]) {
            assert_eq!(super::weight(shares), weight, "{shares}");
        }
    }
}
