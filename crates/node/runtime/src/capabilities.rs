//! Linux capabilities by name.

use xebec_cri::{Capabilities, CriError};

/// Names in the order of their numbers (capabilities(7)), without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has when nothing is said: the set that containerd and Docker agree on.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The bit of a capability, with or without `CAP_`, in any case.
pub fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|n| *n == plain).map(|number| 1 << number)
}

/// The capabilities of a container, as a bit mask. `available` is what this node can give.
///
/// # Errors
/// [`CriError::Invalid`] for a name that does not exist, [`CriError::Start`] for one that is added by name but that
/// the node itself lacks.
pub fn resolve(changes: &Capabilities, privileged: bool, available: u64) -> Result<u64, CriError> {
    if privileged {
        return Ok(available);
    }
    let parse =
        |name: &String| bit(name).ok_or_else(|| CriError::Invalid(format!("unknown capability {name:?}")));
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let mut mask = DEFAULT.iter().filter_map(|n| bit(n)).fold(0, |a, b| a | b) & available;
    if changes.add.iter().any(is_all) {
        mask = available;
    }
    if changes.drop.iter().any(is_all) {
        mask = 0;
    }
    for name in changes.drop.iter().filter(|n| !is_all(n)) {
        mask &= !parse(name)?;
    }
    for name in changes.add.iter().filter(|n| !is_all(n)) {
        let bit = parse(name)?;
        if bit & available == 0 {
            return Err(CriError::Start(format!(
                "capability {name} cannot be added: the node does not have it itself"
            )));
        }
        mask |= bit;
    }
    Ok(mask)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mask(add: &[&str], drop: &[&str]) -> u64 {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        resolve(&Capabilities { add: list(add), drop: list(drop) }, false, (1 << 41) - 1).unwrap()
    }

    #[test]
    fn default_set_changes_and_all() {
        assert_eq!(mask(&[], &[]), 0xa804_25fb);
        assert_eq!(mask(&[], &["ALL"]), 0);
        assert_eq!(mask(&["NET_BIND_SERVICE"], &["ALL"]), 1 << 10);
        assert_eq!(mask(&["ALL"], &[]), (1 << 41) - 1);
        assert_eq!(mask(&["CAP_SYS_ADMIN"], &[]), 0xa804_25fb | 1 << 21);
        assert_eq!(mask(&["ALL"], &["NET_RAW"]), ((1 << 41) - 1) & !(1 << 13));
    }

    #[test]
    fn unknown_and_unavailable_names_are_refused() {
        let add = |name: &str| Capabilities { add: vec![name.into()], drop: vec![] };
        assert!(matches!(resolve(&add("NOPE"), false, u64::MAX), Err(CriError::Invalid(_))));
        assert!(matches!(resolve(&add("SYS_TIME"), false, 0), Err(CriError::Start(_))));
    }
}
