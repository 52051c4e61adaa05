//! Volumes and their sources.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, PodSpec, ProjectedVolumeSource, Volume,
    VolumeProjection,
};
use serde_json::{Map, Value, json};
use xebec_schema::{Path, error};
use xebec_types::names;

use super::container::{VolumeNames, relative_path};
use super::env;
use crate::check::{self, Errors};

const MODE_RANGE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Checks all volumes and answers the names that mounts may use. `json` is the same spec undecoded.
pub(crate) fn validate(spec: &PodSpec, json: &Value, path: &Path, errors: &mut Errors) -> VolumeNames {
    let undecoded = json.get("volumes").unwrap_or(&Value::Null);
    let mut seen = VolumeNames::new();
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = path.child("volumes").index(i);
        let before = errors.len();
        source(volume, &undecoded[i], &path, errors);
        check::required_name(&path.child("name"), &volume.name, names::dns1123_label, errors);
        if errors.len() == before && seen.contains(&volume.name) {
            errors.push(error::duplicate(&path.child("name"), volume.name.as_str()));
        }
        seen.insert(volume.name.clone());
    }
    seen
}

fn source(volume: &Volume, json: &Value, path: &Path, errors: &mut Errors) {
    let members = json.as_object().into_iter().flatten();
    let mut sources = members.filter(|(name, source)| *name != "name" && !source.is_null());
    if sources.next().is_none() {
        errors.push(error::required(path, "must specify a volume type"));
    }
    for (extra, _) in sources {
        let path = path.child(extra.clone());
        errors.push(error::forbidden(&path, "may not specify more than 1 volume type"));
    }
    if let Some(dir) = &volume.empty_dir
        && let Some(limit) = &dir.size_limit
        && limit.0.starts_with('-')
    {
        let why = "SizeLimit field must be a valid resource quantity";
        errors.push(error::forbidden(&path.child("emptyDir").child("sizeLimit"), why));
    }
    if let Some(medium) = volume.empty_dir.as_ref().and_then(|d| d.medium.as_deref())
        && !["", "Memory"].contains(&medium)
    {
        let path = path.child("emptyDir").child("medium");
        errors.push(error::not_supported(&path, medium, &["", "Memory"]));
    }
    if let Some(host) = &volume.host_path {
        host_path(host, &path.child("hostPath"), errors);
    }
    if let Some(map) = &volume.config_map {
        let path = path.child("configMap");
        named(&map.name, "name", &path, errors);
        mode(map.default_mode, "defaultMode", &path, errors);
        items(map.items.as_deref(), &path, errors);
    }
    if let Some(secret) = &volume.secret {
        let path = path.child("secret");
        named(secret.secret_name.as_deref().unwrap_or(""), "secretName", &path, errors);
        mode(secret.default_mode, "defaultMode", &path, errors);
        items(secret.items.as_deref(), &path, errors);
    }
    if let Some(downward) = &volume.downward_api {
        let path = path.child("downwardAPI");
        mode(downward.default_mode, "defaultMode", &path, errors);
        files(downward.items.as_deref(), &path, errors);
    }
    if let Some(projected) = &volume.projected {
        self::projected(projected, &path.child("projected"), errors);
    }
}

fn named(name: &str, field: &'static str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(error::required(&path.child(field), ""));
    }
}

fn mode(mode: Option<i32>, field: &'static str, path: &Path, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        errors.push(error::invalid(&path.child(field), mode, MODE_RANGE));
    }
}

fn items(items: Option<&[KeyToPath]>, path: &Path, errors: &mut Errors) {
    for (i, item) in items.into_iter().flatten().enumerate() {
        let path = path.child("items").index(i);
        named(&item.key, "key", &path, errors);
        target(&item.path, &path, errors);
        mode(item.mode, "mode", &path, errors);
    }
}

/// A file's place in the volume.
fn target(value: &str, path: &Path, errors: &mut Errors) {
    let path = path.child("path");
    if value.is_empty() {
        errors.push(error::required(&path, ""));
        return;
    }
    let before = errors.len();
    relative_path(&path, value, errors);
    if errors.len() == before && value.starts_with("..") {
        errors.push(error::invalid(&path, value, "must not start with '..'"));
    }
}

fn host_path(host: &HostPathVolumeSource, path: &Path, errors: &mut Errors) {
    if host.path.is_empty() {
        errors.push(error::required(&path.child("path"), ""));
        return;
    }
    if host.path.split('/').any(|part| part == "..") {
        errors.push(error::invalid(&path.child("path"), host.path.as_str(), "must not contain '..'"));
    }
    if let Some(kind) = host.type_.as_deref().filter(|t| !HOST_PATH_TYPES.contains(t)) {
        errors.push(error::not_supported(&path.child("type"), kind, HOST_PATH_TYPES));
    }
}

fn files(files: Option<&[DownwardAPIVolumeFile]>, path: &Path, errors: &mut Errors) {
    for (i, file) in files.into_iter().flatten().enumerate() {
        let path = path.child("items").index(i);
        target(&file.path, &path, errors);
        match (&file.field_ref, &file.resource_field_ref) {
            (Some(_), Some(_)) => {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(error::invalid(&path, "resource", why));
            }
            (Some(field), None) => env::file_field_ref(field, &path.child("fieldRef"), errors),
            (None, Some(resource)) => {
                let path = path.child("resourceFieldRef");
                if resource.container_name.as_deref().unwrap_or("").is_empty() {
                    errors.push(error::required(&path.child("containerName"), ""));
                }
                env::resource_field_ref(resource, &path, errors);
            }
            (None, None) => {
                errors.push(error::required(&path, "one of fieldRef and resourceFieldRef is required"))
            }
        }
        mode(file.mode, "mode", &path, errors);
    }
}

fn projected(projected: &ProjectedVolumeSource, path: &Path, errors: &mut Errors) {
    mode(projected.default_mode, "defaultMode", path, errors);
    let mut taken = BTreeSet::new();
    for (i, source) in projected.sources.iter().flatten().enumerate() {
        let path = path.child("sources").index(i);
        projection(source, &path, errors);
        for (target, at) in targets(source, &path) {
            if !target.is_empty() && !taken.insert(target.clone()) {
                errors.push(error::invalid(&at, target, "conflicting duplicate paths"));
            }
        }
    }
}

fn projection(source: &VolumeProjection, path: &Path, errors: &mut Errors) {
    let json = json!(source);
    for extra in json.as_object().into_iter().flat_map(Map::keys).skip(1) {
        let why = "may not specify more than 1 volume type per source";
        errors.push(error::forbidden(&path.child(extra.clone()), why));
    }
    if let Some(secret) = &source.secret {
        let path = path.child("secret");
        named(&secret.name, "name", &path, errors);
        items(secret.items.as_deref(), &path, errors);
    }
    if let Some(map) = &source.config_map {
        let path = path.child("configMap");
        named(&map.name, "name", &path, errors);
        items(map.items.as_deref(), &path, errors);
    }
    if let Some(downward) = &source.downward_api {
        files(downward.items.as_deref(), &path.child("downwardAPI"), errors);
    }
    if let Some(token) = &source.service_account_token {
        let path = path.child("serviceAccountToken");
        let seconds = token.expiration_seconds.unwrap_or(3600);
        let expiration = path.child("expirationSeconds");
        if seconds < 600 {
            errors.push(error::invalid(
                &expiration,
                seconds,
                "may not specify a duration less than 10 minutes",
            ));
        } else if seconds > 1 << 32 {
            errors.push(error::invalid(
                &expiration,
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            ));
        }
        target(&token.path, &path, errors);
    }
}

/// Every path a source writes, with where it says so.
fn targets(source: &VolumeProjection, path: &Path) -> Vec<(String, Path)> {
    let mut all = Vec::new();
    let keyed = [
        ("secret", source.secret.as_ref().and_then(|s| s.items.as_ref())),
        ("configMap", source.config_map.as_ref().and_then(|s| s.items.as_ref())),
    ];
    for (field, items) in keyed {
        for item in items.into_iter().flatten() {
            all.push((item.path.clone(), path.child(field)));
        }
    }
    for file in source.downward_api.iter().flat_map(|d| d.items.iter().flatten()) {
        all.push((file.path.clone(), path.child("downwardAPI")));
    }
    if let Some(token) = &source.service_account_token {
        all.push((token.path.clone(), path.child("serviceAccountToken")));
    }
    all
}
