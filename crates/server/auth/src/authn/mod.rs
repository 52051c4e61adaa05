//! Authentication: from what a request presents to who it is from.
//!
//! [`Authenticators`] asks, in this order, for a client certificate and a bearer token. Whoever presents nothing is
//! anonymous; whoever presents something that does not hold gets 401 and is never taken for anonymous.

mod impersonate;
pub mod jws;
mod service_account;
mod x509;

use jiff::Timestamp;

pub use impersonate::{Impersonation, ImpersonationCheck, ImpersonationError};
pub use service_account::{
    Claims, KubernetesClaims, Live, NamedClaim, ServiceAccountTokens, TokenGetter, TokenRequest,
    TokenVerifier,
};
pub(crate) use x509::pem_to_der;
pub use x509::{ClientCertificate, ClientCertificates};

use crate::user::{UserInfo, groups};
use jws::JwsError;

/// What a request presents.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'a> {
    /// The client's certificate, which the TLS layer has verified against the client CA.
    pub certificate: Option<&'a ClientCertificate>,
    /// The value of the `Authorization` header.
    pub authorization: Option<&'a str>,
}

impl<'a> Credentials<'a> {
    /// The bearer token (RFC 6750 §2.1), if there is one.
    #[must_use]
    pub fn bearer(&self) -> Option<&'a str> {
        let (scheme, token) = self.authorization?.trim().split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
    }
}

/// Why what was presented does not hold. Clients are only told [`AuthnError::MESSAGE`].
#[derive(Debug, thiserror::Error)]
pub enum AuthnError {
    /// The client certificate cannot be read, or its time has not come or is over.
    #[error("client certificate: {detail}")]
    Certificate {
        /// What is wrong with it.
        detail: String,
    },
    /// The token is not one, or not signed by this cluster.
    #[error("bearer token")]
    Token(#[source] JwsError),
    /// The token was issued by or for somebody else.
    #[error("token {claim} {found:?} is not one of {wanted:?}")]
    Claim {
        /// The claim's name.
        claim: &'static str,
        /// What it says.
        found: Vec<String>,
        /// What it may say.
        wanted: Vec<String>,
    },
    /// The token's time has not come.
    #[error("service account token is not valid yet")]
    NotYetValid,
    /// The token's time is over.
    #[error("service account token has expired")]
    Expired,
    /// What the token is bound to is gone.
    #[error("service account token has been invalidated: {kind} {name} is gone or another one")]
    Invalidated {
        /// What kind of object it is bound to.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A bearer token that no authenticator knows.
    #[error("unknown bearer token")]
    Unknown,
}

impl AuthnError {
    /// All that a client is told, with status 401.
    pub const MESSAGE: &'static str = "Unauthorized";
}

/// One way to show who one is.
pub trait Authenticator: Send + Sync {
    /// Says who presents these credentials; `None` if they hold nothing this authenticator looks at.
    ///
    /// # Errors
    /// If what it looks at does not hold.
    fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: Timestamp,
    ) -> Result<Option<UserInfo>, AuthnError>;
}

/// The chain that the server asks.
pub struct Authenticators {
    chain: Vec<Box<dyn Authenticator>>,
    anonymous: bool,
}

impl Authenticators {
    /// A chain of authenticators, asked in order; `anonymous` says whether those who present nothing are let
    /// through to authorization.
    #[must_use]
    pub fn new(chain: Vec<Box<dyn Authenticator>>, anonymous: bool) -> Self {
        Self { chain, anonymous }
    }

    /// Says who presents these credentials.
    ///
    /// # Errors
    /// The last failure, if what was presented convinced nobody; [`AuthnError::Unknown`] if nobody knew it, or if
    /// nothing was presented and anonymous requests are off.
    pub fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: Timestamp,
    ) -> Result<UserInfo, AuthnError> {
        let mut failure = None;
        for authenticator in &self.chain {
            match authenticator.authenticate(credentials, now) {
                Ok(Some(mut user)) => {
                    user.join(groups::AUTHENTICATED);
                    return Ok(user);
                }
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => Err(error),
            None if credentials.bearer().is_none() && self.anonymous => Ok(UserInfo::anonymous()),
            None => Err(AuthnError::Unknown),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Fixed(Result<Option<&'static str>, ()>);

    impl Authenticator for Fixed {
        fn authenticate(&self, _: &Credentials<'_>, _: Timestamp) -> Result<Option<UserInfo>, AuthnError> {
            let user = self.0.map_err(|()| AuthnError::Expired)?;
            Ok(user.map(|name| UserInfo { name: name.into(), ..UserInfo::default() }))
        }
    }

    fn ask(
        answers: &[Result<Option<&'static str>, ()>],
        authorization: Option<&str>,
        anonymous: bool,
    ) -> String {
        let chain = answers.iter().map(|answer| Box::new(Fixed(*answer)) as Box<dyn Authenticator>).collect();
        let credentials = Credentials { certificate: None, authorization };
        match Authenticators::new(chain, anonymous).authenticate(&credentials, Timestamp::UNIX_EPOCH) {
            Ok(user) => format!("{} {:?}", user.name, user.groups),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_chain() {
        let (yes, no, bad) = (Ok(Some("ann")), Ok(None), Err(()));
        assert_eq!(ask(&[no, yes], None, false), r#"ann ["system:authenticated"]"#);
        assert_eq!(ask(&[bad, yes], None, false), r#"ann ["system:authenticated"]"#, "a later one may know");
        assert_eq!(ask(&[bad, no], None, true), "service account token has expired", "never anonymous");
        assert_eq!(ask(&[no], None, true), r#"system:anonymous ["system:unauthenticated"]"#);
        assert_eq!(ask(&[no], None, false), "unknown bearer token");
        assert_eq!(ask(&[no], Some("Bearer x"), true), "unknown bearer token");
    }

    #[test]
    fn bearer_tokens() {
        let bearer = |header| Credentials { certificate: None, authorization: Some(header) }.bearer();
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Bearer "), None);
        assert_eq!(bearer("Basic abc"), None);
    }
}
