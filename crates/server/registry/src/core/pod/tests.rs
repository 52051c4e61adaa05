#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use crate::tests::{create, resource, update};
use crate::{Deletion, SubresourceName};

fn pod(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}});
    change(&mut pod["spec"]);
    pod
}

#[test]
fn a_minimal_pod_gets_upstreams_defaults() {
    let expected = json!({
        "metadata": {"name": "p"},
        "spec": {
            "containers": [{
                "name": "c",
                "image": "nginx",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "Always",
            }],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "enableServiceLinks": true,
        },
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    });
    assert_eq!(create("Pod", pod(|_| {})).unwrap(), expected);
}

#[test]
fn parts_of_pods_get_their_defaults() {
    let stored = create(
        "Pod",
        pod(|spec| {
            spec["hostNetwork"] = true.into();
            spec["serviceAccountName"] = "sa".into();
            spec["containers"][0] = json!({
                "name": "c", "image": "a:1",
                "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                "livenessProbe": {"httpGet": {"port": 80}},
                "readinessProbe": {"grpc": {"port": 81}},
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            });
            spec["volumes"] = json!([
                {"name": "a"},
                {"name": "b", "configMap": {"name": "x"}},
                {"name": "c", "hostPath": {"path": "/x"}},
                {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            ]);
        }),
    )
    .unwrap();
    let container = &stored["spec"]["containers"][0];
    assert_eq!(stored["spec"]["serviceAccount"], "sa");
    assert_eq!(container["ports"], json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]));
    assert_eq!(container["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
    let http = json!({
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
    });
    assert_eq!(container["livenessProbe"], http);
    assert_eq!(container["readinessProbe"]["grpc"], json!({"port": 81, "service": ""}));
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    let token = json!([{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]);
    let volumes = json!([
        {"name": "a", "emptyDir": {}},
        {"name": "b", "configMap": {"name": "x", "defaultMode": 420}},
        {"name": "c", "hostPath": {"path": "/x", "type": ""}},
        {"name": "d", "projected": {"defaultMode": 420, "sources": token}},
    ]);
    assert_eq!(stored["spec"]["volumes"], volumes);
    assert_eq!(stored["status"]["qosClass"], "Burstable");
}

type Case = (fn(&mut Value), &'static str);

const REFUSED: &[Case] = &[
    (|s| s["containers"] = json!([]), "spec.containers: Required value"),
    (|s| s["containers"][0]["image"] = json!(""), "spec.containers[0].image: Required value"),
    (
        |s| s["containers"][0]["image"] = json!(" x"),
        r#"spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace"#,
    ),
    (
        |s| s["containers"][0]["name"] = json!("A"),
        "spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case \
             alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. \
             'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    ),
    (
        |s| s["containers"] = json!([{"name": "c", "image": "a"}, {"name": "c", "image": "a"}]),
        r#"spec.containers[1].name: Duplicate value: "c""#,
    ),
    (
        |s| s["containers"][0]["ports"] = json!([{"containerPort": 70000}]),
        "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
    ),
    (
        |s| s["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/x"}]),
        r#"spec.containers[0].volumeMounts[0].name: Not found: "v""#,
    ),
    (
        |s| s["containers"][0]["resources"] = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
        "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit \
             of 1",
    ),
    (
        |s| s["containers"][0]["env"] = json!([{"value": "x"}]),
        "spec.containers[0].env[0].name: Required value",
    ),
    (
        |s| s["containers"][0]["livenessProbe"] = json!({}),
        "spec.containers[0].livenessProbe: Required value: must specify a handler type",
    ),
    (
        |s| s["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"port": 1}, "successThreshold": 2}),
        "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
    ),
    (
        |s| {
            s["initContainers"] =
                json!([{"name": "i", "image": "a", "readinessProbe": {"tcpSocket": {"port": 1}}}])
        },
        "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without \
             restartPolicy=Always",
    ),
    (
        |s| s["restartPolicy"] = json!("Sometimes"),
        r#"spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never""#,
    ),
    (
        |s| s["tolerations"] = json!([{"operator": "Equal", "value": "x"}]),
        "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, \
             which means \"match all values and all keys\"",
    ),
    (
        |s| s["volumes"] = json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]),
        "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
    ),
    (
        |s| s["dnsPolicy"] = json!("None"),
        "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
    ),
    (
        |s| {
            s["topologySpreadConstraints"] =
                json!([{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}])
        },
        "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
    ),
    (
        |s| s["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]),
        "spec.volumes[0].persistentVolumeClaim: Forbidden: is not supported yet: there are no persistent volumes; \
             use emptyDir or hostPath",
    ),
];

#[test]
fn pods_are_refused_in_upstreams_words() {
    for (change, text) in REFUSED {
        assert_eq!(create("Pod", pod(change)).unwrap_err(), [*text]);
    }
}

#[test]
fn sidecars_may_have_probes() {
    let sidecar = json!([{
        "name": "i", "image": "a", "restartPolicy": "Always", "readinessProbe": {"tcpSocket": {"port": 1}},
    }]);
    assert!(create("Pod", pod(|s| s["initContainers"] = sidecar)).is_ok());
}

#[test]
fn only_some_fields_of_a_pod_change() {
    let old = create("Pod", pod(|_| {})).unwrap();
    let changed = |change: fn(&mut Value)| {
        let mut new = old.clone();
        change(&mut new["spec"]);
        update("Pod", &new, &old, SubresourceName::Main)
    };
    assert_eq!(changed(|s| s["containers"][0]["image"] = json!("other")), [""; 0]);
    assert_eq!(changed(|s| s["activeDeadlineSeconds"] = json!(5)), [""; 0]);
    assert_eq!(changed(|s| s["tolerations"] = json!([{"operator": "Exists"}])), [""; 0]);
    let refused = changed(|s| s["hostname"] = json!("x"));
    assert!(
        refused[0].starts_with("spec: Forbidden: pod updates may not change fields other than"),
        "{refused:?}"
    );
    let more = changed(|s| {
        s["containers"].as_array_mut().unwrap().push(json!({"name": "d", "image": "x",
        "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}))
    });
    assert_eq!(more, ["spec.containers: Forbidden: pod updates may not add or remove containers"]);
}

#[test]
fn deletion_is_graceful_where_a_node_runs_the_pod() {
    let strategy = resource("Pod").strategy;
    let spec = json!({"nodeName": "n", "terminationGracePeriodSeconds": 7});
    let on_node = |phase: &str| json!({"spec": spec, "status": {"phase": phase}});
    assert_eq!(strategy.deletion(&json!({"spec": {}}), Some(30)), Deletion::Immediate);
    assert_eq!(strategy.deletion(&on_node("Succeeded"), None), Deletion::Immediate);
    assert_eq!(strategy.deletion(&on_node("Running"), None), Deletion::Graceful { seconds: 7 });
    assert_eq!(strategy.deletion(&on_node("Running"), Some(2)), Deletion::Graceful { seconds: 2 });
    assert_eq!(strategy.deletion(&on_node("Running"), Some(0)), Deletion::Immediate);
}

fn row(spec: Value, status: Value, deleted: bool) -> [String; 3] {
    let mut pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
    if deleted {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    let cells = resource("Pod").strategy.cells("v1", &pod, "2026-01-01T00:05:00Z".parse().unwrap());
    [1, 2, 3].map(|i| cells[i].as_str().unwrap().to_owned())
}

fn state(state: Value, ready: bool, restarts: i64) -> Value {
    json!([{"name": "c", "state": state, "ready": ready, "restartCount": restarts}])
}

#[test]
fn status_reads_as_in_kubectl() {
    let one = json!({"containers": [{"name": "c"}]});
    let with_init = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]});
    let running = json!({"phase": "Running", "containerStatuses": state(json!({"running": {}}), true, 0)});
    assert_eq!(row(one.clone(), running.clone(), false), ["1/1", "Running", "0"]);
    assert_eq!(row(one.clone(), running, true), ["1/1", "Terminating", "0"]);
    assert_eq!(row(one.clone(), json!({"phase": "Pending"}), false), ["0/1", "Pending", "0"]);
    let waiting = |reason: &str| {
        let statuses = state(json!({"waiting": {"reason": reason}}), false, 0);
        json!({"phase": "Pending", "containerStatuses": statuses})
    };
    assert_eq!(row(one.clone(), waiting("ContainerCreating"), false)[1], "ContainerCreating");
    let mut crash = waiting("CrashLoopBackOff");
    crash["containerStatuses"][0]["restartCount"] = 3.into();
    crash["containerStatuses"][0]["lastState"] =
        json!({"terminated": {"finishedAt": "2026-01-01T00:00:00Z"}});
    assert_eq!(row(one.clone(), crash, false), ["0/1", "CrashLoopBackOff", "3 (5m ago)"]);
    let done = json!({"phase": "Succeeded",
        "containerStatuses": state(json!({"terminated": {"reason": "Completed", "exitCode": 0}}), false, 0)});
    assert_eq!(row(one.clone(), done, false), ["0/1", "Completed", "0"]);
    let failed = json!({"phase": "Failed",
        "containerStatuses": state(json!({"terminated": {"exitCode": 3}}), false, 0)});
    assert_eq!(row(one, failed, false)[1], "ExitCode:3");
    let init = json!({"phase": "Pending",
        "initContainerStatuses": [{"name": "i", "state": {"running": {}}, "restartCount": 0}],
        "containerStatuses": state(json!({"waiting": {"reason": "PodInitializing"}}), false, 0)});
    assert_eq!(row(with_init.clone(), init, false)[1], "Init:0/1");
    let broken = json!({"phase": "Pending",
        "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]});
    assert_eq!(row(with_init, broken, false)[1], "Init:CrashLoopBackOff");
}
