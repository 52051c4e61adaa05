//! Strategic merge patch: cases and laws.

#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use serde_json::{Value, json};
use xebec_patch::{json_patch, merge_patch, strategic_merge, three_way, three_way_json, two_way};
use xebec_schema::builtin;

fn pod_spec(original: Value, patch: Value) -> Result<Value, String> {
    let schema = builtin("", "v1", "Pod").unwrap();
    let mut pod = json!({"spec": original});
    strategic_merge(&mut pod, &json!({"spec": patch}), &schema).map_err(|e| e.to_string())?;
    Ok(pod["spec"].take())
}

#[track_caller]
fn check(original: Value, patch: Value, expected: Value) {
    assert_eq!(pod_spec(original, patch).unwrap(), expected);
}

#[test]
fn maps_and_scalars() {
    check(
        json!({"hostname": "a", "nodeName": "n"}),
        json!({"hostname": "b"}),
        json!({"hostname": "b", "nodeName": "n"}),
    );
    check(json!({"hostname": "a"}), json!({"hostname": null, "subdomain": null}), json!({}));
    check(
        json!({"nodeSelector": {"a": "1", "b": "2"}}),
        json!({"nodeSelector": {"a": null, "c": "3"}}),
        json!({"nodeSelector": {"b": "2", "c": "3"}}),
    );
    check(
        json!({"nodeSelector": {"a": "1"}}),
        json!({"nodeSelector": {"$patch": "replace", "b": "2"}}),
        json!({"nodeSelector": {"b": "2"}}),
    );
    check(
        json!({"nodeSelector": {"a": "1"}}),
        json!({"nodeSelector": {"$patch": "delete"}}),
        json!({"nodeSelector": {}}),
    );
    let error = pod_spec(json!({"nodeSelector": {}}), json!({"nodeSelector": {"$patch": "x"}})).unwrap_err();
    assert_eq!(error, "unknown patch type found: x in map");
}

#[test]
fn lists_of_objects_merge_by_key() {
    let two = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]});
    check(
        two.clone(),
        json!({"containers": [{"name": "b", "image": "2"}]}),
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
    );
    check(
        two.clone(),
        json!({"containers": [{"name": "c", "image": "3", "env": null}]}),
        // As upstream: what nobody ordered comes before what only the server knows.
        json!({"containers": [{"name": "c", "image": "3"}, {"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}),
    );
    check(
        two.clone(),
        json!({"containers": [{"name": "a", "$patch": "delete"}, {"name": "z", "$patch": "delete"}]}),
        json!({"containers": [{"name": "b", "image": "1"}]}),
    );
    check(
        two.clone(),
        json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
        json!({"containers": [{"name": "c"}]}),
    );
    let error = pod_spec(two, json!({"containers": [{"image": "2"}]})).unwrap_err();
    assert_eq!(error, r#"map: {"image":"2"} does not contain declared merge key: name"#);
}

#[test]
fn atomic_lists_are_replaced() {
    check(
        json!({"containers": [{"name": "a", "args": ["1", "2"]}]}),
        json!({"containers": [{"name": "a", "args": ["3"]}]}),
        json!({"containers": [{"name": "a", "args": ["3"]}]}),
    );
    check(
        json!({"tolerations": [{"key": "a"}]}),
        json!({"tolerations": [{"key": "b"}]}),
        json!({"tolerations": [{"key": "b"}]}),
    );
}

#[test]
fn order_directives_place_items() {
    let names = |names: &[&str]| -> Value { names.iter().map(|n| json!({"name": n})).collect() };
    check(
        json!({"containers": names(&["a", "b", "c"])}),
        json!({"$setElementOrder/containers": names(&["c", "a"])}),
        json!({"containers": names(&["b", "c", "a"])}),
    );
    check(
        json!({"containers": names(&["a", "other", "b"])}),
        json!({"$setElementOrder/containers": names(&["n", "b", "a"]), "containers": names(&["n"])}),
        json!({"containers": names(&["n", "other", "b", "a"])}),
    );
    let error = pod_spec(
        json!({"containers": []}),
        json!({"$setElementOrder/containers": names(&["a", "b"]), "containers": names(&["b", "a"])}),
    );
    assert!(error.unwrap_err().contains("doesn't match its $setElementOrder list"));
}

#[test]
fn primitive_lists_and_retained_keys() {
    let schema = builtin("", "v1", "Pod").unwrap();
    let mut pod = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["d", "a"],
        "$setElementOrder/finalizers": ["d", "a"]}});
    strategic_merge(&mut pod, &patch, &schema).unwrap();
    assert_eq!(pod, json!({"metadata": {"finalizers": ["d", "a", "c"]}}));
    check(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
    );
    let error = pod_spec(
        json!({"volumes": [{"name": "v"}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name"], "hostPath": {}}]}),
    );
    assert!(error.unwrap_err().contains("$retainKeys"));
}

#[test]
fn what_is_new_carries_no_directives() {
    check(
        json!({}),
        json!({"containers": [{"name": "a", "env": [{"name": "x", "$patch": "delete"}, {"name": "y", "value": null}],
            "$setElementOrder/env": [{"name": "y"}]}], "$setElementOrder/containers": [{"name": "a"}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "y"}]}]}),
    );
}

#[test]
fn three_way_keeps_what_others_added() {
    let schema = builtin("apps", "v1", "Deployment").unwrap();
    let original = json!({"metadata": {"labels": {"a": "1", "old": "1"}}, "spec": {"replicas": 1, "template": {"spec":
        {"containers": [{"name": "web", "image": "1"}, {"name": "gone"}]}}}});
    let modified = json!({"metadata": {"labels": {"a": "2"}}, "spec": {"strategy": {"type": "Recreate"}, "template":
        {"spec": {"containers": [{"name": "web", "image": "2"}, {"name": "new"}]}}}});
    let current = json!({"metadata": {"labels": {"a": "1", "old": "1", "theirs": "1"}}, "spec": {"replicas": 5,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, "template": {"spec": {
        "dnsPolicy": "x", "containers": [{"name": "web", "image": "1", "imagePullPolicy": "Always"}, {"name": "gone"},
        {"name": "sidecar"}]}}}});
    let patch = three_way(&original, &modified, &current, &schema);
    assert_eq!(
        patch,
        json!({"metadata": {"labels": {"a": "2", "old": null}}, "spec": {"replicas": null,
            "strategy": {"type": "Recreate", "$retainKeys": ["type"]}, "template": {"spec": {
            "$setElementOrder/containers": [{"name": "web"}, {"name": "new"}],
            "containers": [{"name": "web", "image": "2"}, {"name": "new"}, {"name": "gone", "$patch": "delete"}]}}}})
    );
    let mut result = current;
    strategic_merge(&mut result, &patch, &schema).unwrap();
    assert_eq!(
        result,
        json!({"metadata": {"labels": {"a": "2", "theirs": "1"}}, "spec": {"strategy": {"type": "Recreate"},
            "template": {"spec": {"dnsPolicy": "x", "containers": [
            {"name": "web", "image": "2", "imagePullPolicy": "Always"}, {"name": "new"}, {"name": "sidecar"}]}}}})
    );
    assert_eq!(three_way(&modified, &modified, &modified, &schema), json!({}));
}

#[test]
fn three_way_without_merge_rules_is_a_merge_patch() {
    let patch = three_way_json(
        &json!({"a": 1, "b": 1}),
        &json!({"a": 2, "l": [1]}),
        &json!({"a": 1, "b": 1, "c": 1}),
    );
    assert_eq!(patch, json!({"a": 2, "b": null, "l": [1]}));
}

#[test]
fn json_patches() {
    let mut value = json!({"a": [1, 2]});
    json_patch(
        &mut value,
        br#"[{"op":"add","path":"/a/-","value":3},{"op":"test","path":"/a/0","value":1}]"#,
    )
    .unwrap();
    assert_eq!(value, json!({"a": [1, 2, 3]}));
    let before = value.clone();
    let half = br#"[{"op":"remove","path":"/a/0"},{"op":"remove","path":"/b"}]"#;
    assert!(json_patch(&mut value, half).is_err());
    assert_eq!(value, before, "a failed patch changes nothing");
    let many: Value = (0..10_001).map(|_| json!({"op": "test", "path": "/a/0", "value": 1})).collect();
    assert_eq!(
        json_patch(&mut value, many.to_string().as_bytes()).unwrap_err().to_string(),
        "The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
    assert!(json_patch(&mut value, b"{}").is_err());
}

fn names() -> impl Strategy<Value = Vec<String>> {
    Just(["a", "b", "c", "d", "e", "f"].map(str::to_owned).to_vec())
        .prop_shuffle()
        .prop_flat_map(|names| (0..=names.len()).prop_map(move |n| names[..n].to_vec()))
}

fn object() -> impl Strategy<Value = Value> {
    let scalar = proptest::option::of(0..3i32);
    let container = (names(), scalar.clone());
    (names(), proptest::collection::vec(container, 6), names(), names(), scalar).prop_map(
        |(containers, bodies, finalizers, labels, grace)| {
            let list: Vec<Value> = containers
                .iter()
                .zip(bodies)
                .map(|(name, (env, image))| {
                    let env: Vec<Value> = env.iter().map(|n| json!({"name": n})).collect();
                    let mut container = json!({"name": name, "env": env});
                    if let Some(image) = image {
                        container["image"] = json!(image.to_string());
                    }
                    container
                })
                .collect();
            let labels: serde_json::Map<_, _> = labels.into_iter().map(|l| (l, json!("x"))).collect();
            let mut pod = json!({"metadata": {"finalizers": finalizers, "labels": labels},
                "spec": {"containers": list}});
            if let Some(grace) = grace {
                pod["spec"]["terminationGracePeriodSeconds"] = json!(grace);
            }
            pod
        },
    )
}

proptest! {
    #[test]
    fn the_patch_between_two_objects_leads_from_one_to_the_other(from in object(), to in object()) {
        let schema = builtin("", "v1", "Pod").unwrap();
        let patch = two_way(&from, &to, &schema);
        let mut result = from.clone();
        strategic_merge(&mut result, &patch, &schema).unwrap();
        prop_assert_eq!(&result, &to, "patch {}", patch);
        prop_assert_eq!(two_way(&result, &to, &schema), json!({}));
    }

    #[test]
    fn applying_twice_is_applying_once(from in object(), original in object(), to in object()) {
        let schema = builtin("", "v1", "Pod").unwrap();
        let patch = three_way(&original, &to, &from, &schema);
        let mut once = from;
        strategic_merge(&mut once, &patch, &schema).unwrap();
        let mut twice = once.clone();
        strategic_merge(&mut twice, &patch, &schema).unwrap();
        prop_assert_eq!(&twice, &once);
        prop_assert_eq!(three_way(&to, &to, &once, &schema), json!({}), "nothing is left to do");
    }

    #[test]
    fn merge_patches_lead_from_one_object_to_the_other(from in object(), to in object()) {
        let mut result = from.clone();
        merge_patch(&mut result, &three_way_json(&from, &to, &from));
        prop_assert_eq!(result, to);
    }
}
