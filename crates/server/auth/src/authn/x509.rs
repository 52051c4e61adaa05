//! Client certificates: the common name is the user, every organization a group.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authenticator, AuthnError, Credentials};
use crate::user::UserInfo;

/// A client certificate that the TLS layer has verified against the client CA, read once for all requests of its
/// connection.
#[derive(Clone, Debug)]
pub struct ClientCertificate(Result<Content, String>);

#[derive(Clone, Debug)]
struct Content {
    /// Unix seconds.
    not_before: i64,
    /// Unix seconds.
    not_after: i64,
    /// `None` if it names nobody.
    user: Option<UserInfo>,
}

impl ClientCertificate {
    /// Reads the DER form. What is wrong with it is told to whoever [authenticates](ClientCertificates) by it.
    #[must_use]
    pub fn read(der: &[u8]) -> Self {
        Self(read(der))
    }
}

fn read(der: &[u8]) -> Result<Content, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let validity = certificate.validity();
    let texts = |attributes: Vec<Option<String>>| attributes.into_iter().flatten().collect::<Vec<_>>();
    let subject = certificate.subject();
    let names = texts(subject.iter_common_name().map(|name| name.as_str().ok().map(Into::into)).collect());
    let groups = texts(subject.iter_organization().map(|name| name.as_str().ok().map(Into::into)).collect());
    // Upstream's rule: a certificate without a name says nothing about who it is.
    let user = names.into_iter().next().filter(|name| !name.is_empty()).map(|name| {
        let fingerprint: String =
            digest(&SHA256, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let credential = vec![format!("X509SHA256={fingerprint}")];
        let extra = [("authentication.kubernetes.io/credential-id".to_owned(), credential)].into();
        UserInfo { name, uid: String::new(), groups, extra }
    });
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    Ok(Content { not_before, not_after, user })
}

/// Knows the users of client certificates.
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
        let Some(ClientCertificate(content)) = credentials.certificate else { return Ok(None) };
        let invalid = |detail: String| AuthnError::Certificate { detail };
        let Content { not_before, not_after, user } =
            content.as_ref().map_err(|detail| invalid(detail.clone()))?;
        let now = now.as_second();
        if now < *not_before || now > *not_after {
            return Err(invalid(format!("valid from {not_before} to {not_after}, it is {now}")));
        }
        Ok(user.clone())
    }
}

/// The DER form of the first certificate of a PEM text.
pub(crate) fn pem_to_der(pem: &str) -> Option<Vec<u8>> {
    let body = pem.split_once("-----BEGIN CERTIFICATE-----")?.1.split_once("-----END CERTIFICATE-----")?.0;
    STANDARD.decode(body.split_ascii_whitespace().collect::<String>()).ok()
}
