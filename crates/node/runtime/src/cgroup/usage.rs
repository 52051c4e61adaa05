//! What control groups have used.

use std::path::Path;
use std::time::SystemTime;

use xebec_cri::ResourceUsage;

use super::{CgroupError, Cgroups, io_error};

/// Reads a group's counters; those whose controller is not there are 0.
pub fn read(cgroups: &Cgroups, group: &str) -> Result<ResourceUsage, CgroupError> {
    let mut usage = ResourceUsage {
        at: SystemTime::now(),
        cpu_nanoseconds: 0,
        memory_usage_bytes: 0,
        memory_working_set_bytes: 0,
        memory_rss_bytes: 0,
        pids: 0,
    };
    if let Some(hierarchy) = cgroups.with("cpuacct") {
        usage.cpu_nanoseconds = number(&cgroups.path(hierarchy, group).join("cpuacct.usage"))?;
    } else if let Some(hierarchy) = cgroups.with("cpu") {
        let stat = text(&cgroups.path(hierarchy, group).join("cpu.stat"))?;
        usage.cpu_nanoseconds = field(&stat, "usage_usec") * 1000;
    }
    if let Some(hierarchy) = cgroups.with("memory") {
        let path = cgroups.path(hierarchy, group);
        let stat = text(&path.join("memory.stat"))?;
        let (current, inactive, rss) = if hierarchy.v2 {
            ("memory.current", "inactive_file", "anon")
        } else {
            ("memory.usage_in_bytes", "total_inactive_file", "total_rss")
        };
        usage.memory_usage_bytes = number(&path.join(current))?;
        usage.memory_working_set_bytes = usage.memory_usage_bytes.saturating_sub(field(&stat, inactive));
        usage.memory_rss_bytes = field(&stat, rss);
    }
    if let Some(hierarchy) = cgroups.with("pids") {
        usage.pids = number(&cgroups.path(hierarchy, group).join("pids.current"))?;
    }
    Ok(usage)
}

fn text(path: &Path) -> Result<String, CgroupError> {
    std::fs::read_to_string(path).map_err(io_error(path))
}

fn number(path: &Path) -> Result<u64, CgroupError> {
    Ok(text(path)?.trim().parse().unwrap_or(0))
}

fn field(stat: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    stat.lines().find_map(value).unwrap_or(0)
}
