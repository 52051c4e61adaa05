//! The environment of a container.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};
use xebec_volumes::fields::{Allocatable, pod_field, resource_field};

use super::{ConfigError, expand::expand};
use crate::spec;

/// Objects that a container's environment refers to, fetched beforehand. A name that maps to `None` does not exist.
#[derive(Debug, Clone, Default)]
pub struct References {
    /// Config maps by name.
    pub config_maps: BTreeMap<String, Option<Arc<ConfigMap>>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Option<Arc<Secret>>>,
}

/// Names of the config maps and secrets that a container's environment refers to.
pub fn referenced(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    for var in container.env.iter().flatten() {
        let Some(from) = &var.value_from else { continue };
        maps.extend(from.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(from.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    maps.sort();
    maps.dedup();
    secrets.sort();
    secrets.dedup();
    (maps, secrets)
}

/// Makes the environment: Services, then `envFrom`, then `env`; a later variable replaces an earlier one in place.
pub fn environment(
    pod: &Pod,
    container: &Container,
    references: &References,
    services: &[(String, String)],
    node: &Allocatable,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut env = Env::default();
    for (name, value) in services {
        env.set(name, value.clone());
    }
    env_from(&mut env, container, references)?;
    for var in container.env.iter().flatten() {
        let value = match &var.value_from {
            None => Some(expand(var.value.as_deref().unwrap_or_default(), |name| env.get(name))),
            Some(source) => from_source(pod, container, source, references, node)?,
        };
        if let Some(value) = value {
            env.set(&var.name, value);
        }
    }
    Ok(env.list)
}

#[derive(Default)]
struct Env {
    list: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
}

impl Env {
    fn get(&self, name: &str) -> Option<String> {
        self.index.get(name).map(|i| self.list[*i].1.clone())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.index.get(name) {
            Some(i) => self.list[*i].1 = value,
            None => {
                self.index.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }
}

fn env_from(env: &mut Env, container: &Container, references: &References) -> Result<(), ConfigError> {
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(source) = &from.config_map_ref {
            match references.config_maps.get(&source.name).and_then(Option::as_ref) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        env.set(&format!("{prefix}{key}"), value.clone());
                    }
                }
                None if source.optional == Some(true) => {}
                None => return Err(ConfigError::not_found("configmap", &source.name)),
            }
        }
        if let Some(source) = &from.secret_ref {
            match references.secrets.get(&source.name).and_then(Option::as_ref) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        env.set(&format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
                    }
                }
                None if source.optional == Some(true) => {}
                None => return Err(ConfigError::not_found("secret", &source.name)),
            }
        }
    }
    Ok(())
}

fn from_source(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    references: &References,
    node: &Allocatable,
) -> Result<Option<String>, ConfigError> {
    if let Some(field) = &source.field_ref {
        let value = pod_field(pod, &field.field_path).map_err(|e| ConfigError::Other(e.to_string()))?;
        return Ok(Some(value.unwrap_or_default()));
    }
    if let Some(selector) = &source.resource_field_ref {
        let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
        let of = named.and_then(|n| spec::container(pod, n)).map_or(container, |(_, c)| c);
        return resource_field(of, selector, node).map(Some).map_err(|e| ConfigError::Other(e.to_string()));
    }
    let namespace = spec::namespace(pod);
    if let Some(key) = &source.config_map_key_ref {
        let optional = key.optional == Some(true);
        let Some(map) = references.config_maps.get(&key.name).and_then(Option::as_ref) else {
            return if optional { Ok(None) } else { Err(ConfigError::not_found("configmap", &key.name)) };
        };
        let value = map.data.as_ref().and_then(|d| d.get(&key.key)).cloned();
        return missing_key(value, optional, || format!("{} in ConfigMap {namespace}/{}", key.key, key.name));
    }
    if let Some(key) = &source.secret_key_ref {
        let optional = key.optional == Some(true);
        let Some(secret) = references.secrets.get(&key.name).and_then(Option::as_ref) else {
            return if optional { Ok(None) } else { Err(ConfigError::not_found("secret", &key.name)) };
        };
        let value = secret.data.as_ref().and_then(|d| d.get(&key.key));
        let value = value.map(|v| String::from_utf8_lossy(&v.0).into_owned());
        return missing_key(value, optional, || format!("{} in Secret {namespace}/{}", key.key, key.name));
    }
    Err(ConfigError::Other(
        "env.valueFrom: only fieldRef, resourceFieldRef, configMapKeyRef and secretKeyRef work".into(),
    ))
}

fn missing_key(
    value: Option<String>,
    optional: bool,
    what: impl Fn() -> String,
) -> Result<Option<String>, ConfigError> {
    match value {
        None if !optional => Err(ConfigError::Other(format!("couldn't find key {}", what()))),
        value => Ok(value),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(container: serde_json::Value) -> Result<String, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": []}, "status": {"podIP": "10.0.0.9"}
        }))
        .unwrap();
        let map: ConfigMap = serde_json::from_value(json!({"data": {"K": "from-map", "L": "l"}})).unwrap();
        let secret: Secret = serde_json::from_value(json!({"data": {"S": "c2VjcmV0"}})).unwrap();
        let references = References {
            config_maps: [("m".to_owned(), Some(Arc::new(map))), ("gone".to_owned(), None)].into(),
            secrets: [("s".to_owned(), Some(Arc::new(secret)))].into(),
        };
        let container: Container = serde_json::from_value(container).unwrap();
        let services = [("SVC".to_owned(), "1".to_owned())];
        environment(&pod, &container, &references, &services, &Allocatable::default())
            .map(|env| env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" "))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn every_source() {
        let env = run(json!({"name": "c",
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}],
        "env": [
            {"name": "A", "value": "$(SVC)-$(P_K)"}, {"name": "P_L", "value": "over"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "S"}}},
            {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "no", "optional": true}}}
        ]}));
        assert_eq!(env.unwrap(), "SVC=1 P_K=from-map P_L=over A=1-from-map IP=10.0.0.9 S=secret");
    }

    #[test]
    fn what_is_missing_is_named() {
        let key = |source| json!({"name": "c", "env": [{"name": "A", "valueFrom": source}]});
        let missing = run(key(json!({"configMapKeyRef": {"name": "gone", "key": "k"}})));
        assert_eq!(missing.unwrap_err(), "configmap \"gone\" not found");
        let missing = run(key(json!({"secretKeyRef": {"name": "s", "key": "k"}})));
        assert_eq!(missing.unwrap_err(), "couldn't find key k in Secret n/s");
    }
}
