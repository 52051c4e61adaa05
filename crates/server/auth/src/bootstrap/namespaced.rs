//! Roles in `kube-system` and `kube-public`.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};

use super::{RBAC, account, metadata, rule, rule_for_names, subject};

const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";

pub fn roles() -> Vec<Role> {
    let role = |namespace, name, rules: Vec<PolicyRule>| Role {
        metadata: metadata(name, Some(namespace)),
        rules: Some(rules),
    };
    let leader =
        || vec![rule("create get list update watch", "coordination.k8s.io", "leasecandidates leases")];
    vec![
        role(
            SYSTEM,
            "extension-apiserver-authentication-reader",
            vec![rule_for_names(
                "get list watch",
                "core",
                "configmaps",
                "extension-apiserver-authentication",
            )],
        ),
        role(SYSTEM, "system:controller:bootstrap-signer", vec![rule("get list watch", "core", "secrets")]),
        role(
            SYSTEM,
            "system:controller:cloud-provider",
            vec![rule("create get list watch", "core", "configmaps")],
        ),
        role(
            SYSTEM,
            "system:controller:token-cleaner",
            vec![
                rule("delete get list watch", "core", "secrets"),
                rule("create patch update", "core events.k8s.io", "events"),
            ],
        ),
        role(SYSTEM, "system::leader-locking-kube-controller-manager", leader()),
        role(SYSTEM, "system::leader-locking-kube-scheduler", leader()),
        role(
            PUBLIC,
            "system:controller:bootstrap-signer",
            vec![
                rule("get list watch", "core", "configmaps"),
                rule_for_names("update", "core", "configmaps", "cluster-info"),
                rule("create patch update", "core events.k8s.io", "events"),
            ],
        ),
    ]
}

pub fn bindings() -> Vec<RoleBinding> {
    let binding = |namespace: &str, name: &str, role: &str, subjects: Vec<Subject>| RoleBinding {
        metadata: metadata(name, Some(namespace)),
        role_ref: RoleRef { api_group: Some(RBAC.into()), kind: "Role".into(), name: role.into() },
        subjects: Some(subjects),
    };
    let manager = || subject("User", "system:kube-controller-manager");
    let scheduler = || subject("User", "system:kube-scheduler");
    let own = |namespace, name: &str, subject| {
        let role = format!("system:controller:{name}");
        binding(namespace, &role, &role, vec![subject])
    };
    vec![
        binding(
            SYSTEM,
            "system::extension-apiserver-authentication-reader",
            "extension-apiserver-authentication-reader",
            vec![manager(), scheduler()],
        ),
        binding(
            SYSTEM,
            "system::leader-locking-kube-controller-manager",
            "system::leader-locking-kube-controller-manager",
            vec![manager(), account(SYSTEM, "kube-controller-manager")],
        ),
        binding(
            SYSTEM,
            "system::leader-locking-kube-scheduler",
            "system::leader-locking-kube-scheduler",
            vec![scheduler(), account(SYSTEM, "kube-scheduler")],
        ),
        own(SYSTEM, "bootstrap-signer", account(SYSTEM, "bootstrap-signer")),
        own(SYSTEM, "cloud-provider", account(SYSTEM, "cloud-provider")),
        own(SYSTEM, "token-cleaner", account(SYSTEM, "token-cleaner")),
        own(PUBLIC, "bootstrap-signer", account(SYSTEM, "bootstrap-signer")),
    ]
}
