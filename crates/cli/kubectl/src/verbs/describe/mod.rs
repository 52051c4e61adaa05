//! `describe`: an object for people, with its events.

mod generic;
mod pod;
mod report;
mod services;
mod workloads;

use clap::Args;
use serde_json::Value;

use super::events;
use crate::discovery::{items, text};
use crate::error::Result;
use crate::session::{Call, Session};
use crate::targets::{self, Files, Found, Selectors};
use report::Report;

/// Flags of `describe`.
#[derive(Clone, Debug, Default, Args)]
pub struct DescribeArgs {
    /// TYPE [NAME...] or TYPE/NAME...; a name may be a prefix.
    pub words: Vec<String>,
    /// Objects in files.
    #[command(flatten)]
    pub files: Files,
    /// Objects that match.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// In all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// With events.
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true, num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub show_events: bool,
}

/// Runs `describe`.
pub async fn run(session: &Session, args: DescribeArgs) -> Result<i32> {
    let found = find(session, &args).await?;
    for (at, target) in found.iter().enumerate() {
        if at > 0 {
            session.line("\n")?;
        }
        let report = describe(session, target, args.show_events).await?;
        session.print(report)?;
    }
    if found.is_empty() {
        let place =
            if args.all_namespaces { String::new() } else { format!(" in {} namespace.", session.namespace) };
        session.warn(format!("No resources found{place}"))?;
    }
    Ok(0)
}

async fn find(session: &Session, args: &DescribeArgs) -> Result<Vec<Found>> {
    let all = Selectors { selector: args.selector.clone(), all: true, ..Selectors::default() };
    if !args.files.filename.is_empty() || args.files.kustomize.is_some() {
        return targets::find(session, &args.words, &args.files, &Selectors::default()).await;
    }
    let namespace = (!args.all_namespaces).then_some(session.namespace.as_str());
    let mut found = Vec::new();
    for target in targets::parse(&*session.discovery().await?, &args.words)? {
        let Some(name) = &target.name else {
            found.extend(targets::list(session, &target.resource, namespace, &all).await?);
            continue;
        };
        match session.json(Call::get(target.resource.object(namespace, name))).await {
            Ok(object) => found.push(Found::of(&target.resource, object)),
            Err(error) if error.is_not_found() => {
                let list = targets::list(session, &target.resource, namespace, &all).await?;
                let before = found.len();
                found.extend(list.into_iter().filter(|other| other.name.starts_with(name.as_str())));
                if found.len() == before {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

async fn describe(session: &Session, target: &Found, with_events: bool) -> Result<String> {
    let mut report = Report::default();
    let object = &target.object;
    match (target.resource.group.as_str(), target.resource.kind.as_str()) {
        ("", "Pod") => pod::describe(&mut report, object),
        ("apps", "Deployment") => {
            workloads::deployment(&mut report, object, &replica_sets(session, target).await?)
        }
        ("apps", "ReplicaSet") => workloads::replica_set(&mut report, object),
        ("", "Service") => services::service(&mut report, object, &slices(session, target).await),
        ("", "Node") => services::node(&mut report, object, &pods_on(session, &target.name).await?),
        ("", "Namespace") => services::namespace(&mut report, object),
        ("", "ConfigMap") => services::config_map(&mut report, object),
        ("", "Secret") => services::secret(&mut report, object),
        ("", "ServiceAccount") => services::service_account(&mut report, object),
        _ => generic::describe(&mut report, object),
    }
    let quiet = ["Secret", "Namespace"].contains(&target.resource.kind.as_str());
    if with_events && !quiet {
        let events = events_of(session, target).await?;
        table(&mut report, &events);
    }
    Ok(report.finish())
}

async fn replica_sets(session: &Session, target: &Found) -> Result<Vec<Value>> {
    let sets = session.discovery().await?.require("replicasets.apps")?;
    let uid = &target.object["metadata"]["uid"];
    let selectors = Selectors { selector: targets::pod_selector(&target.object), ..Selectors::default() };
    let found = targets::list(session, &sets, target.namespace.as_deref(), &selectors).await?;
    let owned = |set: &Value| items(&set["metadata"]["ownerReferences"]).any(|owner| owner["uid"] == *uid);
    Ok(found.into_iter().map(|set| set.object).filter(owned).collect())
}

/// The EndpointSlices of a Service; a server without them has none.
async fn slices(session: &Session, target: &Found) -> Vec<Value> {
    let Ok(discovery) = session.discovery().await else { return Vec::new() };
    let Some(slices) = discovery.find("endpointslices.discovery.k8s.io") else { return Vec::new() };
    let selector = Some(format!("kubernetes.io/service-name={}", target.name));
    let selectors = Selectors { selector, ..Selectors::default() };
    let found = targets::list(session, &slices, target.namespace.as_deref(), &selectors).await;
    found.unwrap_or_default().into_iter().map(|slice| slice.object).collect()
}

async fn pods_on(session: &Session, node: &str) -> Result<Vec<Value>> {
    let pods = session.discovery().await?.require("pods")?;
    let field_selector = format!("spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed");
    let selectors = Selectors { field_selector: Some(field_selector), ..Selectors::default() };
    let found = targets::list(session, &pods, None, &selectors).await?;
    Ok(found.into_iter().map(|pod| pod.object).collect())
}

async fn events_of(session: &Session, target: &Found) -> Result<Vec<Value>> {
    let Some(events) = session.discovery().await?.find("events") else { return Ok(Vec::new()) };
    let mut field_selector =
        format!("involvedObject.name={},involvedObject.kind={}", target.name, target.resource.kind);
    let uid = text(&target.object["metadata"]["uid"]);
    // Events of nodes name them by name in place of the uid.
    if !uid.is_empty() && target.resource.kind != "Node" {
        field_selector.push_str(&format!(",involvedObject.uid={uid}"));
    }
    let selectors = Selectors { field_selector: Some(field_selector), ..Selectors::default() };
    let found = targets::list(session, &events, target.namespace.as_deref(), &selectors).await?;
    let mut found: Vec<Value> = found.into_iter().map(|event| event.object).collect();
    found.sort_by_key(|event| text(events::last_seen(event)));
    Ok(found)
}

fn table(report: &mut Report, events: &[Value]) {
    if events.is_empty() {
        report.line(0, "Events:\t<none>");
        return;
    }
    report.line(0, "Events:");
    report.line(1, "Type\tReason\tAge\tFrom\tMessage");
    report.line(1, "----\t------\t----\t----\t-------");
    for event in events {
        let from = [&event["source"]["component"], &event["reportingComponent"]];
        let from =
            from.into_iter().filter_map(Value::as_str).find(|from| !from.is_empty()).unwrap_or_default();
        report.line(
            1,
            format!(
                "{}\t{}\t{}\t{from}\t{}",
                text(&event["type"]),
                text(&event["reason"]),
                events::when(event),
                text(&event["message"]).trim().replace('\n', " ")
            ),
        );
    }
}
