//! From what a user names to a pod: `web`, `pod/web`, `deployment/web`, `svc/web`.

use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;

use super::delete::within;
use crate::discovery::{items, text};
use crate::error::{Error, Result};
use crate::session::{Call, Session};
use crate::targets::{Found, Selectors, list, parse, pod_selector};

/// The annotation that names the container to use.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The object that is named; a bare name is a pod.
pub async fn named(session: &Session, word: &str) -> Result<Found> {
    let discovery = session.discovery().await?;
    let word = if word.contains('/') { word.to_owned() } else { format!("pods/{word}") };
    let target = parse(&discovery, &[word])?.remove(0);
    let name = target.name.unwrap_or_default();
    let object = session.json(Call::get(target.resource.object(Some(&session.namespace), &name))).await?;
    Ok(Found::of(&target.resource, object))
}

/// The pods that an object selects; a pod selects itself.
pub async fn of(session: &Session, target: &Found) -> Result<Vec<Found>> {
    if target.resource.kind == "Pod" {
        return Ok(vec![target.clone()]);
    }
    let selector = pod_selector(&target.object)
        .ok_or_else(|| Error::client(format!("cannot get pods of {}: it has no selector", target.label())))?;
    selected(session, &selector).await
}

/// The pods of the namespace with these labels; running ones first, then the older ones.
pub async fn selected(session: &Session, selector: &str) -> Result<Vec<Found>> {
    let pods = session.discovery().await?.require("pods")?;
    let selectors = Selectors { selector: Some(selector.to_owned()), ..Selectors::default() };
    let mut found = list(session, &pods, Some(&session.namespace), &selectors).await?;
    found.sort_by_key(|pod| {
        let object = &pod.object;
        let leaving = !object["metadata"]["deletionTimestamp"].is_null();
        (leaving, !running(object), text(&object["metadata"]["creationTimestamp"]), pod.name.clone())
    });
    Ok(found)
}

/// One pod of an object, running; waits for one up to `limit`.
pub async fn one_running(session: &Session, target: &Found, limit: Option<Duration>) -> Result<Found> {
    within(limit, async {
        loop {
            let pods = of(session, target).await?;
            if let Some(pod) = pods.iter().find(|pod| running(&pod.object)) {
                return Ok(pod.clone());
            }
            // A pod that was named and has ended will not run any more.
            if let [pod] = pods.as_slice()
                && target.resource.kind == "Pod"
                && ["Succeeded", "Failed"]
                    .contains(&pod.object["status"]["phase"].as_str().unwrap_or_default())
            {
                return Err(Error::client(format!(
                    "cannot exec into or forward to a container in a completed pod; current phase is {}",
                    text(&pod.object["status"]["phase"])
                )));
            }
            change(session, target).await?;
            // A named pod is read again, not taken from the list that named it.
            if target.resource.kind == "Pod" {
                let now = session.json(Call::get(target.path())).await?;
                if running(&now) {
                    return Ok(Found { object: now, ..target.clone() });
                }
            }
        }
    })
    .await
}

/// Waits until any pod that an object selects changes.
async fn change(session: &Session, target: &Found) -> Result<()> {
    let pods = session.discovery().await?.require("pods")?;
    let call = Call::get(pods.collection(Some(&session.namespace)));
    let call = if target.resource.kind == "Pod" {
        call.query("fieldSelector", format!("metadata.name={}", target.name))
    } else {
        call.maybe("labelSelector", pod_selector(&target.object).as_deref())
    };
    // Without a version the watch begins with what is there, so that nothing is missed between list and watch.
    let mut events = session.watch(call).await?;
    while let Some(event) = events.next().await {
        if running(&event?["object"]) {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether a pod runs.
pub fn running(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running"
}

/// The container to use: the one asked for, the annotated one, else the first.
pub fn container(pod: &Value, asked: Option<&str>) -> Result<String> {
    let all = containers(pod);
    let annotated = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    if let Some(name) = asked {
        if all.iter().any(|have| have == name) {
            return Ok(name.to_owned());
        }
        let pod = text(&pod["metadata"]["name"]);
        return Err(Error::client(format!("container {name} not found in pod {pod}")));
    }
    let first = items(&pod["spec"]["containers"]).map(|c| text(&c["name"])).next();
    let known = annotated.filter(|name| all.iter().any(|have| have == name)).map(str::to_owned);
    known.or(first).ok_or_else(|| Error::client("the pod has no containers"))
}

/// The names of all containers of a pod, in the order in which they start.
pub fn containers(pod: &Value) -> Vec<String> {
    ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .flat_map(|list| items(&pod["spec"][list]).map(|c| text(&c["name"])).collect::<Vec<_>>())
        .collect()
}
