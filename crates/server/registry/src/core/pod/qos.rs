//! The quality-of-service class of a pod, from the requests and limits of its containers.

use std::collections::BTreeMap;

use serde_json::Value;
use xebec_types::{Quantity, object};

use crate::cells::list_at;

/// The resources that count.
const COUNTED: [&str; 2] = ["cpu", "memory"];

/// `Guaranteed`, `Burstable` or `BestEffort` for a pod given as JSON.
///
/// Guaranteed: every container limits CPU and memory, and requests as much. BestEffort: nobody asks for anything.
pub fn qos_class(pod: &Value) -> &'static str {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut all_limited = true;
    let lists = ["spec.containers", "spec.initContainers"];
    for container in lists.iter().flat_map(|list| list_at(pod, list)) {
        sum(object::at(container, "resources.requests"), &mut requests);
        let limited = sum(object::at(container, "resources.limits"), &mut limits);
        all_limited &= limited == COUNTED.len();
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let equal = requests.len() == limits.len()
        && requests.iter().all(|(name, value)| limits.get(name) == Some(value));
    if all_limited && equal { "Guaranteed" } else { "Burstable" }
}

/// Adds the counted amounts above zero; answers how many there were.
fn sum(list: Option<&Value>, total: &mut BTreeMap<&'static str, Quantity>) -> usize {
    let mut found = 0;
    for name in COUNTED {
        let text = list.and_then(|l| l.get(name)).and_then(Value::as_str).unwrap_or("0");
        let Ok(quantity) = text.parse::<Quantity>() else { continue };
        if !quantity.is_zero() {
            found += 1;
            let slot = total.entry(name).or_insert(Quantity::ZERO);
            *slot = slot.plus(&quantity);
        }
    }
    found
}
