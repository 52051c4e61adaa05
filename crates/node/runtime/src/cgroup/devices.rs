//! Which devices a group may use.

use std::fmt;

/// A bit of [`DeviceRule::access`]: making nodes of the device.
pub const MKNOD: u32 = 1;
/// A bit of [`DeviceRule::access`]: reading.
pub const READ: u32 = 2;
/// A bit of [`DeviceRule::access`]: writing.
pub const WRITE: u32 = 4;

/// The devices of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedDevices {
    /// All that there are.
    All,
    /// Those that a rule allows; every bit of an access must be in one rule.
    Only(Vec<DeviceRule>),
}

/// The two kinds, numbered as `BPF_DEVCG_DEV_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Block devices.
    Block = 1,
    /// Character devices.
    Char = 2,
}

/// What may be done with some devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Kind.
    pub kind: DeviceKind,
    /// Major number, or all.
    pub major: Option<u32>,
    /// Minor number, or all.
    pub minor: Option<u32>,
    /// Bits of [`MKNOD`], [`READ`] and [`WRITE`], the same as `BPF_DEVCG_ACC_*`.
    pub access: u32,
}

impl DeviceRule {
    /// Everything with a character device.
    pub const fn char(major: u32, minor: Option<u32>) -> Self {
        Self { kind: DeviceKind::Char, major: Some(major), minor, access: MKNOD | READ | WRITE }
    }

    /// Making nodes of all devices of a kind.
    pub const fn nodes(kind: DeviceKind) -> Self {
        Self { kind, major: None, minor: None, access: MKNOD }
    }
}

/// The bits of letters of `rwm`, at least one.
pub fn parse_access(letters: &str) -> Option<u32> {
    let bit = |letter| match letter {
        'm' => Some(MKNOD),
        'r' => Some(READ),
        'w' => Some(WRITE),
        _ => None,
    };
    letters.chars().try_fold(0, |bits, letter| Some(bits | bit(letter)?)).filter(|bits| *bits != 0)
}

/// The syntax of `devices.allow` (cgroup v1).
impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let kind = if self.kind == DeviceKind::Block { 'b' } else { 'c' };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        let letters = [(READ, "r"), (WRITE, "w"), (MKNOD, "m")];
        letters.iter().filter(|(bit, _)| self.access & bit != 0).try_for_each(|(_, l)| f.write_str(l))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_in_the_words_of_v1() {
        assert_eq!(DeviceRule::char(136, None).to_string(), "c 136:* rwm");
        assert_eq!(DeviceRule::nodes(DeviceKind::Block).to_string(), "b *:* m");
        let disk =
            DeviceRule { kind: DeviceKind::Block, major: Some(8), minor: Some(0), access: READ | WRITE };
        assert_eq!(disk.to_string(), "b 8:0 rw");
        assert_eq!(parse_access("mrw"), Some(MKNOD | READ | WRITE));
        assert_eq!(parse_access("r"), Some(READ));
        assert_eq!((parse_access(""), parse_access("rx")), (None, None));
    }
}
