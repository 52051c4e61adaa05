//! What the scheduler needs to know of a pod, read once.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelectorTerm, Pod, PodAffinityTerm, PodSpec, PreferredSchedulingTerm, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;
use kube::ResourceExt;
use xebec_reconcile::Key;
use xebec_types::LabelSelector;

use crate::node::Labels;
use crate::resources::{self, Resources, Weight};

/// A port of the node that a pod takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Address; `0.0.0.0` is all of them.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Number.
    pub port: i32,
}

/// One term of an inter-pod affinity or anti-affinity.
#[derive(Debug, Clone)]
pub struct Term {
    namespaces: BTreeSet<String>,
    namespace_selector: LabelSelector,
    selector: LabelSelector,
    /// The label that makes nodes one domain.
    pub topology_key: String,
}

impl Term {
    /// Whether it means a pod with these labels in a namespace with those.
    pub fn matches(&self, namespace: &str, namespace_labels: Option<&Labels>, labels: &Labels) -> bool {
        let named = self.namespaces.contains(namespace);
        let selected = || {
            namespace_labels
                .map_or(self.namespace_selector.is_everything(), |l| self.namespace_selector.matches_map(l))
        };
        (named || selected()) && self.selector.matches_map(labels)
    }
}

/// A term with its weight in scores; anti-affinity has a negative one.
#[derive(Debug, Clone)]
pub struct WeightedTerm {
    /// -100 to 100.
    pub weight: i64,
    /// What it is about.
    pub term: Term,
}

/// A topology spread constraint.
#[derive(Debug, Clone)]
pub struct Spread {
    /// The label that makes nodes one domain.
    pub topology_key: String,
    /// How far a domain may be above the smallest.
    pub max_skew: i64,
    /// Fewer domains count as if there were an empty one.
    pub min_domains: usize,
    /// `DoNotSchedule` rather than `ScheduleAnyway`.
    pub hard: bool,
    /// The pods that are counted: all of these must match.
    pub selectors: Vec<LabelSelector>,
    /// Whether nodes that the pod's node affinity excludes are left out.
    pub honor_affinity: bool,
    /// Whether nodes with taints that the pod does not tolerate are left out.
    pub honor_taints: bool,
}

/// A pod, parsed. It does not change; a changed pod is a new one.
#[derive(Debug)]
pub struct PodInfo {
    /// The pod as the API has it, while it waits for a node. Of a pod that has one nothing else is asked than what
    /// stands below, and keeping it would keep an old form: changes of its status are not read.
    object: Option<Arc<Pod>>,
    uid: String,
    node: Option<String>,
    /// Namespace and name.
    pub key: Key,
    /// Labels.
    pub labels: Labels,
    /// `spec.priority`.
    pub priority: i32,
    /// What must fit on the node.
    pub requests: Resources,
    /// What scores count with.
    pub weight: Weight,
    /// Ports of the node.
    pub ports: Vec<HostPort>,
    /// Required affinity.
    pub affinity: Vec<Term>,
    /// Required anti-affinity.
    pub anti_affinity: Vec<Term>,
    /// Preferred affinity and, with negative weights, anti-affinity.
    pub preferred: Vec<WeightedTerm>,
    /// Topology spread constraints of its own.
    pub spread: Vec<Spread>,
    /// Names of its images, normalized as nodes report them.
    pub images: Vec<String>,
    /// Whether it is being deleted.
    pub terminating: bool,
    finished: bool,
}

impl PodInfo {
    /// Reads a pod.
    pub fn new(pod: Arc<Pod>) -> Self {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let namespace = pod.namespace().unwrap_or_default();
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let none = Affinity::default();
        let affinity = spec.affinity.as_ref().unwrap_or(&none);
        let term = |t: &PodAffinityTerm| term(t, &namespace, &labels);
        let (near, apart) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
        let mut preferred = Vec::new();
        let likes = near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        for like in likes.into_iter().flatten() {
            preferred
                .push(WeightedTerm { weight: i64::from(like.weight), term: term(&like.pod_affinity_term) });
        }
        let dislikes = apart.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        for dislike in dislikes.into_iter().flatten() {
            preferred.push(WeightedTerm {
                weight: -i64::from(dislike.weight),
                term: term(&dislike.pod_affinity_term),
            });
        }
        let required = near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let forbidden = apart.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let node = spec.node_name.clone().filter(|name| !name.is_empty());
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        Self {
            key: Key::of(pod.as_ref()),
            priority: spec.priority.unwrap_or(0),
            requests: resources::requests(&pod),
            weight: resources::weight(&pod),
            ports: host_ports(spec),
            affinity: required.into_iter().flatten().map(term).collect(),
            anti_affinity: forbidden.into_iter().flatten().map(term).collect(),
            preferred,
            spread: spread(spec, &labels),
            images: images(spec),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            labels,
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            object: node.is_none().then_some(pod),
            node,
        }
    }

    /// The pod as the API has it; `None`: it has a node.
    pub fn object(&self) -> Option<&Arc<Pod>> {
        self.object.as_ref()
    }

    /// Its specification, while it waits for a node.
    pub fn spec(&self) -> Option<&PodSpec> {
        self.object.as_ref()?.spec.as_ref()
    }

    /// The node it is bound to.
    pub fn node_name(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Whether all its containers have ended for good.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether something other than the scheduler must let it go first (KEP-3521).
    pub fn is_gated(&self) -> bool {
        self.spec().and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty())
    }

    /// Its tolerations.
    pub fn tolerations(&self) -> &[Toleration] {
        self.spec().and_then(|s| s.tolerations.as_deref()).unwrap_or(&[])
    }

    /// Required node affinity terms; `None` when any node will do.
    pub fn node_terms(&self) -> Option<&[NodeSelectorTerm]> {
        let affinity = self.spec()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        Some(&required.node_selector_terms)
    }

    /// Preferred node affinity.
    pub fn preferred_nodes(&self) -> &[PreferredSchedulingTerm] {
        let affinity = self.spec().and_then(|s| s.affinity.as_ref()?.node_affinity.as_ref());
        affinity
            .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref())
            .unwrap_or(&[])
    }

    /// Whether other pods' placement matters to it or its placement to others, beyond resources.
    pub fn has_pod_terms(&self) -> bool {
        !(self.affinity.is_empty() && self.anti_affinity.is_empty() && self.preferred.is_empty())
    }
}

fn term(term: &PodAffinityTerm, own_namespace: &str, labels: &Labels) -> Term {
    let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces.insert(own_namespace.to_owned());
    }
    let selector = narrowed(
        term.label_selector.as_ref(),
        labels,
        term.match_label_keys.as_deref(),
        term.mismatch_label_keys.as_deref(),
    );
    Term {
        namespaces,
        namespace_selector: structured(term.namespace_selector.as_ref()),
        selector,
        topology_key: term.topology_key.clone(),
    }
}

/// Missing selects nothing; so does what does not parse, which the API server refuses.
fn structured(selector: Option<&metav1::LabelSelector>) -> LabelSelector {
    selector
        .and_then(|selector| LabelSelector::from_structured(selector).ok())
        .unwrap_or_else(LabelSelector::nothing)
}

/// A selector narrowed by the pod's own values (KEP-3243, KEP-3633). The API server may have done so already:
/// doing it again changes nothing.
fn narrowed(
    selector: Option<&metav1::LabelSelector>,
    labels: &Labels,
    same: Option<&[String]>,
    other: Option<&[String]>,
) -> LabelSelector {
    let Some(selector) = selector else { return LabelSelector::nothing() };
    let mut selector = selector.clone();
    for (keys, operator) in [(same, "In"), (other, "NotIn")] {
        for key in keys.into_iter().flatten() {
            let Some(value) = labels.get(key) else { continue };
            selector.match_expressions.get_or_insert_default().push(metav1::LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.to_owned(),
                values: Some(vec![value.clone()]),
            });
        }
    }
    structured(Some(&selector))
}

fn spread(spec: &PodSpec, labels: &Labels) -> Vec<Spread> {
    let constraints = spec.topology_spread_constraints.iter().flatten();
    constraints
        .map(|c| Spread {
            topology_key: c.topology_key.clone(),
            max_skew: i64::from(c.max_skew),
            min_domains: c.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            hard: c.when_unsatisfiable == "DoNotSchedule",
            selectors: vec![narrowed(c.label_selector.as_ref(), labels, c.match_label_keys.as_deref(), None)],
            honor_affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: c.node_taints_policy.as_deref() == Some("Honor"),
        })
        .collect()
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| resources::is_sidecar(c));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(HostPort {
                ip: port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        })
        .collect()
}

fn images(spec: &PodSpec) -> Vec<String> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.filter_map(|c| c.image.as_deref()).map(normalized_image).collect()
}

/// Node status lists images with a tag: a name without one means `latest`.
fn normalized_image(name: &str) -> String {
    match name.rfind(':') {
        Some(colon) if name.rfind('/').is_none_or(|slash| colon > slash) => name.to_owned(),
        _ => format!("{name}:latest"),
    }
}
