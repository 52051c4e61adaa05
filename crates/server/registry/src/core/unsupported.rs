//! What the node cannot do yet. Every such field is refused, never ignored.
//!
//! The list only shrinks: a step that implements a field deletes its line here.

use std::sync::LazyLock;

use serde_json::Value;
use xebec_schema::{FieldError, Path, error};

/// The one value that is refused.
#[derive(Clone, Copy)]
enum Only {
    False,
    Text(&'static str),
}

impl Only {
    fn is(self, value: &Value) -> bool {
        match self {
            Self::False => *value == Value::Bool(false),
            Self::Text(text) => value.as_str() == Some(text),
        }
    }
}

/// A field of a pod's spec that is refused, and what to do instead.
struct Rule {
    /// Where: field names joined by dots, `*` for every item of a list.
    at: &'static str,
    /// Refused only with this value; any value when `None`.
    only: Option<Only>,
    /// Why, and the remedy.
    why: &'static str,
}

const fn rule(at: &'static str, why: &'static str) -> Rule {
    Rule { at, only: None, why }
}

const NO_STORAGE: &str = "is not supported yet: there are no persistent volumes; use emptyDir or hostPath";
const NO_PLUGIN: &str =
    "is not supported: there is no such volume plugin; mount it on the node and use hostPath";
const NO_CLAIMS: &str = "is not supported yet: there is no dynamic resource allocation; remove the field";
const NO_WINDOWS: &str = "is not supported: nodes run Linux; remove the field";

const RULES: &[Rule] = &[
    rule("volumes.*.persistentVolumeClaim", NO_STORAGE),
    rule("volumes.*.ephemeral", NO_STORAGE),
    rule("volumes.*.csi", NO_STORAGE),
    rule("volumes.*.nfs", NO_PLUGIN),
    rule("volumes.*.iscsi", NO_PLUGIN),
    rule("volumes.*.fc", NO_PLUGIN),
    rule("volumes.*.rbd", NO_PLUGIN),
    rule("volumes.*.cephfs", NO_PLUGIN),
    rule("volumes.*.glusterfs", NO_PLUGIN),
    rule("volumes.*.cinder", NO_PLUGIN),
    rule("volumes.*.flexVolume", NO_PLUGIN),
    rule("volumes.*.flocker", NO_PLUGIN),
    rule("volumes.*.gitRepo", NO_PLUGIN),
    rule("volumes.*.quobyte", NO_PLUGIN),
    rule("volumes.*.scaleIO", NO_PLUGIN),
    rule("volumes.*.storageos", NO_PLUGIN),
    rule("volumes.*.portworxVolume", NO_PLUGIN),
    rule("volumes.*.photonPersistentDisk", NO_PLUGIN),
    rule("volumes.*.vsphereVolume", NO_PLUGIN),
    rule("volumes.*.awsElasticBlockStore", NO_PLUGIN),
    rule("volumes.*.gcePersistentDisk", NO_PLUGIN),
    rule("volumes.*.azureDisk", NO_PLUGIN),
    rule("volumes.*.azureFile", NO_PLUGIN),
    rule("volumes.*.image", "is not supported yet: copy the files with an init container into an emptyDir"),
    rule(
        "volumes.*.projected.sources.*.clusterTrustBundle",
        "is not supported yet: put the bundle into a ConfigMap",
    ),
    rule(
        "volumes.*.projected.sources.*.podCertificate",
        "is not supported yet: put the certificate into a Secret",
    ),
    rule("resourceClaims", NO_CLAIMS),
    rule("containers.*.resources.claims", NO_CLAIMS),
    rule("initContainers.*.resources.claims", NO_CLAIMS),
    rule("resources", "is not supported yet: set the resources of the containers"),
    rule("overhead", "is not supported yet: there are no runtime classes; remove the field"),
    rule("runtimeClassName", "is not supported yet: there are no runtime classes; remove the field"),
    rule("schedulingGroup", "is not supported yet: there is no gang scheduling; remove the field"),
    rule("hostnameOverride", "is not supported yet: use hostname and subdomain"),
    Rule {
        at: "hostUsers",
        only: Some(Only::False),
        why: "is not supported yet: pods share the host's user namespace; remove the field or set it to true",
    },
    Rule { at: "os.name", only: Some(Only::Text("windows")), why: NO_WINDOWS },
    rule("securityContext.windowsOptions", NO_WINDOWS),
    rule("containers.*.securityContext.windowsOptions", NO_WINDOWS),
    rule("initContainers.*.securityContext.windowsOptions", NO_WINDOWS),
    rule("containers.*.volumeDevices", "is not supported yet: there are no block volumes; use volumeMounts"),
    rule(
        "initContainers.*.volumeDevices",
        "is not supported yet: there are no block volumes; use volumeMounts",
    ),
    rule(
        "containers.*.env.*.valueFrom.fileKeyRef",
        "is not supported yet: use configMapKeyRef or secretKeyRef",
    ),
    rule(
        "initContainers.*.env.*.valueFrom.fileKeyRef",
        "is not supported yet: use configMapKeyRef or secretKeyRef",
    ),
    rule("containers.*.restartPolicyRules", "is not supported yet: use the restart policy of the pod"),
    rule("initContainers.*.restartPolicyRules", "is not supported yet: use the restart policy of the pod"),
    rule("containers.*.lifecycle.stopSignal", "is not supported yet: use a preStop hook"),
    rule("initContainers.*.lifecycle.stopSignal", "is not supported yet: use a preStop hook"),
    rule("ephemeralContainers", "is not supported yet: use kubectl exec, or a debugging pod of its own"),
];

/// Every field of a pod's spec, given as JSON, that the node cannot honour.
pub(crate) fn validate_pod_spec(spec: &Value, path: &Path) -> Vec<FieldError> {
    static TREE: LazyLock<Tree> = LazyLock::new(|| Tree::of(RULES));
    let mut errors = Vec::new();
    TREE.visit(spec, path, &mut errors);
    errors
}

/// The rules by the fields on the way to them, so that a pod is walked once and only where it has something.
#[derive(Default)]
struct Tree {
    /// About the value itself.
    rules: Vec<&'static Rule>,
    /// About fields of the object.
    fields: Vec<(&'static str, Tree)>,
    /// About every item of the list.
    items: Option<Box<Tree>>,
}

impl Tree {
    fn of(rules: &'static [Rule]) -> Self {
        let mut root = Self::default();
        for rule in rules {
            let end = rule.at.split('.').fold(&mut root, Self::step);
            end.rules.push(rule);
        }
        root
    }

    fn step(&mut self, segment: &'static str) -> &mut Self {
        if segment == "*" {
            return self.items.get_or_insert_default();
        }
        let at = self.fields.iter().position(|(name, _)| *name == segment).unwrap_or_else(|| {
            self.fields.push((segment, Self::default()));
            self.fields.len() - 1
        });
        &mut self.fields[at].1
    }

    fn visit(&self, value: &Value, path: &Path, errors: &mut Vec<FieldError>) {
        let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        for rule in self.rules.iter().filter(|rule| !empty && rule.only.is_none_or(|only| only.is(value))) {
            errors.push(error::forbidden(path, rule.why));
        }
        for (name, tree) in &self.fields {
            if let Some(child) = value.get(name) {
                tree.visit(child, &path.child(*name), errors);
            }
        }
        if let Some(tree) = &self.items {
            for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                tree.visit(item, &path.index(i), errors);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn refused_fields_name_themselves_and_the_remedy() {
        let spec = json!({
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "persistentVolumeClaim": {"claimName": "c"}}],
            "hostUsers": false,
            "resourceClaims": [],
            "os": {"name": "linux"},
        });
        let errors: Vec<String> =
            validate_pod_spec(&spec, &Path::new("spec")).iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                format!("spec.volumes[1].persistentVolumeClaim: Forbidden: {NO_STORAGE}"),
                "spec.hostUsers: Forbidden: is not supported yet: pods share the host's user namespace; remove \
                 the field or set it to true"
                    .to_owned(),
            ]
        );
    }
}
