//! The embedded container runtime and the supervisor that outlives its agent.
//!
//! Two halves meet at a unix socket. [`EmbeddedRuntime`] lives in the agent: it implements
//! [`xebec_cri::RuntimeService`], resolves images, users and limits into a complete specification, and keeps the
//! records. The supervisor ([`supervisor_main`]) is a process of its own that forks containers, owns their output
//! and remembers how they ended; it knows nothing of images or networks, and killing the agent does not touch it.
//!
//! Devices are filtered by the v1 controller, or on cgroup v2 by a BPF program on each container's group. A kernel
//! that can do neither (no `CONFIG_CGROUP_BPF`) is used all the same: there containers lose `CAP_MKNOD` from the
//! default set, so that they reach only the devices in their own `/dev`.

mod capabilities;
mod cgroup;
mod client;
mod paths;
mod protocol;
mod runtime;
mod seccomp;
mod spec;
mod supervisor;
mod sys;
mod users;
mod wire;

pub use client::{ClientError, SupervisorClient, SupervisorOptions};
pub use runtime::{EmbeddedRuntime, Rootfs, RootfsProvider, RuntimeConfig};
pub use supervisor::supervisor_main;
