//! The cluster's own certificates and keys: made at the first start, kept on disk, renewed before they run out.
//!
//! Files are named as kubeadm names them (`ca.crt`, `apiserver.crt`, `sa.key`, …), are readable by root only, and are
//! replaced atomically. A certificate is issued again when it is missing, damaged, not of this CA, not for the wanted
//! subject, names and use, or when less than 30% of its life is left.

mod files;
mod issue;
mod kubeconfig;
pub mod tls;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rcgen::KeyPair;

pub use kubeconfig::Kubeconfig;

use crate::authn::jws::{JwsError, PublicKey, SigningKey};
use crate::user::groups;
use issue::Authority;

/// Why the PKI cannot be opened or a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("{operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A key or certificate on disk that everything else rests on is damaged, or half of its pair is missing.
    ///
    /// It is not replaced: every certificate and token of the cluster would stop to hold.
    #[error("{} is damaged: {detail}; restore it, or remove the directory to start with a new PKI", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A certificate cannot be made.
    #[error("issue certificate {name}")]
    Issue {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// A name cannot stand in a certificate.
    #[error("issue certificate {name}: {host:?} is neither a DNS name nor an address")]
    Host {
        /// The certificate's name.
        name: String,
        /// The name that it shall be good for.
        host: String,
    },
    /// The signing key does not work.
    #[error("service account key")]
    SigningKey(#[source] JwsError),
    /// TLS cannot be set up with these certificates.
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
    /// A kubeconfig cannot be written as YAML.
    #[error("write kubeconfig")]
    Kubeconfig(#[source] serde_yaml_ng::Error),
}

/// What a certificate is for (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Server authentication only.
    Server,
    /// Client authentication only.
    Client,
}

/// The certificate that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The name of its files, without extension.
    pub file: String,
    /// The common name: the user, to the API server.
    pub common_name: String,
    /// The organizations: the groups, to the API server.
    pub organizations: Vec<String>,
    /// What it is for.
    pub usage: Usage,
    /// DNS names that a server certificate is good for.
    pub dns_names: Vec<String>,
    /// Addresses that a server certificate is good for.
    pub addresses: Vec<IpAddr>,
}

impl Request {
    /// A client certificate.
    #[must_use]
    pub fn client(file: &str, common_name: &str, organizations: &[&str]) -> Self {
        Self {
            file: file.into(),
            common_name: common_name.into(),
            organizations: organizations.iter().map(|&name| name.into()).collect(),
            usage: Usage::Client,
            dns_names: Vec::new(),
            addresses: Vec::new(),
        }
    }

    /// The administrator's: kubeadm's user name, in the group that no role limits, so that it also works while roles
    /// are broken.
    #[must_use]
    pub fn admin() -> Self {
        Self::client("admin", "kubernetes-admin", &[groups::MASTERS])
    }

    /// The controllers'.
    #[must_use]
    pub fn controller_manager() -> Self {
        Self::client("controller-manager", "system:kube-controller-manager", &[])
    }

    /// The scheduler's.
    #[must_use]
    pub fn scheduler() -> Self {
        Self::client("scheduler", "system:kube-scheduler", &[])
    }

    /// What the service proxy shows to the API server.
    #[must_use]
    pub fn proxy() -> Self {
        Self::client("kube-proxy", "system:kube-proxy", &[])
    }

    /// What a kubelet shows to the API server.
    #[must_use]
    pub fn kubelet(node: &str) -> Self {
        Self::client(&format!("kubelet-{node}"), &format!("system:node:{node}"), &[groups::NODES])
    }

    /// What the API server shows to kubelets.
    #[must_use]
    pub fn apiserver_kubelet_client() -> Self {
        Self::client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", &[groups::MASTERS])
    }

    /// What a kubelet serves with.
    #[must_use]
    pub fn kubelet_serving(node: &str, addresses: &[IpAddr]) -> Self {
        Self {
            usage: Usage::Server,
            dns_names: vec![node.into()],
            addresses: addresses.to_vec(),
            ..Self::client(
                &format!("kubelet-server-{node}"),
                &format!("system:node:{node}"),
                &[groups::NODES],
            )
        }
    }

    /// What the API server serves with: good for every name and address that clients inside and outside may use.
    ///
    /// `hosts` are the node's name and whatever else it shall be reached by, `addresses` the node's and the Service's.
    #[must_use]
    pub fn apiserver(cluster_domain: &str, hosts: &[String], addresses: &[IpAddr]) -> Self {
        let own = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
        let mut dns_names: Vec<String> = own.map(String::from).to_vec();
        dns_names.push(format!("kubernetes.default.svc.{cluster_domain}"));
        dns_names.extend_from_slice(hosts);
        let mut all = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)];
        all.extend_from_slice(addresses);
        Self {
            usage: Usage::Server,
            dns_names,
            addresses: all,
            ..Self::client("apiserver", "kube-apiserver", &[])
        }
    }
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PKCS #8 PEM.
    pub key_pem: String,
    /// When to ask for it again: it is then issued anew.
    pub renew_at: Timestamp,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

/// The cluster's PKI in its directory.
pub struct Pki {
    directory: PathBuf,
    authority: Authority,
    signing_key: Arc<SigningKey>,
}

impl Pki {
    /// Opens the PKI in `directory`, making CA and signing key if there are none.
    ///
    /// # Errors
    /// [`PkiError::Damaged`] rather than a new CA in place of a broken one.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, PkiError> {
        files::make_directory(directory)?;
        let authority = Authority::open(directory, now)?;
        let signing_key = open_signing_key(directory)?;
        Ok(Self { directory: directory.into(), authority, signing_key: Arc::new(signing_key) })
    }

    /// The CA certificate, PEM: what clients trust, and what clients' certificates are checked against.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.authority.certificate_pem
    }

    /// The key that service-account tokens are signed with.
    #[must_use]
    pub fn signing_key(&self) -> Arc<SigningKey> {
        self.signing_key.clone()
    }

    /// The keys that service-account tokens may be signed with.
    #[must_use]
    pub fn token_keys(&self) -> Vec<PublicKey> {
        vec![self.signing_key.public().clone()]
    }

    /// Gives the certificate that is wanted, issuing it if the one on disk is not it.
    ///
    /// # Errors
    /// If it cannot be made or written.
    pub fn identity(&self, request: &Request, now: Timestamp) -> Result<Identity, PkiError> {
        let certificate = self.directory.join(format!("{}.crt", request.file));
        let key = self.directory.join(format!("{}.key", request.file));
        let kept = match (files::read(&certificate)?, files::read(&key)?) {
            (Some(certificate), Some(key)) => self.authority.accept(request, certificate, key, now),
            _ => None,
        };
        if let Some(identity) = kept {
            return Ok(identity);
        }
        let identity = self.authority.issue(request, now)?;
        // A crash in between leaves a pair that does not fit, which is then issued again.
        files::replace(&key, &identity.key_pem)?;
        files::replace(&certificate, &identity.certificate_pem)?;
        Ok(identity)
    }

    /// Gives a kubeconfig for whom `request` describes.
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn kubeconfig(
        &self,
        request: &Request,
        server: &str,
        now: Timestamp,
    ) -> Result<Kubeconfig, PkiError> {
        let identity = self.identity(request, now)?;
        Ok(Kubeconfig::new("xebec", server, self.ca_pem(), &request.common_name, &identity))
    }
}

fn open_signing_key(directory: &Path) -> Result<SigningKey, PkiError> {
    let path = directory.join("sa.key");
    let damaged = |detail: String| PkiError::Damaged { path: path.clone(), detail };
    let pair = match files::read(&path)? {
        Some(pem) => KeyPair::from_pem(&pem).map_err(|error| damaged(error.to_string()))?,
        None => {
            let made = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
            let pair = made.map_err(|source| PkiError::Issue { name: "sa".into(), source })?;
            files::replace(&path, &pair.serialize_pem())?;
            pair
        }
    };
    files::replace(&directory.join("sa.pub"), &pair.public_key_pem())?;
    SigningKey::from_pkcs8(pair.serialized_der()).map_err(PkiError::SigningKey)
}
