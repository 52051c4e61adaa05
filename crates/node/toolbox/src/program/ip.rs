//! Addresses and routes as /proc shows them.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Answer;
use super::small::write_out;

/// `ip [addr|route]`
pub fn run(arguments: &[String]) -> Answer {
    let text = match arguments.first().map(String::as_str) {
        None => links() + &routes(),
        Some("a" | "addr" | "address") => links(),
        Some("r" | "route") => routes(),
        Some(other) => return Err(format!("{other:?} is not known: addr and route are")),
    };
    write_out(text.as_bytes())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn links() -> String {
    let mut text = String::new();
    let v6 = read("/proc/net/if_inet6");
    for line in read("/proc/net/dev").lines().skip(2) {
        let Some((name, counters)) = line.split_once(':') else { continue };
        let (name, counters) = (name.trim(), counters.split_whitespace().collect::<Vec<_>>());
        let class = |file: &str| read(&format!("/sys/class/net/{name}/{file}")).trim().to_owned();
        let _ = writeln!(text, "{name}: mtu {} {} {}", class("mtu"), class("operstate"), class("address"));
        for line in v6.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [address, _, prefix, _, _, device] = fields.as_slice()
                && *device == name
                && let (Ok(ip), Ok(len)) = (u128::from_str_radix(address, 16), u8::from_str_radix(prefix, 16))
            {
                let _ = writeln!(text, "    inet6 {}/{len}", Ipv6Addr::from(ip));
            }
        }
        let count = |i: usize| counters.get(i).copied().unwrap_or("0");
        let _ = writeln!(text, "    received {} bytes, sent {} bytes", count(0), count(8));
    }
    for ip in local_v4(&read("/proc/net/fib_trie")) {
        let _ = writeln!(text, "inet {ip}");
    }
    text
}

/// The kernel's own addresses: in `fib_trie` each is followed by `/32 host LOCAL`.
fn local_v4(trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in trie.lines() {
        if let Some(ip) = line.trim().strip_prefix("|-- ") {
            last = ip.parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(ip) = last
            && !found.contains(&ip)
        {
            found.push(ip);
        }
    }
    found
}

fn routes() -> String {
    let mut text = String::new();
    for line in read("/proc/net/route").lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ip = |at: usize| {
            let number = fields.get(at).and_then(|f| u32::from_str_radix(f, 16).ok());
            number.map(|n| Ipv4Addr::from(n.to_ne_bytes()))
        };
        let (Some(device), Some(to), Some(via), Some(mask)) = (fields.first(), ip(1), ip(2), ip(7)) else {
            continue;
        };
        let prefix = u32::from(mask).count_ones();
        let to = if prefix == 0 { "default".to_owned() } else { format!("{to}/{prefix}") };
        let via = if via.is_unspecified() { String::new() } else { format!(" via {via}") };
        let _ = writeln!(text, "{to}{via} dev {device}");
    }
    for line in read("/proc/net/ipv6_route").lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ip =
            |at: usize| fields.get(at).and_then(|f| u128::from_str_radix(f, 16).ok()).map(Ipv6Addr::from);
        let prefix = fields.get(1).and_then(|f| u8::from_str_radix(f, 16).ok());
        let (Some(to), Some(len), Some(via), Some(device)) = (ip(0), prefix, ip(4), fields.get(9)) else {
            continue;
        };
        if *device == "lo" || to.is_multicast() {
            continue;
        }
        let to = if len == 0 { "default".to_owned() } else { format!("{to}/{len}") };
        let via = if via.is_unspecified() { String::new() } else { format!(" via {via}") };
        let _ = writeln!(text, "{to}{via} dev {device}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_found() {
        let trie = "Local:\n  |-- 10.0.0.0\n     /24 link UNICAST\n  |-- 10.0.0.5\n     /32 host LOCAL\n";
        assert_eq!(local_v4(trie), [Ipv4Addr::new(10, 0, 0, 5)]);
    }
}
