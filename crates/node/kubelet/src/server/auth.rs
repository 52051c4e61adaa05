//! Who calls: client certificates of the cluster's authority.

use std::sync::Arc;

use rustls::ServerConnection;
use rustls::server::WebPkiClientVerifier;

use crate::config::ServerConfig;
use crate::kubelet::KubeletError;

/// Members of this group may do everything.
const MASTERS: &str = "system:masters";

/// A caller by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// Common name.
    pub name: String,
    /// Organizations.
    pub groups: Vec<String>,
}

impl Caller {
    /// Whether the caller may use the node's API.
    pub fn allowed(&self, api_server_name: &str) -> bool {
        self.groups.iter().any(|g| g == MASTERS) || (!self.name.is_empty() && self.name == api_server_name)
    }
}

/// TLS with certificates asked for but not required: callers without one get 401 instead of a broken handshake.
pub(super) fn tls(config: &ServerConfig) -> Result<rustls::ServerConfig, KubeletError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let wrong = |e: String| KubeletError::Tls(e);
    let verifier = WebPkiClientVerifier::builder_with_provider(config.client_ca.clone(), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| wrong(format!("client authority: {e}")))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(config.certificate.clone());
    // Upgrades need HTTP/1.1.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// The caller, if it showed a certificate. The handshake has checked it.
pub(super) fn caller(connection: &ServerConnection) -> Option<Caller> {
    let certificate = connection.peer_certificates()?.first()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().ok().map(str::to_owned);
    Some(Caller {
        name: subject.iter_common_name().find_map(text).unwrap_or_default(),
        groups: subject.iter_organization().filter_map(text).collect(),
    })
}
