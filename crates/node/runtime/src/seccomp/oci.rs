//! `Localhost` profiles: the JSON of the OCI runtime specification, and Docker's with `includes`/`excludes`.

use std::path::Path;

use serde::Deserialize;
use xebec_cri::CriError;

use super::bpf::{ALLOW, Condition, ERRNO, KILL_PROCESS, Op, Profile, Rule};
use super::syscalls::number;
use crate::capabilities::bit;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Vec<Syscalls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syscalls {
    #[serde(default)]
    names: Vec<String>,
    name: Option<String>,
    action: String,
    errno_ret: Option<u16>,
    args: Option<Vec<Arg>>,
    #[serde(default)]
    includes: Selector,
    #[serde(default)]
    excludes: Selector,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
struct Selector {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
}

/// Reads a profile of the node.
pub fn load(path: &Path, capabilities: u64) -> Result<Profile, CriError> {
    let fail = |what: String| CriError::Start(format!("seccomp profile {}: {what}", path.display()));
    let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
    let file: File = serde_json::from_slice(&bytes).map_err(|e| fail(e.to_string()))?;
    convert(file, capabilities).map_err(fail)
}

fn convert(file: File, capabilities: u64) -> Result<Profile, String> {
    let default = action(&file.default_action, file.default_errno_ret)?;
    let mut rules = Vec::new();
    for entry in file.syscalls {
        let holds = |cap: &String| bit(cap).is_some_and(|b| b & capabilities != 0);
        let arch = |name: &String| name == native_arch();
        let included = entry.includes.caps.iter().all(holds)
            && (entry.includes.arches.is_empty() || entry.includes.arches.iter().any(arch));
        let excluded = entry.excludes.caps.iter().any(holds) || entry.excludes.arches.iter().any(arch);
        if !included || excluded {
            continue;
        }
        let action = action(&entry.action, entry.errno_ret)?;
        let conditions =
            entry.args.unwrap_or_default().iter().map(condition).collect::<Result<Vec<_>, _>>()?;
        // Names of other architectures are common in profiles and mean nothing here.
        for syscall in entry.names.iter().chain(&entry.name).filter_map(|name| number(name)) {
            rules.push(Rule { syscall, conditions: conditions.clone(), action });
        }
    }
    // Conditional rules first: a rule without conditions for the same call would hide them.
    rules.sort_by_key(|rule| rule.conditions.is_empty());
    Ok(Profile { rules, default, newest: 0x3fff_ffff })
}

fn action(name: &str, errno: Option<u16>) -> Result<u32, String> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_ERRNO" => ERRNO | u32::from(errno.unwrap_or(libc::EPERM as u16)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | u32::from(errno.unwrap_or(libc::EPERM as u16)),
        other => return Err(format!("action {other:?} is not supported")),
    })
}

fn condition(arg: &Arg) -> Result<Condition, String> {
    if arg.index > 5 {
        return Err(format!("argument index {} is out of range", arg.index));
    }
    let (op, value) = match arg.op.as_str() {
        "SCMP_CMP_EQ" => (Op::Eq, arg.value),
        "SCMP_CMP_NE" => (Op::Ne, arg.value),
        "SCMP_CMP_GT" => (Op::Gt, arg.value),
        "SCMP_CMP_GE" => (Op::Ge, arg.value),
        "SCMP_CMP_LT" => (Op::Lt, arg.value),
        "SCMP_CMP_LE" => (Op::Le, arg.value),
        "SCMP_CMP_MASKED_EQ" => (Op::Masked(arg.value), arg.value_two),
        other => return Err(format!("comparison {other:?} is not supported")),
    };
    Ok(Condition { arg: arg.index, op, value })
}

fn native_arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn profile_with_conditions_and_capabilities() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
            {"names":["mkdir","nosuchcall"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
            {"names":["mount"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["personality"],"action":"SCMP_ACT_KILL_PROCESS",
             "args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}]}"#;
        let count = |caps| convert(serde_json::from_str(text).unwrap(), caps).unwrap().rules.len();
        assert_eq!(count(0), if cfg!(target_arch = "x86_64") { 3 } else { 2 });
        assert_eq!(count(0) - 1, count(1 << 21));
        assert!(action("SCMP_ACT_NOTIFY", None).is_err());
    }
}
