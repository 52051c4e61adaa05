//! `Secret`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use xebec_schema::{FieldError, Path, error};
use xebec_types::{names, object};

use super::configmap::{MAX_SIZE, decoded_len, immutable};
use crate::builder::{AGE, ColumnRow, Kind, NAME, integer, text};
use crate::cells::{age, map_len, name};
use crate::check::{self, Errors};
use crate::defaults::{Row, zero};
use crate::{Cells, Context, Resource, Strategy};

const COLUMNS: &[ColumnRow] = &[NAME, text("Type"), integer("Data"), AGE];

/// The rows for [`crate::defaults::table`].
pub(crate) const DEFAULTS: &[Row] = &[("core.v1.Secret", secret)];

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::namespaced("v1", "Secret", "secrets").columns(COLUMNS).strategy(SecretStrategy).build()
}

/// `stringData` is a way to write, never to read: it ends in `data`.
fn secret(secret: &mut Map<String, Value>) {
    zero(secret, "type", "Opaque");
    let Some(Value::Object(strings)) = secret.remove("stringData") else { return };
    if strings.is_empty() {
        return;
    }
    let data = secret.entry("data").or_insert_with(|| json!({}));
    if let Some(data) = data.as_object_mut() {
        for (key, value) in strings {
            data.insert(key, STANDARD.encode(value.as_str().unwrap_or("")).into());
        }
    }
}

/// Keys that a type demands.
fn demanded(kind: &str) -> &'static [&'static str] {
    match kind {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    }
}

/// What differs for secrets.
struct SecretStrategy;

impl SecretStrategy {
    fn by_type(object: &Value, errors: &mut Errors) {
        let kind = object::str_at(object, "type");
        let data = object.get("data");
        let value = |key: &str| data.and_then(|d| d.get(key)).and_then(Value::as_str);
        for key in demanded(kind) {
            let path = Path::new("data").key(*key);
            let Some(text) = value(key) else {
                errors.push(error::required(&path, ""));
                continue;
            };
            let json = || STANDARD.decode(text).ok().and_then(|b| serde_json::from_slice::<Value>(&b).ok());
            if key.starts_with(".docker") && json().is_none() {
                errors.push(error::invalid(&path, "<secret contents redacted>", "invalid JSON"));
            }
        }
        if kind == "kubernetes.io/basic-auth" && value("username").is_none() && value("password").is_none() {
            for key in ["username", "password"] {
                errors.push(error::required(&Path::new("data").key(key), ""));
            }
        }
        if kind == "kubernetes.io/service-account-token" {
            let annotation = "kubernetes.io/service-account.name";
            let named = object["metadata"]["annotations"][annotation].as_str().unwrap_or("");
            if named.is_empty() {
                errors.push(error::required(&Path::new("metadata").child("annotations").key(annotation), ""));
            }
        }
    }
}

impl Strategy for SecretStrategy {
    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let mut size = 0;
        for (key, value) in object.get("data").and_then(Value::as_object).into_iter().flat_map(Map::iter) {
            let path = Path::new("data").key(key.clone());
            check::rules(&path, key, names::config_map_key(key), &mut errors);
            size += value.as_str().map_or(0, decoded_len);
        }
        if size > MAX_SIZE {
            errors.push(error::too_long(&Path::new("data"), MAX_SIZE));
        }
        Self::by_type(object, &mut errors);
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        check::immutable(&Path::new("type"), new.get("type"), old.get("type"), &mut errors);
        immutable(new, old, &["data"], &mut errors);
        errors.extend(self.validate_create(cx, new));
        errors
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn cells(&self, _version: &str, object: &Value, now: Timestamp) -> Cells {
        let kind = object::str_at(object, "type");
        vec![name(object), kind.into(), map_len(object, "data").into(), age(object, now)]
    }
}
