//! What the server serves, and how people call it.

use std::sync::Arc;

use futures::future::try_join_all;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::query;
use crate::session::{Call, Session};

/// Asks for aggregated discovery, and takes the old form from servers that do not know it.
const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// A kind that the server serves at a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for core.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Kind of the objects.
    pub kind: String,
    /// Name in URLs.
    pub plural: String,
    /// Name for people.
    pub singular: String,
    /// Abbreviations.
    pub short_names: Vec<String>,
    /// Names of sets that it belongs to.
    pub categories: Vec<String>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: Vec<String>,
    /// Names of its subresources.
    pub subresources: Vec<String>,
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods`, `deployments.apps`.
    pub fn full_name(&self) -> String {
        with_group(&self.plural, &self.group)
    }

    /// How output calls an object: `pod/web`, `deployment.apps/web`.
    pub fn label(&self, name: &str) -> String {
        format!("{}/{name}", with_group(&self.kind.to_lowercase(), &self.group))
    }

    /// As [`Self::label`], in the sentences that quote the name: `pod "web"`.
    pub fn quoted(&self, name: &str) -> String {
        format!("{} {name:?}", with_group(&self.kind.to_lowercase(), &self.group))
    }

    /// Where the objects of a namespace (or of all) are.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api".into() } else { format!("/apis/{}", self.group) };
        match namespace {
            Some(ns) if self.namespaced => {
                format!("{root}/{}/namespaces/{}/{}", self.version, query::encode(ns), self.plural)
            }
            _ => format!("{root}/{}/{}", self.version, self.plural),
        }
    }

    /// Where one object is.
    pub fn object(&self, namespace: Option<&str>, name: &str) -> String {
        format!("{}/{}", self.collection(namespace), query::encode(name))
    }

    /// Whether people may call it so.
    fn is_called(&self, name: &str) -> bool {
        self.plural == name
            || self.singular == name
            || self.kind.eq_ignore_ascii_case(name)
            || self.short_names.iter().any(|short| short == name)
    }
}

fn with_group(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// All resources, in the server's order of preference.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Every resource at every version.
    pub all: Vec<Arc<Resource>>,
    /// `(group, version)` pairs, in order.
    pub versions: Vec<(String, String)>,
}

impl Discovery {
    /// Asks the server.
    pub async fn ask(session: &Session) -> Result<Self> {
        let core = session.json(Call::get("/api").accept(AGGREGATED)).await?;
        let groups = session.json(Call::get("/apis").accept(AGGREGATED)).await?;
        let mut found = Self::default();
        for (answer, prefix) in [(core, "/api"), (groups, "/apis")] {
            if answer["kind"] == "APIGroupDiscoveryList" {
                found.take_aggregated(&answer);
            } else {
                found.take_plain(session, &answer, prefix).await?;
            }
        }
        Ok(found)
    }

    /// The resource that people call so: `po`, `pods`, `Pod`, `deployments.apps`, `deployments.v1.apps`.
    pub fn find(&self, called: &str) -> Option<Arc<Resource>> {
        let lower = called.to_lowercase();
        let (name, suffix) = lower.split_once('.').unwrap_or((&lower, ""));
        let plain = self.all.iter().find(|r| r.is_called(&lower));
        plain
            .or_else(|| {
                self.all.iter().find(|r| r.is_called(name) && r.group == suffix && !suffix.is_empty())
            })
            .or_else(|| {
                let (version, group) = suffix.split_once('.').unwrap_or((suffix, ""));
                self.all.iter().find(|r| r.is_called(name) && r.version == version && r.group == group)
            })
            .cloned()
    }

    /// As [`Self::find`], else the error that kubectl gives.
    pub fn require(&self, called: &str) -> Result<Arc<Resource>> {
        let missing = || Error::client(format!("the server doesn't have a resource type {called:?}"));
        self.find(called).ok_or_else(missing)
    }

    /// The resources of a category, each at its preferred version.
    pub fn category(&self, name: &str) -> Vec<Arc<Resource>> {
        self.preferred().filter(|r| r.categories.iter().any(|c| c == name)).collect()
    }

    /// Every resource once, at its preferred version.
    pub fn preferred(&self) -> impl Iterator<Item = Arc<Resource>> {
        let first = |r: &Arc<Resource>| {
            let same = |o: &&Arc<Resource>| o.group == r.group && o.plural == r.plural;
            self.all.iter().find(same).is_some_and(|o| o.version == r.version)
        };
        self.all.iter().filter(move |r| first(r)).cloned()
    }

    /// The resource of a manifest's apiVersion and kind.
    pub fn for_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        self.all.iter().find(|r| r.kind == kind && r.api_version() == api_version).cloned()
    }

    fn take_aggregated(&mut self, answer: &Value) {
        for group in items(&answer["items"]) {
            let name = text(&group["metadata"]["name"]);
            for version in items(&group["versions"]) {
                let number = text(&version["version"]);
                self.versions.push((name.clone(), number.clone()));
                for resource in items(&version["resources"]) {
                    self.all.push(Arc::new(Resource {
                        group: name.clone(),
                        version: number.clone(),
                        kind: text(&resource["responseKind"]["kind"]),
                        plural: text(&resource["resource"]),
                        singular: text(&resource["singularResource"]),
                        short_names: texts(&resource["shortNames"]),
                        categories: texts(&resource["categories"]),
                        namespaced: resource["scope"] == "Namespaced",
                        verbs: texts(&resource["verbs"]),
                        subresources: items(&resource["subresources"])
                            .map(|s| text(&s["subresource"]))
                            .collect(),
                    }));
                }
            }
        }
    }

    async fn take_plain(&mut self, session: &Session, answer: &Value, prefix: &str) -> Result<()> {
        let mut versions: Vec<(String, String)> =
            texts(&answer["versions"]).into_iter().map(|version| (String::new(), version)).collect();
        for group in items(&answer["groups"]) {
            let preferred = text(&group["preferredVersion"]["version"]);
            let mut served: Vec<String> = items(&group["versions"]).map(|v| text(&v["version"])).collect();
            served.sort_by_key(|version| *version != preferred);
            versions.extend(served.into_iter().map(|version| (text(&group["name"]), version)));
        }
        let lists = versions.iter().map(|(group, version)| {
            let path = if group.is_empty() {
                format!("{prefix}/{version}")
            } else {
                format!("{prefix}/{group}/{version}")
            };
            session.json(Call::get(path))
        });
        for ((group, version), list) in versions.iter().zip(try_join_all(lists).await?) {
            self.versions.push((group.clone(), version.clone()));
            self.take_resource_list(group, version, &list);
        }
        Ok(())
    }

    fn take_resource_list(&mut self, group: &str, version: &str, list: &Value) {
        for resource in items(&list["resources"]).filter(|r| !text(&r["name"]).contains('/')) {
            let plural = text(&resource["name"]);
            let below = |r: &Value| text(&r["name"]).strip_prefix(&format!("{plural}/")).map(str::to_owned);
            self.all.push(Arc::new(Resource {
                group: group.to_owned(),
                version: version.to_owned(),
                kind: text(&resource["kind"]),
                singular: text(&resource["singularName"]),
                short_names: texts(&resource["shortNames"]),
                categories: texts(&resource["categories"]),
                namespaced: resource["namespaced"] == true,
                verbs: texts(&resource["verbs"]),
                subresources: items(&list["resources"]).filter_map(below).collect(),
                plural,
            }));
        }
    }
}

/// The elements of a list; none when it is no list.
pub fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A string; empty when it is none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    items(value).map(text).collect()
}
