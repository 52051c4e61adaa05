//! Kubeconfig files: everything that a client needs, in one place.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::{Identity, PkiError, files};

/// A kubeconfig with one cluster, one user and one context, certificates inline.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kubeconfig {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    current_context: String,
    preferences: Empty,
    clusters: Vec<NamedCluster>,
    contexts: Vec<NamedContext>,
    users: Vec<NamedUser>,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
struct Empty {}

#[derive(Clone, PartialEq, Eq, Serialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    certificate_authority_data: String,
    server: String,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: String,
    client_key_data: String,
}

impl Kubeconfig {
    /// A kubeconfig that reaches `server` (a URL) as `user`.
    #[must_use]
    pub fn new(cluster: &str, server: &str, ca_pem: &str, user: &str, identity: &Identity) -> Self {
        let context = format!("{user}@{cluster}");
        let encode = |pem: &str| STANDARD.encode(pem);
        Self {
            api_version: "v1",
            kind: "Config",
            current_context: context.clone(),
            preferences: Empty {},
            clusters: vec![NamedCluster {
                name: cluster.into(),
                cluster: Cluster { certificate_authority_data: encode(ca_pem), server: server.into() },
            }],
            contexts: vec![NamedContext {
                name: context,
                context: Context { cluster: cluster.into(), user: user.into() },
            }],
            users: vec![NamedUser {
                name: user.into(),
                user: User {
                    client_certificate_data: encode(&identity.certificate_pem),
                    client_key_data: encode(&identity.key_pem),
                },
            }],
        }
    }

    /// The file's text.
    ///
    /// # Errors
    /// [`PkiError::Kubeconfig`].
    pub fn to_yaml(&self) -> Result<String, PkiError> {
        serde_yaml_ng::to_string(self).map_err(PkiError::Kubeconfig)
    }

    /// Writes the file, for its owner only, atomically, and only if it says something else already.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), PkiError> {
        let text = self.to_yaml()?;
        if files::read(path)?.as_deref() == Some(&text) {
            return Ok(());
        }
        files::replace(path, &text)
    }
}
