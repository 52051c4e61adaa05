//! Bringing the image of a container to the node.

use std::time::Instant;

use base64::Engine as _;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use serde::Deserialize;
use xebec_cri::{AuthConfig, CriError, Image};
use xebec_volumes::Sources as _;

use super::Shared;
use super::start::StartError;
use crate::spec;

/// `imagePullPolicy`, or its default by the tag.
fn policy(container: &Container) -> &str {
    let image = container.image.as_deref().unwrap_or_default();
    container.image_pull_policy.as_deref().unwrap_or_else(|| {
        let last = image.rsplit('/').next().unwrap_or_default();
        let floating = !image.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
        if floating { "Always" } else { "IfNotPresent" }
    })
}

/// Whether a reference can be one at all (the grammar of distribution/reference, without its fine points).
fn well_formed(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    let (repository, tag) = match name.rsplit_once(':') {
        Some((r, t)) if !t.contains('/') => (r, Some(t)),
        _ => (name, None),
    };
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let path = repository.split_once('/').map_or(repository, |(host, path)| {
        let registry = host.contains(['.', ':']) || host == "localhost";
        if registry { path } else { repository }
    });
    let part = |p: &str| {
        !p.is_empty()
            && p.chars().all(|c| word(c) && !c.is_ascii_uppercase())
            && p.starts_with(|c: char| c.is_ascii_alphanumeric())
    };
    path.split('/').all(part)
        && tag.is_none_or(|t| !t.is_empty() && t.len() <= 128 && t.chars().all(word))
        && digest.is_none_or(|d| d.split_once(':').is_some_and(|(_, hex)| hex.len() >= 32))
}

/// The image, pulled if the policy asks for it.
pub(super) async fn ensure(shared: &Shared, pod: &Pod, container: &Container) -> Result<Image, StartError> {
    let image = container.image.as_deref().unwrap_or_default();
    let event = |warning, reason: &str, message: String| {
        shared.events.pod(pod, Some(&container.name), warning, reason, message);
    };
    if !well_formed(image) {
        let message = format!(
            "Failed to apply default image tag \"{image}\": \
             couldn't parse image name \"{image}\": invalid reference format"
        );
        event(true, "InspectFailed", message.clone());
        return Err(StartError::new("InvalidImageName", message));
    }
    let images = &shared.runtime.images;
    let local = images.image_status(image).await.map_err(|e| {
        StartError::new("ImageInspectError", format!("Failed to inspect image \"{image}\": {e}"))
    })?;
    let policy = policy(container);
    match local {
        // A pinned image came with the node and is never pulled.
        Some(local) if policy != "Always" || local.pinned => {
            let message = format!(
                "Container image \"{image}\" already present on machine and can be accessed by the pod"
            );
            event(false, "Pulled", message);
            return Ok(local);
        }
        None if policy == "Never" => {
            let message = format!("Container image \"{image}\" is not present with pull policy of Never");
            event(true, "ErrImageNeverPull", message.clone());
            return Err(StartError::new("ErrImageNeverPull", message));
        }
        _ => {}
    }
    event(false, "Pulling", format!("Pulling image \"{image}\""));
    let started = Instant::now();
    let pulled = pull(shared, pod, image).await.map_err(|error| {
        event(true, "Failed", format!("Failed to pull image \"{image}\": {error}"));
        event(true, "Failed", "Error: ErrImagePull".into());
        let reason = match &error {
            CriError::Pull { reason, .. } => reason,
            _ => "ErrImagePull",
        };
        StartError { reason, message: error.to_string(), event: false }
    })?;
    let took = started.elapsed();
    let message = format!(
        "Successfully pulled image \"{image}\" in {took:.3?} ({took:.3?} including waiting). Image size: {} bytes.",
        pulled.size
    );
    event(false, "Pulled", message);
    Ok(pulled)
}

/// Tries every matching credential in turn, and none last.
async fn pull(shared: &Shared, pod: &Pod, image: &str) -> Result<Image, CriError> {
    let mut credentials = Vec::new();
    let names = pod.spec.as_ref().and_then(|s| s.image_pull_secrets.as_deref()).unwrap_or_default();
    for name in names {
        match shared.objects.secret(spec::namespace(pod), &name.name).await {
            Ok(Some(secret)) => credentials.extend(matching(&secret, image)),
            _ => {
                let message = format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    name.name
                );
                shared.events.pod(pod, None, true, "FailedToRetrieveImagePullSecret", message);
            }
        }
    }
    let mut last = None;
    for auth in &credentials {
        match shared.runtime.images.pull_image(image, Some(auth)).await {
            Ok(pulled) => return Ok(pulled),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error),
        None => shared.runtime.images.pull_image(image, None).await,
    }
}

#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize, Default, Clone)]
struct DockerAuth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

/// Credentials of a pull secret whose registry is a prefix of the image's reference.
fn matching(secret: &Secret, image: &str) -> Vec<AuthConfig> {
    let data = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.clone());
    let config = match (data(".dockerconfigjson"), data(".dockercfg")) {
        (Some(raw), _) => serde_json::from_slice(&raw).unwrap_or_default(),
        (None, Some(raw)) => DockerConfig { auths: serde_json::from_slice(&raw).unwrap_or_default() },
        (None, None) => DockerConfig::default(),
    };
    let first = image.split('/').next().unwrap_or_default();
    let qualified = first.contains(['.', ':']) || first == "localhost";
    let full = if qualified { image.to_owned() } else { format!("docker.io/{image}") };
    let mut found: Vec<_> = config
        .auths
        .into_iter()
        .filter_map(|(registry, auth)| {
            let bare = registry.trim_start_matches("https://").trim_start_matches("http://");
            let bare = bare.trim_end_matches("/v1/").trim_end_matches("/v2/").trim_end_matches('/');
            let bare = bare.replace("index.docker.io", "docker.io");
            let rest = full.strip_prefix(&bare)?;
            (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then(|| (bare.len(), credentials(auth)))
        })
        .collect();
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn credentials(auth: DockerAuth) -> AuthConfig {
    let decoded = base64::engine::general_purpose::STANDARD.decode(&auth.auth).unwrap_or_default();
    let pair = String::from_utf8(decoded).unwrap_or_default();
    let (user, password) = pair.split_once(':').unwrap_or_default();
    let or = |own: String, other: &str| if own.is_empty() { other.to_owned() } else { own };
    AuthConfig {
        username: or(auth.username, user),
        password: or(auth.password, password.trim_end_matches('\0')),
        identity_token: auth.identity_token,
        registry_token: String::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn references_and_policies() {
        for good in [
            "redis",
            "redis:7",
            "a/b/c:x",
            "localhost:5000/a:1",
            "r.io/a@sha256:0123456789abcdef0123456789abcdef",
        ] {
            assert!(well_formed(good), "{good}");
        }
        for bad in ["", "Redis", "a//b", "a:", "a b", "a@x"] {
            assert!(!well_formed(bad), "{bad}");
        }
        let of =
            |image: &str| policy(&Container { image: Some(image.into()), ..Container::default() }).to_owned();
        assert_eq!([of("a"), of("a:latest"), of("h:5000/a:1")], ["Always", "Always", "IfNotPresent"]);
    }

    #[test]
    fn pull_secrets_match_by_prefix() {
        let json =
            r#"{"auths":{"r.io":{"auth":"dTpw"},"r.io/team":{"username":"t","password":"q"},"x.io":{}}}"#;
        let raw = base64::engine::general_purpose::STANDARD.encode(json);
        let secret: Secret =
            serde_json::from_value(serde_json::json!({"data": {".dockerconfigjson": raw}})).unwrap();
        let users = |image| matching(&secret, image).into_iter().map(|a| a.username).collect::<Vec<_>>();
        assert_eq!(users("r.io/team/app:1"), ["t", "u"]);
        assert_eq!(users("r.io/other"), ["u"]);
        assert!(users("redis").is_empty());
    }
}
