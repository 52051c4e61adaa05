//! Which names a definition may have: not those of another in its group. The server decides at once, where upstream
//! has a controller for it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use xebec_types::{GroupResource, object, time};

use crate::Context;
use crate::cells::list_at;

/// Every word a definition claims in URLs and on the command line.
fn claimed(names: &Value) -> BTreeSet<String> {
    let words = ["plural", "singular"].map(|field| object::str_at(names, field).to_owned());
    let short = list_at(names, "shortNames").iter().filter_map(Value::as_str).map(str::to_owned);
    words.into_iter().chain(short).filter(|word| !word.is_empty()).collect()
}

fn kinds(names: &Value) -> BTreeSet<String> {
    ["kind", "listKind"].map(|field| object::str_at(names, field).to_owned()).into()
}

/// The name of the first definition in the same group that has one of this one's names.
fn rival(cx: &Context<'_>, crd: &Value) -> Option<String> {
    let resource = GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");
    let names = object::at(crd, "spec.names")?;
    let (words, own_kinds) = (claimed(names), kinds(names));
    cx.objects.list(&resource, "").iter().find_map(|other| {
        let same = object::name(other) == object::name(crd);
        let group = object::str_at(other, "spec.group") == object::str_at(crd, "spec.group");
        let theirs = object::at(other, "status.acceptedNames")?;
        let clash = !words.is_disjoint(&claimed(theirs)) || !own_kinds.is_disjoint(&kinds(theirs));
        (!same && group && clash).then(|| object::name(other).to_owned())
    })
}

/// Fills `status` from the spec: conditions, accepted names and stored versions.
pub(crate) fn decide(cx: &Context<'_>, crd: &mut Value) {
    let rival = rival(cx, crd);
    let names = object::at(crd, "spec.names").cloned().unwrap_or_default();
    let storage = list_at(crd, "spec.versions")
        .iter()
        .find(|v| v.get("storage") == Some(&Value::Bool(true)))
        .map(|v| object::str_at(v, "name").to_owned());
    let mut stored = list_at(crd, "status.storedVersions").to_vec();
    if let Some(storage) = storage
        && !stored.iter().any(|v| *v == *storage)
    {
        stored.push(storage.into());
    }
    let accepted = rival.is_none();
    let conditions = match rival {
        None => [
            ("NamesAccepted", "True", "NoConflicts", "no conflicts found".to_owned()),
            (
                "Established",
                "True",
                "InitialNamesAccepted",
                "the initial names have been accepted".to_owned(),
            ),
        ],
        Some(other) => [
            ("NamesAccepted", "False", "NamesConflict", format!("names are already in use by {other}")),
            ("Established", "False", "NotAccepted", "not all names are accepted".to_owned()),
        ],
    };
    let before = list_at(crd, "status.conditions").to_vec();
    let conditions: Vec<Value> = conditions
        .into_iter()
        .map(|(kind, status, reason, message)| {
            let old = before.iter().find(|c| object::str_at(c, "type") == kind);
            let since = old
                .filter(|c| object::str_at(c, "status") == status)
                .map(|c| object::str_at(c, "lastTransitionTime").to_owned())
                .unwrap_or_else(|| time::rfc3339(cx.now));
            json!({
                "type": kind,
                "status": status,
                "lastTransitionTime": since,
                "reason": reason,
                "message": message,
            })
        })
        .collect();
    let kept = object::at(crd, "status.acceptedNames").cloned();
    let empty = json!({"plural": "", "kind": ""});
    crd["status"] = json!({
        "conditions": conditions,
        "acceptedNames": if accepted { names } else { kept.unwrap_or(empty) },
        "storedVersions": stored,
    });
}
