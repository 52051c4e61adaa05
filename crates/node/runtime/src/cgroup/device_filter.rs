//! The device filter of cgroup v2: a BPF program that the kernel asks at every `mknod` and `open` of a device.
//!
//! It decides as the v1 controller does after `devices.deny a`: an access passes if one rule has all of its bits.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::{CgroupError, DeviceRule, io_error};
use crate::sys::bpf;

/// Room for the verifier's words: a rule takes some ten lines of them.
const LOG: usize = 64 << 10;

/// Checks that the kernel knows such programs (`CONFIG_CGROUP_BPF`) and lets us load them.
pub fn probe() -> Result<(), CgroupError> {
    load(&compile(&[])).map(drop)
}

/// Lets the group at `path` and those below use only what `rules` allow, for good: filters add up.
pub fn attach(path: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let program = load(&compile(rules))?;
    let group = File::open(path).map_err(io_error(path))?;
    bpf::attach_device_filter(group.as_fd(), &program)
        .map_err(|source| CgroupError::AttachFilter { path: path.to_owned(), source })
}

fn load(program: &[u64]) -> Result<OwnedFd, CgroupError> {
    // A second attempt says why, and also is one more for a verifier that was interrupted.
    bpf::load_device_filter(program, &mut []).or_else(|_| {
        let mut log = vec![0; LOG];
        bpf::load_device_filter(program, &mut log).map_err(|source| {
            let words = log.split(|byte| *byte == 0).next().unwrap_or_default();
            CgroupError::LoadFilter { source, log: String::from_utf8_lossy(words).trim().to_owned() }
        })
    })
}

// Codes of instructions: class, operation and source of the operand (Documentation/bpf/standardization).
const LOAD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const SET: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const JUMP_NOT_EQUAL: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const JUMP_ANY_BIT: u8 = 0x46; // BPF_JMP32 | BPF_JSET | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

// Registers.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// A `struct bpf_insn`.
fn instruction(code: u8, to: u8, from: u8, offset: i16, value: u32) -> u64 {
    u64::from(code) | u64::from(to | from << 4) << 8 | u64::from(offset as u16) << 16 | u64::from(value) << 32
}

/// Returns from the program: 1 allows, 0 refuses with `EPERM`.
fn answer(allow: bool) -> [u64; 2] {
    [instruction(SET, RESULT, 0, 0, allow.into()), instruction(EXIT, 0, 0, 0, 0)]
}

/// A program over `struct bpf_cgroup_dev_ctx`: kind and access as halves of one word, then major and minor.
fn compile(rules: &[DeviceRule]) -> Vec<u64> {
    let mut program = vec![
        instruction(LOAD, KIND, CONTEXT, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(LOAD, ACCESS, CONTEXT, 0, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in merge(rules) {
        let number = |register, number: Option<u32>| number.map(|n| (JUMP_NOT_EQUAL, register, n));
        // Bits of access that no one knows yet are refused too.
        let mut misses = vec![(JUMP_NOT_EQUAL, KIND, rule.kind as u32), (JUMP_ANY_BIT, ACCESS, !rule.access)];
        misses.extend(number(MAJOR, rule.major));
        misses.extend(number(MINOR, rule.minor));
        let length = misses.len();
        for (at, (code, register, value)) in misses.into_iter().enumerate() {
            let to_next_rule = (length - at - 1) as i16 + 2;
            program.push(instruction(code, register, 0, to_next_rule, value));
        }
        program.extend(answer(true));
    }
    program.extend(answer(false));
    program
}

/// Several rules for the same devices are one, as in the v1 controller.
fn merge(rules: &[DeviceRule]) -> Vec<DeviceRule> {
    let mut merged: Vec<DeviceRule> = Vec::new();
    for rule in rules {
        let same = |r: &&mut DeviceRule| (r.kind, r.major, r.minor) == (rule.kind, rule.major, rule.minor);
        match merged.iter_mut().find(same) {
            Some(earlier) => earlier.access |= rule.access,
            None => merged.push(*rule),
        }
    }
    merged
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;
    use std::process::{Command, Output};

    use super::super::devices::{DeviceKind, MKNOD, READ, WRITE};
    use super::super::{Cgroups, tree};
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0_u32; 11];
        let mut at = 0;
        loop {
            let [code, both, low, high, ref value @ ..] = program[at].to_le_bytes();
            let (to, from) = (usize::from(both & 15), both >> 4);
            let offset = usize::from(u16::from_le_bytes([low, high]));
            let value = u32::from_le_bytes(*value);
            at += 1;
            match code {
                LOAD if from == CONTEXT => registers[to] = context[offset / 4],
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                SET => registers[to] = value,
                JUMP_NOT_EQUAL if registers[to] != value => at += offset,
                JUMP_ANY_BIT if registers[to] & value != 0 => at += offset,
                JUMP_NOT_EQUAL | JUMP_ANY_BIT => {}
                EXIT => return registers[usize::from(RESULT)] == 1,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    fn rule(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: u32) -> DeviceRule {
        DeviceRule { kind, major, minor, access }
    }

    #[test]
    fn agrees_with_the_rules() {
        let (block, char) = (DeviceKind::Block, DeviceKind::Char);
        let sets = [
            vec![],
            vec![DeviceRule::nodes(char), DeviceRule::nodes(block)],
            vec![DeviceRule::nodes(char), DeviceRule::char(1, Some(3)), DeviceRule::char(136, None)],
            vec![rule(block, Some(8), Some(1), READ), rule(char, None, Some(1), READ | WRITE)],
            vec![rule(block, None, None, WRITE), rule(block, Some(u32::MAX), Some(0), READ | MKNOD)],
        ];
        let numbers = [0, 1, 3, 8, 136, 1 << 31, u32::MAX];
        for rules in sets {
            let program = compile(&rules);
            for kind in [block, char] {
                // Bit 3 means nothing today.
                for access in 0..16 {
                    for (major, minor) in numbers.iter().flat_map(|a| numbers.map(|b| (*a, b))) {
                        let allowed = rules.iter().any(|r| {
                            r.kind == kind
                                && r.major.is_none_or(|m| m == major)
                                && r.minor.is_none_or(|m| m == minor)
                                && access & !r.access == 0
                        });
                        let answer = run(&program, kind as u32, access, major, minor);
                        assert_eq!(answer, allowed, "{kind:?} {major}:{minor} {access} {rules:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn rules_for_one_device_add_up() {
        let parts = [READ, WRITE].map(|access| rule(DeviceKind::Char, Some(1), Some(3), access));
        let program = compile(&parts);
        assert!(run(&program, DeviceKind::Char as u32, READ | WRITE, 1, 3));
        assert!(!run(&program, DeviceKind::Char as u32, READ | WRITE | MKNOD, 1, 3));
    }

    #[test]
    fn the_verifier_is_quoted() {
        // Ends without an answer.
        let error = load(&[instruction(EXIT, 0, 0, 0, 0)]).unwrap_err().to_string();
        assert!(error.contains("R0 !read_ok"), "{error}");
    }

    /// A group of this test's own in the unified hierarchy, with a group in it.
    struct Group(PathBuf);

    impl Group {
        fn new() -> Self {
            let mounts = Cgroups::detect("").unwrap().hierarchies;
            let unified = mounts.into_iter().find(|h| h.v2).expect("this test needs a mount of cgroup2");
            let path = unified.mount.join(format!("xebec-device-filter-{}", std::process::id()));
            let group = Self(path);
            std::fs::create_dir_all(group.0.join("below")).unwrap();
            group
        }

        /// What a shell below the group says to a command.
        fn shell(&self, command: &str) -> Output {
            let procs = self.0.join("below/cgroup.procs");
            let script = format!("echo 0 >{} || exit 9; {command} || exit 1", procs.display());
            Command::new("sh").args(["-c", &script]).env("LC_ALL", "C").output().unwrap()
        }

        #[track_caller]
        fn allows(&self, command: &str) {
            let output = self.shell(command);
            assert!(output.status.success(), "{command}: {output:?}");
        }

        #[track_caller]
        fn refuses(&self, command: &str) {
            let output = self.shell(command);
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.code() == Some(1) && words.contains("Operation not permitted"),
                "{command}: {output:?}"
            );
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            // Every process that was in it has been waited for.
            tree::remove(&self.0).unwrap();
        }
    }

    /// Opens only nodes that every machine has: the temporary directory may be mounted with `nodev`.
    #[test]
    fn the_kernel_refuses_what_no_rule_allows() {
        let directory = tempfile::tempdir().unwrap();
        let node = directory.path().join("node").display().to_string();
        let group = Group::new();
        group.allows("true </dev/kmsg");
        let (char, block) = (DeviceKind::Char, DeviceKind::Block);
        let rules = [
            DeviceRule::nodes(char),
            DeviceRule::char(1, Some(3)),
            rule(char, Some(1), Some(5), READ),
            rule(char, Some(1), Some(7), WRITE),
        ];
        attach(&group.0, &rules).unwrap();
        group.allows("true <>/dev/null");
        group.allows("head -c 1 /dev/zero");
        group.refuses("true >/dev/zero");
        group.refuses("true <>/dev/zero");
        group.refuses("true </dev/full");
        group.refuses("true </dev/kmsg");
        group.allows(&format!("mknod {node} c 1 11"));
        group.refuses(&format!("mknod {node}b b 7 0"));
        // A filter further down adds to the one above.
        attach(&group.0.join("below"), &[rule(char, None, None, READ | WRITE), DeviceRule::nodes(block)])
            .unwrap();
        group.allows("true <>/dev/null");
        group.refuses("true </dev/kmsg");
        group.refuses(&format!("mknod {node}c c 1 11"));
        group.refuses(&format!("mknod {node}b b 7 0"));
    }
}
