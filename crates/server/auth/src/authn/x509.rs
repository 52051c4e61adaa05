//! Client certificates: the common name is the user, every organization a group.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authenticator, AuthnError, Credentials};
use crate::user::UserInfo;

/// Reads client certificates that the TLS layer has verified against the client CA.
///
/// TLS checks the time at the handshake only; connections live longer than that, so it is checked again here.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientCertificates;

impl Authenticator for ClientCertificates {
    fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: Timestamp,
    ) -> Result<Option<UserInfo>, AuthnError> {
        let Some(der) = credentials.certificate else { return Ok(None) };
        let invalid = |detail: String| AuthnError::Certificate { detail };
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| invalid(error.to_string()))?;
        let validity = certificate.validity();
        let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        if now.as_second() < from || now.as_second() > to {
            return Err(invalid(format!("valid from {from} to {to}, it is {}", now.as_second())));
        }
        let texts = |attributes: Vec<Option<String>>| attributes.into_iter().flatten().collect::<Vec<_>>();
        let subject = certificate.subject();
        let names =
            texts(subject.iter_common_name().map(|name| name.as_str().ok().map(Into::into)).collect());
        let Some(name) = names.into_iter().next().filter(|name| !name.is_empty()) else {
            // Upstream's rule: a certificate without a name says nothing about who it is.
            return Ok(None);
        };
        let groups =
            texts(subject.iter_organization().map(|name| name.as_str().ok().map(Into::into)).collect());
        let fingerprint: String =
            digest(&SHA256, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let credential = vec![format!("X509SHA256={fingerprint}")];
        let extra = [("authentication.kubernetes.io/credential-id".to_owned(), credential)].into();
        Ok(Some(UserInfo { name, uid: String::new(), groups, extra }))
    }
}

/// The DER form of the first certificate of a PEM text.
pub(crate) fn pem_to_der(pem: &str) -> Option<Vec<u8>> {
    let body = pem.split_once("-----BEGIN CERTIFICATE-----")?.1.split_once("-----END CERTIFICATE-----")?.0;
    STANDARD.decode(body.split_ascii_whitespace().collect::<String>()).ok()
}
