//! TLS for the API server and the kubelet: certificates that can be replaced while running, and client certificates
//! checked against the cluster's CA.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Identity, PkiError};

/// The certificate in use; [`ServingCertificate::replace`] puts another in its place for the handshakes to come.
#[derive(Debug)]
pub struct ServingCertificate {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ServingCertificate {
    /// Starts with `identity`.
    ///
    /// # Errors
    /// [`PkiError::Tls`] if TLS cannot use it.
    pub fn new(identity: &Identity) -> Result<Self, PkiError> {
        Ok(Self { current: RwLock::new(Arc::new(certified(identity)?)) })
    }

    /// Serves with `identity` from now on.
    ///
    /// # Errors
    /// [`PkiError::Tls`] if TLS cannot use it; the old one then stays.
    pub fn replace(&self, identity: &Identity) -> Result<(), PkiError> {
        let next = Arc::new(certified(identity)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// How a server speaks TLS: HTTP/2 preferred, client certificates of `client_ca_pem` taken but not demanded.
///
/// # Errors
/// [`PkiError::Tls`].
pub fn server_config(
    certificate: Arc<ServingCertificate>,
    client_ca_pem: &str,
) -> Result<ServerConfig, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots(client_ca_pem)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| PkiError::Tls(rustls::Error::General(error.to_string())))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(PkiError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// How a client of the cluster speaks TLS: trusts `ca_pem` and shows `identity`, if it has one.
///
/// # Errors
/// [`PkiError::Tls`].
pub fn client_config(ca_pem: &str, identity: Option<&Identity>) -> Result<rustls::ClientConfig, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(PkiError::Tls)?
        .with_root_certificates(roots(ca_pem)?);
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let (chain, key) = parse(identity)?;
    builder.with_client_auth_cert(chain, key).map_err(PkiError::Tls)
}

/// The certificates of `ca_pem` as what is trusted.
///
/// # Errors
/// [`PkiError::Tls`] if one cannot be read.
pub fn roots(ca_pem: &str) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.map_err(general)?).map_err(PkiError::Tls)?;
    }
    Ok(roots)
}

fn parse(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
    let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(general)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(general)?;
    Ok((chain, key))
}

fn certified(identity: &Identity) -> Result<CertifiedKey, PkiError> {
    let (chain, key) = parse(identity)?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).map_err(PkiError::Tls)
}

fn general(error: rustls_pki_types::pem::Error) -> PkiError {
    PkiError::Tls(rustls::Error::General(error.to_string()))
}
