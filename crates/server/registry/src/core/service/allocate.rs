//! Taking addresses and node ports for a Service.

use std::net::IpAddr;

use rand::Rng as _;
use serde_json::{Value, json};
use xebec_schema::{FieldError, Path, error};
use xebec_types::object;

use super::pool::Reservation;
use super::{
    ServiceStrategy, addresses, families, needs_cluster_ip, needs_health_port, needs_node_port, node_ports,
};
use crate::Allocation;
use crate::cells::{int_at, list_at};
use crate::defaults::items_mut;

/// A client that sends back less than it got (an `apply` of the original file) keeps what was allocated.
pub(crate) fn carry_over(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        let kept = object::str_at(new, "spec.clusterIP").is_empty();
        let listed = list_at(new, "spec.clusterIPs").is_empty();
        let spec = object::child_mut(new, "spec");
        for (field, missing) in [("clusterIP", kept), ("clusterIPs", listed)] {
            if let Some(value) = old["spec"].get(field).filter(|_| missing) {
                spec.insert(field.into(), value.clone());
            }
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if let Some(value) = old["spec"].get(field)
                && !spec.contains_key(field)
            {
                spec.insert(field.into(), value.clone());
            }
        }
    }
    if needs_node_port(old) && needs_node_port(new) {
        let id = |p: &Value| (int_at(p, "port"), object::str_at(p, "protocol").to_owned());
        let mut before: Vec<_> =
            list_at(old, "spec.ports").iter().map(|p| (id(p), int_at(p, "nodePort"))).collect();
        let taken: Vec<i64> = list_at(new, "spec.ports").iter().map(|p| int_at(p, "nodePort")).collect();
        before.retain(|(_, port)| *port != 0 && !taken.contains(port));
        for port in items_mut(object::child_mut(new, "spec"), "ports") {
            let value = Value::Object(port.clone());
            if int_at(&value, "nodePort") == 0
                && let Some((_, number)) = before.iter().find(|(key, _)| *key == id(&value))
            {
                port.insert("nodePort".into(), (*number).into());
            }
        }
    }
    if needs_health_port(old) && needs_health_port(new) && int_at(new, "spec.healthCheckNodePort") == 0 {
        let port = int_at(old, "spec.healthCheckNodePort");
        if port != 0 {
            object::child_mut(new, "spec").insert("healthCheckNodePort".into(), port.into());
        }
    }
}

impl ServiceStrategy {
    /// Takes everything the Service needs and does not hold yet, or nothing.
    pub(crate) fn take(
        &self,
        new: &mut Value,
        old: Option<&Value>,
    ) -> Result<Box<dyn Allocation>, Vec<FieldError>> {
        let mut taken = Reservation::new(self.pools.clone());
        let families = families::fill(new, &self.ranges).map_err(|e| vec![e])?;
        self.take_addresses(new, old, &families, &mut taken).map_err(|e| vec![e])?;
        self.take_ports(new, old, &mut taken).map_err(|e| vec![e])?;
        Ok(Box::new(taken))
    }

    fn take_addresses(
        &self,
        new: &mut Value,
        old: Option<&Value>,
        families: &[String],
        taken: &mut Reservation,
    ) -> Result<(), FieldError> {
        let mut ips: Vec<String> =
            list_at(new, "spec.clusterIPs").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if families.is_empty() || ips.first().is_some_and(|ip| ip == "None") {
            let first = ips.first().cloned();
            if let Some(first) = first.filter(|_| !families.is_empty()) {
                object::child_mut(new, "spec").insert("clusterIP".into(), first.into());
            }
            return Ok(());
        }
        // Going back to a single stack gives the second address back.
        ips.truncate(families.len());
        let held = old.map(addresses).unwrap_or_default();
        let path = Path::new("spec").child("clusterIPs");
        for (i, text) in ips.iter().enumerate() {
            let Ok(ip) = text.parse::<IpAddr>() else { continue };
            if held.contains(&ip) {
                continue;
            }
            let failed = |why: String| {
                error::invalid(&path, json!(ips), format!("failed to allocate IP {text}: {why}"))
            };
            let family = families.get(i).map_or("", String::as_str);
            let Some(range) = self.ranges.iter().find(|r| r.family() == family) else { continue };
            if !range.contains_usable(ip) {
                return Err(failed("the provided network does not match the current range".into()));
            }
            if !self.pools.addresses.reserve(ip) {
                return Err(failed("provided IP is already allocated".into()));
            }
            taken.addresses.push(ip);
        }
        for family in families.iter().skip(ips.len()) {
            let ip = self.free_address(family)?;
            taken.addresses.push(ip);
            ips.push(ip.to_string());
        }
        let spec = object::child_mut(new, "spec");
        spec.insert("clusterIP".into(), ips[0].clone().into());
        spec.insert("clusterIPs".into(), ips.into());
        Ok(())
    }

    /// Some free address, from the upper part of the range first: the lower one is for those that choose (KEP-3070).
    fn free_address(&self, family: &str) -> Result<IpAddr, FieldError> {
        let full = |why: &str| error::internal(&Path::new("spec").child("clusterIPs"), why);
        let Some(range) = self.ranges.iter().find(|r| r.family() == family) else {
            return Err(full("failed to allocate a serviceIP: the IP family is not configured"));
        };
        let usable = range.usable();
        let reserved = if usable < 16 { 0 } else { (usable / 16).clamp(16, 256) };
        let upper = usable - reserved;
        let start = rand::rng().random_range(0..upper.max(1));
        let high = (0..upper).map(|i| 1 + reserved + (start + i) % upper.max(1));
        let low = 1..=reserved;
        high.chain(low)
            .map(|offset| range.nth(offset))
            .find(|ip| self.pools.addresses.reserve(*ip))
            .ok_or_else(|| full("failed to allocate a serviceIP: range is full"))
    }

    fn take_ports(
        &self,
        new: &mut Value,
        old: Option<&Value>,
        taken: &mut Reservation,
    ) -> Result<(), FieldError> {
        let held = old.map(node_ports).unwrap_or_default();
        let wanted = needs_node_port(new)
            && object::at(new, "spec.allocateLoadBalancerNodePorts") != Some(&json!(false));
        let health = needs_health_port(new);
        let given_health = int_at(new, "spec.healthCheckNodePort");
        let path = Path::new("spec");
        let spec = object::child_mut(new, "spec");
        // Port number to node port: one number serves several protocols.
        let mut shared: Vec<(Value, String, u16)> = Vec::new();
        for (i, port) in items_mut(spec, "ports").enumerate() {
            let at = path.child("ports").index(i).child("nodePort");
            let number = port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
            let key = port.get("port").cloned().unwrap_or_default();
            let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned();
            let chosen = if number != 0 {
                self.choose_port(number, &held, taken, &at)?
            } else if wanted {
                let twin = shared.iter().find(|(k, p, _)| *k == key && *p != protocol).map(|(.., n)| *n);
                let number = match twin {
                    Some(number) => number,
                    None => self.free_port(taken, &at)?,
                };
                port.insert("nodePort".into(), number.into());
                number
            } else {
                continue;
            };
            shared.push((key, protocol, chosen));
        }
        if health {
            let at = path.child("healthCheckNodePort");
            let number = match given_health {
                0 => self.free_port(taken, &at)?,
                number => self.choose_port(number, &held, taken, &at)?,
            };
            spec.insert("healthCheckNodePort".into(), number.into());
        }
        Ok(())
    }

    fn choose_port(
        &self,
        number: i64,
        held: &[u16],
        taken: &mut Reservation,
        at: &Path,
    ) -> Result<u16, FieldError> {
        let outside = || {
            let (first, last) = (self.node_ports.start(), self.node_ports.end());
            let why = format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            );
            error::invalid(at, number, why)
        };
        let port = u16::try_from(number).map_err(|_| outside())?;
        if held.contains(&port) || taken.ports.contains(&port) {
            return Ok(port);
        }
        if !self.node_ports.contains(&port) {
            return Err(outside());
        }
        if !self.pools.ports.reserve(port) {
            return Err(error::invalid(at, number, "provided port is already allocated"));
        }
        taken.ports.push(port);
        Ok(port)
    }

    fn free_port(&self, taken: &mut Reservation, at: &Path) -> Result<u16, FieldError> {
        let (first, last) = (u32::from(*self.node_ports.start()), u32::from(*self.node_ports.end()));
        let count = last - first + 1;
        let start = rand::rng().random_range(0..count);
        let candidates = (0..count).filter_map(|i| u16::try_from(first + (start + i) % count).ok());
        let port = candidates.into_iter().find(|port| self.pools.ports.reserve(*port));
        let port = port.ok_or_else(|| error::internal(at, "failed to allocate a nodePort: range is full"))?;
        taken.ports.push(port);
        Ok(port)
    }
}
