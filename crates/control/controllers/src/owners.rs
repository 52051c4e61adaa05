//! Who controls whom: controller references, adoption and release.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};
use xebec_reconcile::controller_of;
use xebec_types::LabelSelector;

/// A controller reference to `owner`.
pub fn controller_reference(api_version: &str, kind: &str, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What an owner should do about an object that its selector may match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is the owner's.
    Mine,
    /// Nobody controls it and it matches: take it.
    Adopt,
    /// The owner controls it but it no longer matches: let it go.
    Release,
    /// None of the owner's business.
    Foreign,
}

/// Decides, as upstream's `ControllerRefManager` does.
pub fn claim(owner: &ObjectMeta, selector: &LabelSelector, object: &ObjectMeta) -> Claim {
    let labels = object.labels.as_ref();
    let matches = selector.matches(|key| labels.and_then(|l| l.get(key)).map(String::as_str));
    let (owner_deleted, deleted) = (owner.deletion_timestamp.is_some(), object.deletion_timestamp.is_some());
    match controller_of(object) {
        Some(controller) if Some(&controller.uid) != owner.uid.as_ref() => Claim::Foreign,
        Some(_) if matches => Claim::Mine,
        Some(_) if owner_deleted => Claim::Foreign,
        Some(_) => Claim::Release,
        None if matches && !owner_deleted && !deleted => Claim::Adopt,
        None => Claim::Foreign,
    }
}

/// Strategic merge patch that adds a controller reference. The UID makes it fail on a namesake.
pub fn adopt_patch(reference: &OwnerReference, uid: &str) -> Value {
    json!({"metadata": {"ownerReferences": [reference], "uid": uid}})
}

/// Strategic merge patch that removes the reference to `owner_uid`.
pub fn release_patch(owner_uid: &str, uid: &str) -> Value {
    json!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": owner_uid}], "uid": uid}})
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn meta(value: Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn objects_are_claimed_by_reference_and_labels() {
        let owner = meta(json!({"name": "web", "uid": "u1"}));
        let selector = LabelSelector::from_map([("app", "web")]);
        let reference =
            |uid: &str| json!([{"apiVersion":"v1","kind":"X","name":"x","uid":uid,"controller":true}]);
        let cases = [
            (json!({"labels": {"app": "web"}, "ownerReferences": reference("u1")}), Claim::Mine),
            (json!({"labels": {"app": "no"}, "ownerReferences": reference("u1")}), Claim::Release),
            (json!({"labels": {"app": "web"}, "ownerReferences": reference("u2")}), Claim::Foreign),
            (json!({"labels": {"app": "web"}}), Claim::Adopt),
            (json!({"labels": {"app": "web"}, "deletionTimestamp": "2024-01-01T00:00:00Z"}), Claim::Foreign),
            (json!({}), Claim::Foreign),
        ];
        for (object, wanted) in cases {
            assert_eq!(claim(&owner, &selector, &meta(object.clone())), wanted, "{object}");
        }
    }
}
