//! What a container may do.

use serde::{Deserialize, Serialize};

/// Whose namespace is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Copy)]
pub enum NamespaceMode {
    /// Shared by the pod's containers.
    Pod,
    /// The container's own.
    Container,
    /// The node's.
    Node,
}

/// Seccomp or AppArmor profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecurityProfile {
    /// The runtime's default profile.
    #[default]
    RuntimeDefault,
    /// No confinement.
    Unconfined,
    /// A profile of the node, by absolute path (seccomp) or name (AppArmor).
    Localhost(String),
}

/// Capabilities to add to and drop from the default set, without the `CAP_` prefix; `ALL` stands for all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Added.
    pub add: Vec<String>,
    /// Dropped (before adding).
    pub drop: Vec<String>,
}

/// How supplementary groups are made up (KEP-3619).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupplementalGroupsPolicy {
    /// Groups of the image's `/etc/group` are merged in.
    #[default]
    Merge,
    /// Only the listed groups.
    Strict,
}

/// Linux security settings of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityContext {
    /// All capabilities, all devices, no masking, no seccomp.
    pub privileged: bool,
    /// Capability changes.
    pub capabilities: Capabilities,
    /// Numeric user; `None` takes `run_as_username`, else the image's `USER`.
    pub run_as_user: Option<i64>,
    /// Numeric primary group; needs a user.
    pub run_as_group: Option<i64>,
    /// User name to look up in the image.
    pub run_as_username: String,
    /// Further groups (`fsGroup` and `supplementalGroups`).
    pub supplemental_groups: Vec<i64>,
    /// How those groups are made up.
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    /// Mount the root file system read-only.
    pub readonly_rootfs: bool,
    /// `no_new_privs`.
    pub no_new_privs: bool,
    /// Seccomp profile.
    pub seccomp: SecurityProfile,
    /// AppArmor profile; ignored on kernels without AppArmor unless it is `Localhost`, which then fails.
    pub apparmor: SecurityProfile,
    /// Paths hidden in the container; empty with `procMount: Unmasked`.
    pub masked_paths: Vec<String>,
    /// Paths read-only in the container.
    pub readonly_paths: Vec<String>,
    /// Process namespace.
    pub pid_mode: Option<NamespaceMode>,
}
