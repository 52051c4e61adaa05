//! Probes and lifecycle hooks: what the node does to a running container.

use k8s_openapi::api::core::v1::{
    ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use xebec_schema::{Path, error};
use xebec_types::names;

use crate::check::{self, Errors, shown};

/// Checks a probe. Only readiness may have a success threshold other than one and no grace period of its own;
/// `restarts` tells that it is one of the two others.
pub(crate) fn probe(probe: &Probe, restarts: bool, path: &Path, errors: &mut Errors) {
    let mut given =
        actions(probe.exec.as_ref(), probe.http_get.as_ref(), probe.tcp_socket.as_ref(), path, errors);
    if let Some(grpc) = &probe.grpc {
        given += 1;
        if given > 1 {
            errors.push(error::forbidden(&path.child("grpc"), "may not specify more than 1 handler type"));
        } else {
            check::port(&path.child("grpc").child("port"), grpc.port.into(), errors);
        }
    }
    if given == 0 {
        errors.push(error::required(path, "must specify a handler type"));
    }
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (name, value) in numbers {
        check::non_negative(&path.child(name), value.unwrap_or(0).into(), errors);
    }
    let grace = path.child("terminationGracePeriodSeconds");
    match probe.termination_grace_period_seconds {
        Some(_) if !restarts => {
            errors.push(error::invalid(
                &grace,
                shown(&probe.termination_grace_period_seconds),
                "must not be set for readinessProbes",
            ));
        }
        Some(seconds) if seconds <= 0 => {
            errors.push(error::invalid(&grace, seconds, "must be greater than 0"))
        }
        _ => {}
    }
    if restarts && probe.success_threshold.unwrap_or(1) != 1 {
        errors.push(error::invalid(
            &path.child("successThreshold"),
            probe.success_threshold.unwrap_or(0),
            "must be 1",
        ));
    }
}

/// Checks both hooks. `grace` is the pod's grace period in seconds, which bounds a `sleep`.
pub(crate) fn lifecycle(lifecycle: &Lifecycle, grace: i64, path: &Path, errors: &mut Errors) {
    for (name, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(hook) = hook {
            handler(hook, grace, &path.child(name), errors);
        }
    }
}

fn handler(hook: &LifecycleHandler, grace: i64, path: &Path, errors: &mut Errors) {
    let mut given =
        actions(hook.exec.as_ref(), hook.http_get.as_ref(), hook.tcp_socket.as_ref(), path, errors);
    if let Some(sleep) = &hook.sleep {
        given += 1;
        let path = path.child("sleep");
        if given > 1 {
            errors.push(error::forbidden(&path, "may not specify more than 1 handler type"));
        } else if !(0..=grace).contains(&sleep.seconds) {
            let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            errors.push(error::invalid(&path, sleep.seconds, why));
        }
    }
    if given == 0 {
        errors.push(error::required(path, "must specify a handler type"));
    }
}

fn actions(
    exec: Option<&ExecAction>,
    http: Option<&HTTPGetAction>,
    tcp: Option<&TCPSocketAction>,
    path: &Path,
    errors: &mut Errors,
) -> usize {
    let mut given = 0;
    let mut first = |field: &'static str, errors: &mut Errors| {
        given += 1;
        if given > 1 {
            errors.push(error::forbidden(&path.child(field), "may not specify more than 1 handler type"));
        }
        given == 1
    };
    if let Some(exec) = exec
        && first("exec", errors)
        && exec.command.as_ref().is_none_or(Vec::is_empty)
    {
        errors.push(error::required(&path.child("exec").child("command"), ""));
    }
    if let Some(http) = http
        && first("httpGet", errors)
    {
        http_get(http, &path.child("httpGet"), errors);
    }
    if let Some(tcp) = tcp
        && first("tcpSocket", errors)
    {
        port(&tcp.port, &path.child("tcpSocket").child("port"), errors);
    }
    given
}

fn http_get(http: &HTTPGetAction, path: &Path, errors: &mut Errors) {
    if http.path.as_deref().unwrap_or("").is_empty() {
        errors.push(error::required(&path.child("path"), ""));
    }
    port(&http.port, &path.child("port"), errors);
    let scheme = http.scheme.as_deref().unwrap_or("");
    if !["HTTP", "HTTPS"].contains(&scheme) {
        errors.push(error::not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]));
    }
    for (i, header) in http.http_headers.iter().flatten().enumerate() {
        check::rules(
            &path.child("httpHeaders").index(i).child("name"),
            &header.name,
            header_name(&header.name),
            errors,
        );
    }
}

fn header_name(name: &str) -> Vec<String> {
    if !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_')) {
        return Vec::new();
    }
    vec![
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for \
         validation is '[-A-Za-z0-9]+')"
            .into(),
    ]
}

fn port(port: &IntOrString, path: &Path, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => check::port(path, (*number).into(), errors),
        IntOrString::String(name) => check::rules(path, name, names::port_name(name), errors),
    }
}
