//! Control groups on v2, v1 and hybrid systems.
//!
//! What is mounted is found out once. For every controller the hierarchy that has it is remembered; a group of ours
//! is a directory of the same relative path in each of them. On hybrid systems the v2 tree is used too, even if it
//! has no controllers: it can kill a whole group at once.

mod device_filter;
mod devices;
mod limits;
mod tree;
mod usage;

pub use devices::{AllowedDevices, DeviceKind, DeviceRule, parse_access};
pub use tree::{all_processes, kill, oom_kills, unified_group_of};

use std::io;
use std::path::{Path, PathBuf};

use xebec_cri::{LinuxResources, ResourceUsage};

/// v1 controllers that we put groups into. `name=systemd` keeps a stopped unit from killing our containers.
const USED: [&str; 9] =
    ["cpu", "cpuacct", "cpuset", "memory", "devices", "pids", "hugetlb", "freezer", "name=systemd"];

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// `v2`, or the v1 controllers joined with commas.
    pub name: String,
    /// Mount point.
    pub mount: PathBuf,
    /// Controllers that live here.
    pub controllers: Vec<String>,
    /// Whether it is the unified hierarchy.
    pub v2: bool,
}

/// What keeps a group from devices that are not for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceControl {
    /// The v1 controller.
    Controller,
    /// A BPF program in the v2 tree.
    Program,
    /// Nothing.
    Missing,
}

/// The hierarchies of this machine and our root in them.
#[derive(Debug, Clone)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    root: String,
    devices: DeviceControl,
}

/// A cgroup operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Nothing is mounted.
    #[error("no cgroup hierarchy is mounted: mount cgroup2 on /sys/fs/cgroup")]
    NotMounted,
    /// A limit whose controller is not there.
    #[error("limit {limit} needs the cgroup controller {controller}, which this node lacks")]
    NoController {
        /// The limit.
        limit: &'static str,
        /// The controller.
        controller: &'static str,
    },
    /// A device filter that the kernel does not take.
    #[error("load device filter: {source}; the verifier says {log:?}")]
    LoadFilter {
        /// Why.
        #[source]
        source: io::Error,
        /// The verifier's log, if it came that far.
        log: String,
    },
    /// A device filter that cannot be put on a group.
    #[error(
        "cgroup {path}: attach device filter: {source} (does a BPF program on a parent forbid others below it?)"
    )]
    AttachFilter {
        /// The group.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file or directory operation.
    #[error("cgroup {path}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CgroupError + '_ {
    move |source| CgroupError::Io { path: path.to_owned(), source }
}

impl Cgroups {
    /// Finds out what is mounted; groups will lie under `root` (`xebec/<name>`).
    pub fn detect(root: &str) -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let mountinfo = std::fs::read_to_string(path).map_err(io_error(path))?;
        let mut hierarchies = parse_mounts(&mountinfo);
        for hierarchy in hierarchies.iter_mut().filter(|h| h.v2) {
            let file = hierarchy.mount.join("cgroup.controllers");
            let text = std::fs::read_to_string(&file).map_err(io_error(&file))?;
            hierarchy.controllers = text.split_whitespace().map(str::to_owned).collect();
        }
        if hierarchies.is_empty() {
            return Err(CgroupError::NotMounted);
        }
        let has_v2 = hierarchies.iter().any(|h| h.v2);
        // The v2 tree freezes and kills better.
        hierarchies.retain(|h| !(has_v2 && h.name == "freezer"));
        let devices = device_control(&hierarchies);
        Ok(Self { hierarchies, root: root.trim_matches('/').to_owned(), devices })
    }

    /// Directories of a group, by hierarchy.
    pub fn paths(&self, group: &str) -> Vec<(String, PathBuf)> {
        self.hierarchies.iter().map(|h| (h.name.clone(), self.path(h, group))).collect()
    }

    fn path(&self, hierarchy: &Hierarchy, group: &str) -> PathBuf {
        hierarchy.mount.join(&self.root).join(group.trim_matches('/'))
    }

    fn with(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.controllers.iter().any(|c| c == controller))
    }

    /// Makes a group, if it is not there, and sets its limits.
    pub fn ensure(&self, group: &str, resources: &LinuxResources) -> Result<(), CgroupError> {
        for hierarchy in &self.hierarchies {
            tree::make(hierarchy, &self.path(hierarchy, group))?;
        }
        self.update(group, resources)
    }

    /// Sets limits of a group that exists; unset ones stay as they are.
    pub fn update(&self, group: &str, resources: &LinuxResources) -> Result<(), CgroupError> {
        limits::apply(self, group, resources)
    }

    /// Whether [`Self::allow_devices`] has an effect.
    pub fn filters_devices(&self) -> bool {
        self.devices != DeviceControl::Missing
    }

    /// Lets a new group and what is below it use only these devices; nothing happens where nothing filters them.
    /// Once for a group: on v2 what an earlier call refused stays refused.
    pub fn allow_devices(&self, group: &str, allowed: &AllowedDevices) -> Result<(), CgroupError> {
        for hierarchy in &self.hierarchies {
            let directory = self.path(hierarchy, group);
            match (self.devices, allowed) {
                (DeviceControl::Program, AllowedDevices::Only(rules)) if hierarchy.v2 => {
                    device_filter::attach(&directory, rules)?;
                }
                (DeviceControl::Controller, _) if hierarchy.controllers.iter().any(|c| c == "devices") => {
                    tree::write(&directory.join("devices.deny"), "a")?;
                    let rules = match allowed {
                        AllowedDevices::All => vec!["a".to_owned()],
                        AllowedDevices::Only(rules) => rules.iter().map(ToString::to_string).collect(),
                    };
                    rules.iter().try_for_each(|rule| tree::write(&directory.join("devices.allow"), rule))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Kills what is in a group and below, and removes it. Idempotent.
    ///
    /// # Errors
    /// `EBUSY` while killed processes are not reaped yet: repeat.
    pub fn remove(&self, group: &str) -> Result<(), CgroupError> {
        self.hierarchies.iter().try_for_each(|h| tree::remove(&self.path(h, group)))
    }

    /// Removes everything of ours, also the parents of our root if nothing else is in them.
    pub fn remove_all(&self) -> Result<(), CgroupError> {
        self.remove("")?;
        for hierarchy in &self.hierarchies {
            let mut path = self.path(hierarchy, "");
            while path.pop() && path != hierarchy.mount {
                if std::fs::remove_dir(&path).is_err() {
                    break; // Another instance has its root there.
                }
            }
        }
        Ok(())
    }

    /// What a group has used.
    pub fn usage(&self, group: &str) -> Result<ResourceUsage, CgroupError> {
        usage::read(self, group)
    }

    /// Moves this process into a group.
    pub fn enter(&self, group: &str) -> Result<(), CgroupError> {
        for hierarchy in &self.hierarchies {
            let path = self.path(hierarchy, group);
            tree::make(hierarchy, &path)?;
            tree::write(&path.join("cgroup.procs"), "0")?;
        }
        Ok(())
    }
}

/// What filters devices here: the v1 controller where it is mounted, else the v2 tree if the kernel can.
fn device_control(hierarchies: &[Hierarchy]) -> DeviceControl {
    if hierarchies.iter().any(|h| !h.v2 && h.controllers.iter().any(|c| c == "devices")) {
        return DeviceControl::Controller;
    }
    if !hierarchies.iter().any(|h| h.v2) {
        return DeviceControl::Missing;
    }
    match device_filter::probe() {
        Ok(()) => DeviceControl::Program,
        Err(error) => {
            tracing::warn!(%error, "no device filter: containers get no CAP_MKNOD (CONFIG_CGROUP_BPF is missing?)");
            DeviceControl::Missing
        }
    }
}

/// Hierarchies in a mountinfo file, the first mount of each.
fn parse_mounts(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mount) = left.split(' ').nth(4) else { continue };
        let mut right = right.split(' ');
        let (fstype, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
        let hierarchy = match fstype {
            "cgroup2" => Hierarchy { name: "v2".into(), mount: mount.into(), controllers: vec![], v2: true },
            "cgroup" => {
                let used = |o: &&str| USED.contains(o);
                let controllers: Vec<String> = options.split(',').filter(used).map(str::to_owned).collect();
                Hierarchy { name: controllers.join(","), mount: mount.into(), controllers, v2: false }
            }
            _ => continue,
        };
        if !hierarchy.name.is_empty() && !found.iter().any(|h| h.name == hierarchy.name) {
            found.push(hierarchy);
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_mounts() {
        let found = parse_mounts(
            "30 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct\n\
             32 24 0:28 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n\
             33 24 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n",
        );
        let names: Vec<&str> = found.iter().map(|h| h.name.as_str()).collect();
        assert_eq!(names, ["v2", "cpu,cpuacct", "name=systemd"]);
        assert_eq!(found[1].mount, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
    }

    /// Instances share the parents of their roots; each makes them when it begins and removes them when it ends.
    #[test]
    fn instances_begin_and_end_side_by_side() {
        let parent = format!("xebec-cgroup-race-{}", std::process::id());
        let instance = |number: usize| {
            let cgroups = Cgroups::detect(&format!("{parent}/{number}")).unwrap();
            for _ in 0..50 {
                let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
                let joined = cgroups.hierarchies.iter().try_for_each(|hierarchy| {
                    let group = cgroups.path(hierarchy, "a/b");
                    tree::make(hierarchy, &group)?;
                    tree::write(&group.join("cgroup.procs"), &child.id().to_string())
                });
                child.kill().unwrap();
                child.wait().unwrap();
                while cgroups.remove_all().is_err() {}
                joined.unwrap();
            }
        };
        std::thread::scope(|scope| {
            for number in 0..4 {
                let instance = &instance;
                scope.spawn(move || instance(number));
            }
        });
    }
}
