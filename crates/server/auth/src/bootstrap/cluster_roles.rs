//! Cluster-wide roles: those of people, of everybody, and of the control plane's and the node's parts.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};

use super::{account, aggregate, cluster_binding, cluster_role, rule, rule_for_names, subject, urls};
use crate::user::groups;

const COORDINATION: &str = "coordination.k8s.io";
const READ: &str = "get list watch";
const CHANGE: &str = "create delete deletecollection patch update";
const ALL: &str = "create delete deletecollection get list patch update watch";
const EVENTS: (&str, &str, &str) = ("create patch update", "core events.k8s.io", "events");

const TO_ADMIN: &str = "rbac.authorization.k8s.io/aggregate-to-admin";
const TO_EDIT: &str = "rbac.authorization.k8s.io/aggregate-to-edit";
const TO_VIEW: &str = "rbac.authorization.k8s.io/aggregate-to-view";

pub fn roles() -> Vec<ClusterRole> {
    let mut roles = people();
    roles.extend(everybody());
    roles.extend(components());
    roles.extend(signers());
    roles.push(cluster_role("system:kube-scheduler", scheduler()));
    roles.push(cluster_role("system:kube-controller-manager", controller_manager()));
    roles.push(cluster_role("system:node", node()));
    roles
}

pub fn bindings() -> Vec<ClusterRoleBinding> {
    let group = |name: &str| subject("Group", name);
    let user = |name: &str| subject("User", name);
    let same = |name: &str, subjects| cluster_binding(name, name, subjects);
    let everybody = || vec![group(groups::AUTHENTICATED)];
    vec![
        same("cluster-admin", vec![group(groups::MASTERS)]),
        // kubeadm's administrators, whose certificates thus work here, too.
        cluster_binding("kubeadm:cluster-admins", "cluster-admin", vec![group("kubeadm:cluster-admins")]),
        same("system:monitoring", vec![group("system:monitoring")]),
        same("system:discovery", everybody()),
        same("system:basic-user", everybody()),
        same("system:public-info-viewer", vec![group(groups::AUTHENTICATED), group(groups::UNAUTHENTICATED)]),
        same("system:node-proxier", vec![user("system:kube-proxy")]),
        same("system:kube-controller-manager", vec![user("system:kube-controller-manager")]),
        same("system:kube-dns", vec![account("kube-system", "kube-dns")]),
        same("system:kube-scheduler", vec![user("system:kube-scheduler")]),
        same("system:volume-scheduler", vec![user("system:kube-scheduler")]),
        // Upstream binds nobody: its node authorizer decides. See the module's documentation.
        same("system:node", vec![group(groups::NODES)]),
        same("system:service-account-issuer-discovery", vec![group(groups::SERVICE_ACCOUNTS)]),
    ]
}

/// `cluster-admin`, and the three that namespaces are shared with.
fn people() -> Vec<ClusterRole> {
    let labelled = |mut role: ClusterRole, label: &str| {
        role.metadata.labels.get_or_insert_default().insert(label.into(), "true".into());
        role
    };
    vec![
        cluster_role("cluster-admin", vec![rule("*", "*", "*"), urls("*", "*")]),
        aggregate("admin", TO_ADMIN),
        labelled(aggregate("edit", TO_EDIT), TO_ADMIN),
        labelled(aggregate("view", TO_VIEW), TO_EDIT),
        labelled(cluster_role("system:aggregate-to-admin", admin()), TO_ADMIN),
        labelled(cluster_role("system:aggregate-to-edit", edit()), TO_EDIT),
        labelled(cluster_role("system:aggregate-to-view", view()), TO_VIEW),
    ]
}

fn admin() -> Vec<PolicyRule> {
    vec![
        rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
        rule(ALL, "rbac.authorization.k8s.io", "rolebindings roles"),
    ]
}

fn edit() -> Vec<PolicyRule> {
    vec![
        rule(READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
        rule("impersonate", "core", "serviceaccounts"),
        rule(CHANGE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
        rule("create", "core", "pods/eviction"),
        rule(
            CHANGE,
            "core",
            "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets \
             serviceaccounts services services/proxy",
        ),
        rule("create", "core", "serviceaccounts/token"),
        rule(
            CHANGE,
            "apps",
            "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale \
             statefulsets statefulsets/scale",
        ),
        rule(CHANGE, "autoscaling", "horizontalpodautoscalers"),
        rule(CHANGE, "batch", "cronjobs jobs"),
        rule(
            CHANGE,
            "extensions",
            "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets \
             replicasets/scale replicationcontrollers/scale",
        ),
        rule(CHANGE, "policy", "poddisruptionbudgets"),
        rule(CHANGE, "networking.k8s.io", "ingresses networkpolicies"),
        rule(ALL, "coordination.k8s.io", "leases"),
        rule(CHANGE, "events.k8s.io", "events"),
        rule(CHANGE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
    ]
}

fn view() -> Vec<PolicyRule> {
    vec![
        rule(
            READ,
            "core",
            "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers \
             replicationcontrollers/scale serviceaccounts services services/status",
        ),
        rule(
            READ,
            "core",
            "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status \
             resourcequotas resourcequotas/status",
        ),
        rule(READ, "core", "namespaces"),
        rule(READ, "events.k8s.io", "events"),
        rule(READ, "discovery.k8s.io", "endpointslices"),
        rule(
            READ,
            "apps",
            "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status \
             replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
        ),
        rule(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
        rule(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
        rule(
            READ,
            "extensions",
            "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses \
             ingresses/status networkpolicies replicasets replicasets/scale replicasets/status \
             replicationcontrollers/scale",
        ),
        rule(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
        rule(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
        rule(READ, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
    ]
}

/// What everybody, or everybody who is known, may do.
fn everybody() -> Vec<ClusterRole> {
    const HEALTH: &str = "/healthz /livez /readyz";
    vec![
        cluster_role(
            "system:discovery",
            vec![urls(
                "get",
                &format!("/api /api/* /apis /apis/* {HEALTH} /openapi /openapi/* /version /version/"),
            )],
        ),
        cluster_role(
            "system:basic-user",
            vec![
                rule("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
                rule("create", "authentication.k8s.io", "selfsubjectreviews"),
            ],
        ),
        cluster_role("system:public-info-viewer", vec![urls("get", &format!("{HEALTH} /version /version/"))]),
        cluster_role(
            "system:monitoring",
            vec![
                urls(
                    "get",
                    "/flagz /healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/* /statusz",
                ),
                rule("get", "core", "nodes/metrics"),
            ],
        ),
        cluster_role(
            "system:service-account-issuer-discovery",
            vec![urls(
                "get",
                "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks \
                /openid/v1/jwks/",
            )],
        ),
    ]
}

/// The smaller parts of a cluster.
fn components() -> Vec<ClusterRole> {
    vec![
        cluster_role("system:auth-delegator", delegation()),
        cluster_role(
            "system:heapster",
            vec![rule(READ, "core", "events namespaces nodes pods"), rule(READ, "extensions", "deployments")],
        ),
        cluster_role("system:kube-aggregator", vec![rule(READ, "core", "endpoints services")]),
        cluster_role("system:kube-dns", vec![rule("list watch", "core", "endpoints services")]),
        cluster_role(
            "system:kubelet-api-admin",
            vec![
                rule("get list watch", "core", "nodes"),
                rule("proxy", "core", "nodes"),
                rule(
                    "*",
                    "core",
                    "nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/stats",
                ),
            ],
        ),
        cluster_role(
            "system:node-bootstrapper",
            vec![rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests")],
        ),
        cluster_role(
            "system:node-problem-detector",
            vec![
                rule("get", "core", "nodes"),
                rule("patch", "core", "nodes/status"),
                rule(EVENTS.0, EVENTS.1, EVENTS.2),
            ],
        ),
        cluster_role(
            "system:node-proxier",
            vec![
                rule("list watch", "core", "endpoints services"),
                rule("get list watch", "core", "nodes"),
                rule(EVENTS.0, EVENTS.1, EVENTS.2),
                rule("list watch", "discovery.k8s.io", "endpointslices"),
                rule("list watch", "networking.k8s.io", "servicecidrs"),
            ],
        ),
        cluster_role(
            "system:persistent-volume-provisioner",
            vec![
                rule("create delete get list watch", "core", "persistentvolumes"),
                rule("get list update watch", "core", "persistentvolumeclaims"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("watch", "core", "events"),
                rule(EVENTS.0, EVENTS.1, EVENTS.2),
            ],
        ),
        cluster_role(
            "system:volume-scheduler",
            vec![
                rule("get list patch update watch", "core", "persistentvolumes"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("get list patch update watch", "core", "persistentvolumeclaims"),
            ],
        ),
    ]
}

/// Who may sign and approve which certificates.
fn signers() -> Vec<ClusterRole> {
    const CERTIFICATES: &str = "certificates.k8s.io";
    let mut roles: Vec<_> = ["nodeclient", "selfnodeclient"]
        .map(|kind| {
            let resource = format!("certificatesigningrequests/{kind}");
            let name = format!("system:{CERTIFICATES}:certificatesigningrequests:{kind}");
            cluster_role(&name, vec![rule("create", CERTIFICATES, &resource)])
        })
        .into();
    let approvers = [
        ("legacy-unknown-approver", "legacy-unknown"),
        ("kube-apiserver-client-approver", "kube-apiserver-client"),
        ("kube-apiserver-client-kubelet-approver", "kube-apiserver-client-kubelet"),
        ("kubelet-serving-approver", "kubelet-serving"),
    ];
    roles.extend(approvers.map(|(name, signer)| {
        let rules =
            vec![rule_for_names("approve", CERTIFICATES, "signers", &format!("kubernetes.io/{signer}"))];
        cluster_role(&format!("system:{CERTIFICATES}:{name}"), rules)
    }));
    roles
}

/// Asking the API server who somebody is and what they may do.
fn delegation() -> Vec<PolicyRule> {
    vec![
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
    ]
}

fn leader(verbs: &str, name: &str) -> Vec<PolicyRule> {
    vec![
        rule(EVENTS.0, EVENTS.1, EVENTS.2),
        rule("create", COORDINATION, "leases"),
        rule_for_names(verbs, COORDINATION, "leases", name),
    ]
}

fn scheduler() -> Vec<PolicyRule> {
    let mut rules = leader("get list update watch", "kube-scheduler");
    rules.extend(delegation());
    rules.extend([
        rule(
            READ,
            "core",
            "namespaces nodes persistentvolumeclaims persistentvolumes replicationcontrollers services",
        ),
        rule("delete get list watch", "core", "pods"),
        rule("create", "core", "bindings pods/binding"),
        rule("patch update", "core", "pods/status"),
        rule(READ, "apps extensions", "replicasets"),
        rule(READ, "apps", "statefulsets"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule(READ, "storage.k8s.io", "csidrivers csinodes csistoragecapacities volumeattachments"),
        rule(READ, "resource.k8s.io", "deviceclasses resourceslices"),
        rule(ALL, COORDINATION, "leasecandidates"),
        rule("update", "core", "pods/finalizers"),
        rule("create delete get list patch update watch", "resource.k8s.io", "resourceclaims"),
        rule("get list patch update watch", "resource.k8s.io", "resourceclaims/status"),
        rule("patch update", "resource.k8s.io", "resourceclaims/binding"),
    ]);
    rules
}

fn controller_manager() -> Vec<PolicyRule> {
    let mut rules = leader("get update", "kube-controller-manager");
    rules.extend(delegation());
    rules.extend([
        rule("create update", "core", "secrets serviceaccounts"),
        rule("delete", "core", "secrets"),
        rule("get", "core", "configmaps namespaces secrets serviceaccounts"),
        rule("list watch", "*", "*"),
        rule("create", "core", "serviceaccounts/token"),
    ]);
    rules
}

/// What upstream's node authorizer allows for a node's own pods, here for all of them.
fn node() -> Vec<PolicyRule> {
    let mut rules = delegation();
    rules.push(rule("create", "authorization.k8s.io", "localsubjectaccessreviews"));
    rules.extend([
        rule(READ, "core", "services"),
        rule("create delete get list patch update watch", "core", "nodes"),
        rule("patch update", "core", "nodes/status"),
        rule("create patch update", "core events.k8s.io", "events"),
        rule("create delete get list watch", "core", "pods"),
        rule("patch update", "core", "pods/status"),
        rule("create", "core", "pods/eviction"),
        rule(READ, "core", "configmaps secrets"),
        rule("get", "core", "persistentvolumeclaims persistentvolumes"),
        rule("get patch update", "core", "persistentvolumeclaims/status"),
        rule("get", "core", "endpoints"),
        rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
        rule(READ, "certificates.k8s.io", "clustertrustbundles"),
        rule("create get list watch", "certificates.k8s.io", "podcertificaterequests"),
        rule("create", "core", "serviceaccounts/token"),
        rule("get", "core", "serviceaccounts"),
        rule("get", "storage.k8s.io", "volumeattachments"),
        rule(READ, "storage.k8s.io", "csidrivers"),
        rule("create delete get patch update", "storage.k8s.io", "csinodes"),
        rule("create delete get patch update", "coordination.k8s.io", "leases"),
        rule(READ, "node.k8s.io", "runtimeclasses"),
        rule(READ, "discovery.k8s.io", "endpointslices"),
        rule("get", "resource.k8s.io", "resourceclaims"),
        rule(
            "create delete deletecollection get list patch update watch",
            "resource.k8s.io",
            "resourceslices",
        ),
    ]);
    rules
}
