//! What a command line names: kinds, names, files, selectors.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use crate::discovery::{Discovery, Resource, items, text};
use crate::error::{Error, Result};
use crate::manifest;
use crate::session::{Call, Session};

/// A kind, and an object of it when one is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The kind.
    pub resource: Arc<Resource>,
    /// The object; `None` means all that the selectors match.
    pub name: Option<String>,
}

/// Reads `TYPE[,TYPE] [NAME…]` or `TYPE/NAME…`.
pub fn parse(discovery: &Discovery, words: &[String]) -> Result<Vec<Target>> {
    if words.iter().any(|word| word.contains('/')) {
        return words.iter().map(|word| slashed(discovery, word)).collect();
    }
    let Some((types, names)) = words.split_first() else {
        return Err(Error::client("Required resource not specified."));
    };
    let mut resources = Vec::new();
    for called in types.split(',').filter(|called| !called.is_empty()) {
        let of_category = discovery.category(called);
        if of_category.is_empty() {
            resources.push(discovery.require(called)?);
        } else {
            resources.extend(of_category.into_iter().filter(|r| r.verbs.iter().any(|verb| verb == "list")));
        }
    }
    let mut targets = Vec::new();
    for resource in resources {
        if names.is_empty() {
            targets.push(Target { resource, name: None });
        } else {
            let named = |name: &String| Target { resource: Arc::clone(&resource), name: Some(name.clone()) };
            targets.extend(names.iter().map(named));
        }
    }
    Ok(targets)
}

fn slashed(discovery: &Discovery, word: &str) -> Result<Target> {
    let Some((called, name)) = word.split_once('/') else {
        return Err(Error::client(
            "there is no need to specify a resource type as a separate argument when passing arguments in \
             resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource \
             resource/<resource_name>'",
        ));
    };
    if called.is_empty() || name.is_empty() || name.contains('/') {
        return Err(Error::client(format!(
            "arguments in resource/name form must have a single resource and name: {word:?}"
        )));
    }
    Ok(Target { resource: discovery.require(called)?, name: Some(name.to_owned()) })
}

/// Files to read objects from.
#[derive(Clone, Debug, Default, Args)]
pub struct Files {
    /// Files or directories with manifests; `-` is standard input.
    #[arg(short = 'f', long = "filename", value_delimiter = ',')]
    pub filename: Vec<PathBuf>,
    /// Descend into the directories of --filename.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Not supported: build with kustomize first and pipe its output into `-f -`.
    #[arg(short = 'k', long)]
    pub kustomize: Option<PathBuf>,
}

impl Files {
    /// Reads them all.
    pub async fn read(&self, session: &Session) -> Result<Vec<manifest::Document>> {
        if self.kustomize.is_some() {
            return Err(Error::client(
                "--kustomize is not supported: build first and pipe the result into -f -",
            ));
        }
        manifest::read(session, &self.filename, self.recursive).await
    }
}

/// The selectors of commands on several objects.
#[derive(Clone, Debug, Default, Args)]
pub struct Selectors {
    /// Label selector, such as `app=web,tier!=db`.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Field selector, such as `status.phase=Running`.
    #[arg(long)]
    pub field_selector: Option<String>,
    /// All objects of the kind in the namespace.
    #[arg(long)]
    pub all: bool,
}

impl Selectors {
    fn given(&self) -> bool {
        self.all || self.selector.is_some() || self.field_selector.is_some()
    }
}

/// An object that exists (or did when it was asked for).
#[derive(Clone, Debug)]
pub struct Found {
    /// Its kind.
    pub resource: Arc<Resource>,
    /// Its namespace, when the kind has them.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The object.
    pub object: Value,
    /// The file that named it.
    pub source: Option<String>,
}

impl Found {
    /// Where it is.
    pub fn path(&self) -> String {
        self.resource.object(self.namespace.as_deref(), &self.name)
    }

    /// `pod/web`, as lines of output begin.
    pub fn label(&self) -> String {
        self.resource.label(&self.name)
    }

    /// From an object in an answer.
    pub fn of(resource: &Arc<Resource>, object: Value) -> Self {
        Self {
            resource: Arc::clone(resource),
            namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
            name: text(&object["metadata"]["name"]),
            object,
            source: None,
        }
    }
}

/// Finds the objects that a command names, by words, by files or by selectors.
pub async fn find(
    session: &Session,
    words: &[String],
    files: &Files,
    selectors: &Selectors,
) -> Result<Vec<Found>> {
    if !files.filename.is_empty() || files.kustomize.is_some() {
        if !words.is_empty() {
            return Err(Error::client(
                "when paths, URLs, or stdin is provided as input, you may not specify \
                                      resource arguments as well",
            ));
        }
        let mut found = Vec::new();
        for document in files.read(session).await? {
            let named = document.locate(session).await?;
            let object = session.json(Call::get(named.path())).await?;
            found.push(Found { object, ..named });
        }
        return Ok(found);
    }
    let discovery = session.discovery().await?;
    let mut found = Vec::new();
    for target in parse(&discovery, words)? {
        found.extend(target_objects(session, &target, selectors).await?);
    }
    Ok(found)
}

async fn target_objects(session: &Session, target: &Target, selectors: &Selectors) -> Result<Vec<Found>> {
    let namespace = Some(session.namespace.as_str());
    if let Some(name) = &target.name {
        if selectors.given() {
            return Err(Error::client("name cannot be provided when a selector is specified"));
        }
        let object = session.json(Call::get(target.resource.object(namespace, name))).await?;
        return Ok(vec![Found::of(&target.resource, object)]);
    }
    if !selectors.given() {
        return Err(Error::client("resource(s) were provided, but no name was specified"));
    }
    list(session, &target.resource, namespace, selectors).await
}

/// All objects of a kind that the selectors match, page by page.
pub async fn list(
    session: &Session,
    resource: &Arc<Resource>,
    namespace: Option<&str>,
    selectors: &Selectors,
) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let call = Call::get(resource.collection(namespace))
            .query("limit", "500")
            .maybe("labelSelector", selectors.selector.as_deref())
            .maybe("fieldSelector", selectors.field_selector.as_deref())
            .maybe("continue", Some(&token));
        let mut list = session.json(call).await?;
        token = text(&list["metadata"]["continue"]);
        for object in list["items"].as_array_mut().into_iter().flatten() {
            let mut object = object.take();
            // Items of a list carry no type of their own.
            object["apiVersion"] = resource.api_version().into();
            object["kind"] = resource.kind.clone().into();
            found.push(Found::of(resource, object));
        }
        if token.is_empty() {
            return Ok(found);
        }
    }
}

/// The label selector, as text, of an object that selects pods: `spec.selector` of workloads and Services.
pub fn pod_selector(object: &Value) -> Option<String> {
    let selector = &object["spec"]["selector"];
    let equal = if selector["matchLabels"].is_object() || selector["matchExpressions"].is_array() {
        &selector["matchLabels"]
    } else {
        selector
    };
    let labels: BTreeMap<&String, &Value> = equal.as_object().into_iter().flatten().collect();
    let mut parts: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={}", text(v))).collect();
    for rule in items(&selector["matchExpressions"]) {
        let key = text(&rule["key"]);
        let values = items(&rule["values"]).map(text).collect::<Vec<_>>().join(",");
        parts.push(match rule["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("Exists") => key,
            _ => format!("!{key}"),
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}
