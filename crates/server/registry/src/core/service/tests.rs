#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use crate::tests::{context, create, create_with};
use crate::{RegistryConfig, Resource, SubresourceName};

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "s"}, "spec": spec})
}

fn dual() -> Resource {
    let ranges = ["10.96.0.0/24", "fd00::/112"].map(|r| r.parse().unwrap());
    super::resource(&RegistryConfig { service_cidrs: ranges.into(), node_ports: 30000..=30003 })
}

fn updated(resource: &Resource, old: &Value, new: Value) -> Result<Value, Vec<String>> {
    let texts =
        |errors: Vec<xebec_schema::FieldError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    let cx = context(SubresourceName::Main);
    let mut new = new;
    let schema = &resource.storage_version().schema;
    xebec_schema::default(&mut new, schema, &crate::type_defaults());
    new["status"] = old["status"].clone();
    resource.strategy.prepare_update(&cx, &mut new, old);
    let allocation = resource.strategy.allocate(&cx, Some(&mut new), Some(old)).map_err(texts)?;
    let errors = resource.strategy.validate_update(&cx, &new, old);
    if !errors.is_empty() {
        return Err(texts(errors));
    }
    resource.strategy.observed(Some(old), Some(&new));
    if let Some(allocation) = allocation {
        allocation.keep();
    }
    Ok(new)
}

#[test]
fn a_minimal_service_gets_upstreams_defaults() {
    let stored =
        create("Service", service(json!({"selector": {"a": "b"}, "ports": [{"port": 80}]}))).unwrap();
    let ip = stored["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(ip.starts_with("10.96."), "{ip}");
    let expected = json!({
        "metadata": {"name": "s"},
        "spec": {
            "selector": {"a": "b"},
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "clusterIP": ip,
            "clusterIPs": [ip],
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
        },
        "status": {"loadBalancer": {}},
    });
    assert_eq!(stored, expected);
}

#[test]
fn headless_and_external_services_take_no_address() {
    let headless = json!({"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 80}]});
    let stored = create("Service", service(headless)).unwrap();
    assert_eq!(stored["spec"]["clusterIPs"], json!(["None"]));
    let external =
        create("Service", service(json!({"type": "ExternalName", "externalName": "a.b"}))).unwrap();
    assert!(external["spec"].get("clusterIPs").is_none() && external["spec"].get("ipFamilies").is_none());
}

#[test]
fn addresses_are_taken_once_and_given_back() {
    let resource = dual();
    let wanted = service(json!({"clusterIP": "10.96.0.10", "ports": [{"port": 53}]}));
    let first = create_with(&resource, wanted.clone()).unwrap();
    let text = "spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: provided IP is \
                already allocated";
    assert_eq!(create_with(&resource, wanted.clone()).unwrap_err(), [text]);
    resource.strategy.observed(Some(&first), None);
    assert!(create_with(&resource, wanted).is_ok());
    let outside = service(json!({"clusterIP": "10.97.0.1", "ports": [{"port": 53}]}));
    assert!(
        create_with(&resource, outside).unwrap_err()[0].ends_with("does not match the current range"),
        "outside of the range"
    );
}

#[test]
fn node_ports_run_out_and_follow_the_type() {
    let resource = dual();
    let node = |port: i64| service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}));
    let first = create_with(&resource, node(30000)).unwrap();
    assert_eq!(first["spec"]["externalTrafficPolicy"], "Cluster");
    let text = "spec.ports[0].nodePort: Invalid value: 30000: provided port is already allocated";
    assert_eq!(create_with(&resource, node(30000)).unwrap_err(), [text]);
    let text = "spec.ports[0].nodePort: Invalid value: 1: provided port is not in the valid range. The range of valid \
                ports is 30000-30003";
    assert_eq!(create_with(&resource, node(1)).unwrap_err(), [text]);
    for _ in 0..3 {
        let any = service(json!({"type": "NodePort", "ports": [
            {"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"},
        ]}));
        let stored = create_with(&resource, any).unwrap();
        let ports = &stored["spec"]["ports"];
        assert_eq!(ports[0]["nodePort"], ports[1]["nodePort"], "one number for both protocols");
    }
    assert!(create_with(&resource, service(json!({"type": "NodePort", "ports": [{"port": 1}]}))).is_err());
    // A client that changes the type sends the rest back as it was.
    let mut inside = first.clone();
    inside["spec"]["type"] = "ClusterIP".into();
    let inside = updated(&resource, &first, inside).unwrap();
    assert!(inside["spec"]["ports"][0].get("nodePort").is_none());
    assert!(inside["spec"].get("externalTrafficPolicy").is_none());
    assert_eq!(inside["spec"]["clusterIP"], first["spec"]["clusterIP"]);
    assert!(create_with(&resource, node(30000)).is_ok(), "the port is free again");
}

#[test]
fn an_update_without_addresses_keeps_them() {
    let resource = dual();
    // Asked for by number: an address that the range picks could be the one that is asked for below.
    let wanted = json!({"type": "NodePort", "clusterIP": "10.96.0.10", "ports": [{"port": 80}]});
    let old = create_with(&resource, service(wanted)).unwrap();
    let new =
        updated(&resource, &old, service(json!({"type": "NodePort", "ports": [{"port": 80}]}))).unwrap();
    assert_eq!(new, old);
    let mut other = old.clone();
    other["spec"]["clusterIP"] = "10.96.0.77".into();
    let text = "spec.clusterIPs[0]: Invalid value: \"10.96.0.77\": may not change once set";
    assert_eq!(updated(&resource, &old, other).unwrap_err(), [text]);
}

#[test]
fn families_follow_the_policy() {
    let resource = dual();
    let families = |spec: Value| {
        let stored = create_with(&resource, service(spec)).unwrap();
        (stored["spec"]["ipFamilies"].clone(), stored["spec"]["clusterIPs"].as_array().unwrap().len())
    };
    let ports = json!([{"port": 80}]);
    assert_eq!(families(json!({"ports": ports})), (json!(["IPv4"]), 1));
    assert_eq!(
        families(json!({"ports": ports, "ipFamilyPolicy": "PreferDualStack"})),
        (json!(["IPv4", "IPv6"]), 2)
    );
    assert_eq!(families(json!({"ports": ports, "ipFamilies": ["IPv6"]})), (json!(["IPv6"]), 1));
    let errors = create("Service", service(json!({"ports": ports, "ipFamilyPolicy": "RequireDualStack"})))
        .unwrap_err();
    let text = "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for \
                dual-stack services";
    assert_eq!(errors, [text]);
}

#[test]
fn services_are_refused_in_upstreams_words() {
    for (spec, text) in [
        (json!({}), "spec.ports: Required value"),
        (
            json!({"type": "X", "ports": [{"port": 1}]}),
            "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \
             \"LoadBalancer\", \"NodePort\"",
        ),
        (
            json!({"ports": [{"port": 0, "targetPort": 1}]}),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"ports": [{"port": 1, "nodePort": 30001}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (json!({"ports": [{"port": 1}, {"name": "b", "port": 2}]}), "spec.ports[0].name: Required value"),
        (
            json!({"ports": [{"port": 1}], "sessionAffinity": "X"}),
            r#"spec.sessionAffinity: Unsupported value: "X": supported values: "ClientIP", "None""#,
        ),
        (json!({"type": "ExternalName"}), "spec.externalName: Required value"),
    ] {
        assert_eq!(create("Service", service(spec)).unwrap_err(), [text]);
    }
}
