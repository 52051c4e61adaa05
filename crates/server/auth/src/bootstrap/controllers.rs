//! What each controller may do, as the service account of its name in `kube-system`.

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::{rule, rule_for_names};

const READ: &str = "get list watch";
const APPROVED: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SIGNED: &str = "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet \
                      kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown";

/// The controllers by the name of their service account, and their rules.
pub fn rules() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let mut all = workloads();
    all.extend(batch_and_scaling());
    all.extend(networking());
    all.extend(storage());
    all.extend(storage_in_use());
    all.extend(housekeeping());
    all.extend(accounts_and_expiry());
    all
}

fn events() -> PolicyRule {
    rule("create patch update", "core events.k8s.io", "events")
}

fn workloads() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "deployment-controller",
            vec![
                rule("get list update watch", "apps extensions", "deployments"),
                rule("update", "apps extensions", "deployments/status"),
                rule("update", "apps extensions", "deployments/finalizers"),
                rule("create delete get list patch update watch", "apps extensions", "replicasets"),
                rule("get list update watch", "core", "pods"),
                events(),
            ],
        ),
        (
            "replicaset-controller",
            vec![
                rule("get list update watch", "apps extensions", "replicasets"),
                rule("update", "apps extensions", "replicasets/status"),
                rule("update", "apps extensions", "replicasets/finalizers"),
                rule("create delete list patch watch", "core", "pods"),
                events(),
            ],
        ),
        (
            "replication-controller",
            vec![
                rule("get list update watch", "core", "replicationcontrollers"),
                rule("update", "core", "replicationcontrollers/status replicationcontrollers/finalizers"),
                rule("create delete list patch watch", "core", "pods"),
                events(),
            ],
        ),
        (
            "daemon-set-controller",
            vec![
                rule(READ, "apps extensions", "daemonsets"),
                rule("update", "apps extensions", "daemonsets/status"),
                rule("update", "apps extensions", "daemonsets/finalizers"),
                rule("list watch", "core", "nodes"),
                rule("create delete list patch watch", "core", "pods"),
                rule("create", "core", "pods/binding"),
                rule("create delete get list patch update watch", "apps", "controllerrevisions"),
                events(),
            ],
        ),
        (
            "statefulset-controller",
            vec![
                rule("list watch", "core", "pods"),
                rule(READ, "apps", "statefulsets"),
                rule("update", "apps", "statefulsets/status statefulsets/finalizers"),
                rule("create delete get patch update", "core", "pods"),
                rule("update", "core", "pods/finalizers"),
                rule("create delete get list patch update watch", "apps", "controllerrevisions"),
                rule("create get list watch", "core", "persistentvolumeclaims"),
                rule("delete update", "core", "persistentvolumeclaims"),
                events(),
            ],
        ),
    ]
}

fn batch_and_scaling() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "job-controller",
            vec![
                rule("get list patch update watch", "batch", "jobs"),
                rule("update", "batch", "jobs/status jobs/finalizers"),
                rule("create delete list patch watch", "core", "pods"),
                events(),
            ],
        ),
        (
            "cronjob-controller",
            vec![
                rule("get list update watch", "batch", "cronjobs"),
                rule("create delete get list patch update watch", "batch", "jobs"),
                rule("update", "batch", "cronjobs/status cronjobs/finalizers"),
                rule("delete list watch", "core", "pods"),
                events(),
            ],
        ),
        (
            "horizontal-pod-autoscaler",
            vec![
                rule(READ, "autoscaling", "horizontalpodautoscalers"),
                rule("update", "autoscaling", "horizontalpodautoscalers/status"),
                rule("get update", "*", "*/scale"),
                rule("list watch", "core", "pods"),
                rule("list watch", "metrics.k8s.io", "pods"),
                rule(READ, "custom.metrics.k8s.io external.metrics.k8s.io", "*"),
                events(),
            ],
        ),
        (
            "disruption-controller",
            vec![
                rule(READ, "apps extensions", "deployments replicasets"),
                rule(READ, "core", "replicationcontrollers"),
                rule(READ, "apps", "statefulsets"),
                rule(READ, "policy", "poddisruptionbudgets"),
                rule("update", "policy", "poddisruptionbudgets/status"),
                rule("patch update", "core", "pods/status"),
                rule("get", "*", "*/scale"),
                events(),
            ],
        ),
    ]
}

fn networking() -> Vec<(&'static str, Vec<PolicyRule>)> {
    const SLICES: &str = "create delete get list update watch";
    vec![
        (
            "endpoint-controller",
            vec![
                rule(READ, "core", "pods services"),
                rule("create delete get list update watch", "core", "endpoints"),
                rule("create", "core", "endpoints/restricted"),
                events(),
            ],
        ),
        (
            "endpointslice-controller",
            vec![
                rule(READ, "core", "nodes pods services"),
                rule("update", "core", "services/finalizers"),
                rule(SLICES, "discovery.k8s.io", "endpointslices"),
                rule("create", "discovery.k8s.io", "endpointslices/restricted"),
                events(),
            ],
        ),
        (
            "endpointslicemirroring-controller",
            vec![
                rule(READ, "core", "endpoints services"),
                rule("update", "core", "services/finalizers"),
                rule("update", "core", "endpoints/finalizers"),
                rule(SLICES, "discovery.k8s.io", "endpointslices"),
                rule("create", "discovery.k8s.io", "endpointslices/restricted"),
                events(),
            ],
        ),
        (
            "service-controller",
            vec![
                rule(READ, "core", "services"),
                rule("patch update", "core", "services/status"),
                rule("list watch", "core", "nodes"),
                events(),
            ],
        ),
        (
            "service-cidrs-controller",
            vec![
                rule("get list patch update watch", "networking.k8s.io", "servicecidrs"),
                rule("patch update", "networking.k8s.io", "servicecidrs/finalizers servicecidrs/status"),
                rule(READ, "networking.k8s.io", "ipaddresses"),
                events(),
            ],
        ),
        (
            "route-controller",
            vec![rule("list watch", "core", "nodes"), rule("patch", "core", "nodes/status"), events()],
        ),
    ]
}

fn storage() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "attachdetach-controller",
            vec![
                rule("list watch", "core", "persistentvolumeclaims persistentvolumes pods"),
                rule(READ, "core", "nodes"),
                rule("patch update", "core", "nodes/status"),
                rule(READ, "storage.k8s.io", "csidrivers csinodes"),
                rule("create delete get list watch", "storage.k8s.io", "volumeattachments"),
                events(),
            ],
        ),
        (
            "ephemeral-volume-controller",
            vec![
                rule(READ, "core", "pods"),
                rule("update", "core", "pods/finalizers"),
                rule("create get list watch", "core", "persistentvolumeclaims"),
                events(),
            ],
        ),
        (
            "expand-controller",
            vec![
                rule("get list patch update watch", "core", "persistentvolumes"),
                rule("patch update", "core", "persistentvolumeclaims/status"),
                rule(READ, "core", "persistentvolumeclaims"),
                events(),
            ],
        ),
        (
            "persistent-volume-binder",
            vec![
                rule("create delete get list update watch", "core", "persistentvolumes"),
                rule("update", "core", "persistentvolumes/status"),
                rule("get list update watch", "core", "persistentvolumeclaims"),
                rule("update", "core", "persistentvolumeclaims/status"),
                rule("create delete get list watch", "core", "pods"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("list watch", "core", "nodes"),
                rule("watch", "core", "events"),
                events(),
            ],
        ),
    ]
}

fn storage_in_use() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "pv-protection-controller",
            vec![rule("get list update watch", "core", "persistentvolumes"), events()],
        ),
        (
            "pvc-protection-controller",
            vec![
                rule("get list update watch", "core", "persistentvolumeclaims"),
                rule("update", "core", "persistentvolumeclaims/status"),
                rule(READ, "core", "pods"),
                events(),
            ],
        ),
        (
            "selinux-warning-controller",
            vec![
                events(),
                rule(READ, "core", "persistentvolumeclaims persistentvolumes pods"),
                rule(READ, "storage.k8s.io", "csidrivers"),
            ],
        ),
        (
            "volumeattributesclass-protection-controller",
            vec![
                rule(READ, "core", "persistentvolumeclaims persistentvolumes"),
                rule("get list update watch", "storage.k8s.io", "volumeattributesclasses"),
                events(),
            ],
        ),
    ]
}

fn housekeeping() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "clusterrole-aggregation-controller",
            vec![rule("escalate get list patch update watch", "rbac.authorization.k8s.io", "clusterroles")],
        ),
        // Both look after kinds that nobody knows beforehand.
        ("generic-garbage-collector", vec![rule("delete get list patch update watch", "*", "*"), events()]),
        (
            "namespace-controller",
            vec![
                rule("delete get list watch", "core", "namespaces"),
                rule("update", "core", "namespaces/finalize namespaces/status"),
                rule("delete deletecollection get list watch", "*", "*"),
            ],
        ),
        (
            "node-controller",
            vec![
                rule("delete get list patch update", "core", "nodes"),
                rule("patch update", "core", "nodes/status"),
                rule("patch update", "core", "pods/status"),
                rule("delete list get watch", "core", "pods"),
                rule("watch", "core", "nodes"),
                rule(READ, "coordination.k8s.io", "leases"),
                events(),
            ],
        ),
        (
            "device-taint-eviction-controller",
            vec![
                rule("delete get list watch", "core", "pods"),
                rule("patch update", "core", "pods/status"),
                rule(READ, "resource.k8s.io", "deviceclasses resourceclaims resourceslices"),
                events(),
            ],
        ),
        (
            "resource-claim-controller",
            vec![
                rule(READ, "core", "pods"),
                rule("update", "core", "pods/finalizers"),
                rule("create delete get list watch", "resource.k8s.io", "resourceclaims"),
                rule("patch update", "resource.k8s.io", "resourceclaims resourceclaims/status"),
                rule("patch update", "core", "pods/status"),
                events(),
                rule("patch update", "resource.k8s.io", "resourceclaims/binding"),
            ],
        ),
        (
            "pod-garbage-collector",
            vec![
                rule("delete list watch", "core", "pods"),
                rule(READ, "core", "nodes"),
                rule("patch", "core", "pods/status"),
            ],
        ),
        (
            "resourcequota-controller",
            vec![rule("list watch", "*", "*"), rule("update", "core", "resourcequotas/status"), events()],
        ),
    ]
}

fn accounts_and_expiry() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "root-ca-cert-publisher",
            vec![
                rule("create update", "core", "configmaps"),
                rule("get list watch", "core", "configmaps namespaces"),
                events(),
            ],
        ),
        (
            "service-account-controller",
            vec![
                rule("create", "core", "serviceaccounts"),
                rule("get list watch", "core", "namespaces serviceaccounts"),
                events(),
            ],
        ),
        (
            "legacy-service-account-token-cleaner",
            vec![
                rule_for_names(
                    "get",
                    "core",
                    "configmaps",
                    "kube-apiserver-legacy-service-account-token-tracking",
                ),
                rule("delete patch", "core", "secrets"),
            ],
        ),
        ("ttl-controller", vec![rule("list patch update watch", "core", "nodes"), events()]),
        ("ttl-after-finished-controller", vec![rule("delete get list watch", "batch", "jobs"), events()]),
        (
            "certificate-controller",
            vec![
                rule("delete get list watch", "certificates.k8s.io", "certificatesigningrequests"),
                rule(
                    "update",
                    "certificates.k8s.io",
                    "certificatesigningrequests/approval certificatesigningrequests/status",
                ),
                rule_for_names("approve", "certificates.k8s.io", "signers", APPROVED),
                rule_for_names("sign", "certificates.k8s.io", "signers", SIGNED),
                rule("create", "authorization.k8s.io", "subjectaccessreviews"),
                events(),
            ],
        ),
        (
            "validatingadmissionpolicy-status-controller",
            vec![
                rule(READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
                rule(
                    "get patch update",
                    "admissionregistration.k8s.io",
                    "validatingadmissionpolicies/status",
                ),
                events(),
            ],
        ),
    ]
}
