//! The JSON documents of OCI and Docker images, as far as they matter here. Both families have the same fields.

use std::collections::BTreeMap;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer};
use xebec_cri::ImageConfig;

use crate::ImageError;

/// Media types asked for.
pub(crate) const ACCEPT: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// A document or blob elsewhere.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) media_type: String,
    #[serde(default)]
    pub(crate) size: i64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) variant: String,
}

/// An image manifest or an index of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    #[serde(default)]
    pub(crate) schema_version: u32,
    pub(crate) config: Option<Descriptor>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) manifests: Vec<Descriptor>,
}

/// The configuration of an image.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Config {
    #[serde(default, deserialize_with = "or_default")]
    config: Process,
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RootFs {
    pub(crate) diff_ids: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Process {
    #[serde(deserialize_with = "or_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    working_dir: String,
    #[serde(deserialize_with = "or_default")]
    user: String,
    stop_signal: Option<String>,
    #[serde(deserialize_with = "or_default")]
    volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
}

/// Docker writes `null` for what is empty.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(de: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(de).map(Option::unwrap_or_default)
}

impl Config {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        serde_json::from_slice(bytes).map_err(|e| ImageError::Manifest(format!("image configuration: {e}")))
    }

    pub(crate) fn into_config(self) -> ImageConfig {
        let p = self.config;
        ImageConfig {
            entrypoint: p.entrypoint,
            cmd: p.cmd,
            env: p.env,
            working_dir: p.working_dir,
            user: p.user,
            stop_signal: p.stop_signal.filter(|s| !s.is_empty()),
            volumes: p.volumes.into_keys().collect(),
            labels: p.labels,
        }
    }
}

impl Document {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let document: Self = serde_json::from_slice(bytes)
            .map_err(|e| ImageError::Manifest(format!("image manifest: {e}")))?;
        if document.schema_version == 1 {
            return Err(ImageError::Manifest(
                "image manifest has schema version 1, which is not supported: push the image again with a current tool"
                    .to_owned(),
            ));
        }
        Ok(document)
    }

    /// The manifest for this machine out of an index.
    pub(crate) fn for_this_platform(&self) -> Result<&Descriptor, ImageError> {
        let arch = architecture();
        let fits = |d: &&Descriptor| {
            d.platform.as_ref().is_none_or(|p| {
                p.os == "linux" && p.architecture == arch && matches!(p.variant.as_str(), "" | "v8" | "v1")
            })
        };
        self.manifests.iter().find(fits).ok_or_else(|| {
            ImageError::Manifest(format!("no match for platform linux/{arch} in manifest: not found"))
        })
    }
}

/// This machine in Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `sha256:…` of bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    digest_text(context)
}

pub(crate) fn digest_text(context: Context) -> String {
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    for byte in context.finish().as_ref() {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The chain ids of a stack of layers, bottom first: the identity of each layer with all below it (OCI image
/// specification, "Layer ChainID").
pub(crate) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.clone(),
            Some(below) => digest(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(id);
    }
    chain
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn docker_nulls_are_empty() {
        let json = br#"{"config":{"Entrypoint":null,"Cmd":["sh"],"Volumes":{"/data":{}}},
            "rootfs":{"diff_ids":["a"]}}"#;
        let config = Config::parse(json).unwrap().into_config();
        assert!(config.entrypoint.is_empty());
        assert_eq!(config.volumes, ["/data"]);
    }

    #[test]
    fn the_platform_is_chosen() {
        let entry = |os, arch| {
            format!(r#"{{"digest":"{os}-{arch}","platform":{{"os":"{os}","architecture":"{arch}"}}}}"#)
        };
        let list =
            [entry("windows", "amd64"), entry("linux", "s390x"), entry("linux", architecture())].join(",");
        let index =
            Document::parse(format!(r#"{{"schemaVersion":2,"manifests":[{list}]}}"#).as_bytes()).unwrap();
        assert_eq!(index.for_this_platform().unwrap().digest, format!("linux-{}", architecture()));
        let none =
            Document::parse(format!(r#"{{"manifests":[{}]}}"#, entry("linux", "s390x")).as_bytes()).unwrap();
        assert!(none.for_this_platform().unwrap_err().to_string().starts_with("no match for platform"));
    }
}
