//! From volume source and referenced objects to files: pure functions.

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use crate::VolumeError;
use crate::atomic::{File, Payload, check_path};
use crate::fields::{Allocatable, pod_field, resource_field};

/// Mode of files when the volume names none.
pub const DEFAULT_MODE: i32 = 0o644;

fn mode(item: Option<i32>, default: i32) -> u32 {
    u32::try_from(item.unwrap_or(default)).unwrap_or(0o644) & 0o777
}

fn pick<'a>(
    kind: &'static str,
    get: impl Fn(&str) -> Option<&'a [u8]>,
    keys: Vec<&'a String>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    default_mode: i32,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for key in keys {
            let data = get(key).unwrap_or_default().to_vec();
            payload.insert(key.clone(), File { data, mode: mode(None, default_mode), uid: None });
        }
        return Ok(payload);
    };
    for item in items {
        check_path(&item.path)?;
        match get(&item.key) {
            Some(data) => {
                let file = File { data: data.to_vec(), mode: mode(item.mode, default_mode), uid: None };
                payload.insert(item.path.clone(), file);
            }
            None if optional => {}
            None => return Err(VolumeError::MissingKey { kind, key: item.key.clone() }),
        }
    }
    Ok(payload)
}

/// Files of a config map. Without the object, an optional volume is empty.
pub fn config_map(
    name: &str,
    object: Option<&ConfigMap>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    default_mode: i32,
) -> Result<Payload, VolumeError> {
    let Some(object) = object else {
        return absent("configmap", name, optional);
    };
    let get = |key: &str| {
        let text = object.data.as_ref().and_then(|d| d.get(key)).map(String::as_bytes);
        text.or_else(|| object.binary_data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.as_slice()))
    };
    let text = object.data.iter().flat_map(|d| d.keys());
    let keys = text.chain(object.binary_data.iter().flat_map(|d| d.keys())).collect();
    pick("config", get, keys, items, optional, default_mode)
}

/// Files of a secret. Without the object, an optional volume is empty.
pub fn secret(
    name: &str,
    object: Option<&Secret>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    default_mode: i32,
) -> Result<Payload, VolumeError> {
    let Some(object) = object else {
        return absent("secret", name, optional);
    };
    let get = |key: &str| object.data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.as_slice());
    let keys = object.data.iter().flat_map(|d| d.keys()).collect();
    pick("secret", get, keys, items, optional, default_mode)
}

fn absent(kind: &'static str, name: &str, optional: bool) -> Result<Payload, VolumeError> {
    if optional { Ok(Payload::new()) } else { Err(VolumeError::NotFound { kind, name: name.to_owned() }) }
}

/// Files of the downward API.
pub fn downward(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: i32,
    node: &Allocatable,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    for item in items {
        check_path(&item.path)?;
        let text = if let Some(field) = &item.field_ref {
            pod_field(pod, &field.field_path)?.unwrap_or_default()
        } else if let Some(selector) = &item.resource_field_ref {
            let wanted = selector.container_name.as_deref().unwrap_or_default();
            let spec = pod.spec.as_ref();
            let all =
                spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
            let mut named = all.filter(|c| c.name == wanted);
            let container =
                named.next().ok_or_else(|| VolumeError::Field(format!("container {wanted} not found")))?;
            resource_field(container, selector, node)?
        } else {
            String::new()
        };
        let file = File { data: text.into_bytes(), mode: mode(item.mode, default_mode), uid: None };
        payload.insert(item.path.clone(), file);
    }
    Ok(payload)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn object() -> ConfigMap {
        serde_json::from_value(serde_json::json!({
            "data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}
        }))
        .unwrap()
    }

    fn item(key: &str, path: &str) -> KeyToPath {
        KeyToPath { key: key.into(), path: path.into(), mode: Some(0o400) }
    }

    #[test]
    fn all_keys_or_the_named_items() {
        let all = config_map("m", Some(&object()), None, false, DEFAULT_MODE).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(all["c"].data, [0, 1]);
        let some = config_map("m", Some(&object()), Some(&[item("b", "x/y")]), false, DEFAULT_MODE).unwrap();
        assert_eq!((some.len(), some["x/y"].mode), (1, 0o400));
    }

    #[test]
    fn missing_objects_and_keys() {
        let missing = config_map("m", None, None, false, DEFAULT_MODE).unwrap_err();
        assert_eq!(missing.to_string(), "configmap \"m\" not found");
        assert!(config_map("m", None, None, true, DEFAULT_MODE).unwrap().is_empty());
        let key = config_map("m", Some(&object()), Some(&[item("z", "z")]), false, 0).unwrap_err();
        assert_eq!(key.to_string(), "references non-existent config key: z");
        assert!(config_map("m", Some(&object()), Some(&[item("a", "../z")]), false, 0).is_err());
    }
}
