//! Service-account tokens: signed claims about an account and what the token is bound to (KEP-1205, KEP-4193).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::jws::{self, JwsError, PublicKey, SigningKey};
use super::{Authenticator, AuthnError, Credentials};
use crate::user::{UserInfo, service_account_name};

/// How far the clocks of two machines may differ, in seconds.
const LEEWAY_SECONDS: i64 = 10;
/// How long a token outlives the end of the grace period of what it is bound to, in seconds; upstream's value.
const DELETED_LEEWAY_SECONDS: i64 = 60;

/// The claims of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whom the token is for.
    #[serde(default, with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub aud: Vec<String>,
    /// End of validity, seconds since the epoch.
    pub exp: i64,
    /// Time of issue, seconds since the epoch.
    pub iat: i64,
    /// Who issued it.
    pub iss: String,
    /// The token's own identifier.
    pub jti: String,
    /// What it says about the account.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    /// Start of validity, seconds since the epoch.
    pub nbf: i64,
    /// The account's user name.
    pub sub: String,
}

/// The private claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    /// The account's namespace.
    pub namespace: String,
    /// The node that the token, or the pod it is bound to, is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NamedClaim>,
    /// The pod that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<NamedClaim>,
    /// The secret that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<NamedClaim>,
    /// The account.
    pub serviceaccount: NamedClaim,
}

/// An object in a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedClaim {
    /// Its name.
    pub name: String,
    /// Its uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// What a token shall say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRequest {
    /// The account's namespace.
    pub namespace: String,
    /// The account.
    pub service_account: NamedClaim,
    /// Whom the token is for; the server itself if empty.
    pub audiences: Vec<String>,
    /// How long it is valid, in seconds.
    pub expiration_seconds: i64,
    /// The pod to bind it to.
    pub pod: Option<NamedClaim>,
    /// The node to bind it to, or that the pod is on.
    pub node: Option<NamedClaim>,
    /// The secret to bind it to.
    pub secret: Option<NamedClaim>,
}

/// An object as tokens look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Its uid.
    pub uid: String,
    /// Its deletion timestamp, the end of its grace period, in seconds since the epoch.
    pub deleted_at: Option<i64>,
}

/// The live objects that tokens are checked against; answered from a cache.
pub trait TokenGetter: Send + Sync {
    /// A service account.
    fn service_account(&self, namespace: &str, name: &str) -> Option<Live>;
    /// A pod.
    fn pod(&self, namespace: &str, name: &str) -> Option<Live>;
    /// A secret.
    fn secret(&self, namespace: &str, name: &str) -> Option<Live>;
    /// A node.
    fn node(&self, name: &str) -> Option<Live>;
}

/// Issues tokens.
pub struct ServiceAccountTokens {
    issuer: String,
    audiences: Vec<String>,
    key: Arc<SigningKey>,
}

impl ServiceAccountTokens {
    /// An issuer named `issuer` (a URL) of tokens that are, if nothing else is asked for, for `audiences`.
    #[must_use]
    pub fn new(issuer: &str, audiences: &[String], key: Arc<SigningKey>) -> Self {
        Self { issuer: issuer.into(), audiences: audiences.to_vec(), key }
    }

    /// Issues a token and says when it expires.
    ///
    /// # Errors
    /// If signing fails.
    pub fn issue(&self, request: TokenRequest, now: Timestamp) -> Result<(String, Timestamp), JwsError> {
        let now = now.as_second();
        let exp = now.saturating_add(request.expiration_seconds.max(0));
        let expires = Timestamp::from_second(exp)
            .map_err(|error| JwsError::Malformed { detail: format!("expiration: {error}") })?;
        let aud = if request.audiences.is_empty() { self.audiences.clone() } else { request.audiences };
        let claims = Claims {
            aud,
            exp,
            iat: now,
            iss: self.issuer.clone(),
            jti: new_id(),
            nbf: now,
            sub: service_account_name(&request.namespace, &request.service_account.name),
            kubernetes: KubernetesClaims {
                namespace: request.namespace,
                node: request.node,
                pod: request.pod,
                secret: request.secret,
                serviceaccount: request.service_account,
            },
        };
        Ok((self.key.sign(&claims)?, expires))
    }
}

/// Checks tokens.
pub struct TokenVerifier {
    issuer: String,
    audiences: Vec<String>,
    keys: Vec<PublicKey>,
    getter: Arc<dyn TokenGetter>,
}

impl TokenVerifier {
    /// Takes tokens of `issuer` that are signed by one of `keys` and meant for one of `audiences`.
    #[must_use]
    pub fn new(
        issuer: &str,
        audiences: &[String],
        keys: Vec<PublicKey>,
        getter: Arc<dyn TokenGetter>,
    ) -> Self {
        Self { issuer: issuer.into(), audiences: audiences.to_vec(), keys, getter }
    }

    /// Checks a token for `audiences` (the server's own if empty) and says whose it is and which of them it is for;
    /// `None` if another issuer made it.
    ///
    /// # Errors
    /// What does not hold.
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Option<(UserInfo, Vec<String>)>, AuthnError> {
        #[derive(Deserialize)]
        struct Issuer {
            #[serde(default)]
            iss: String,
        }
        let Ok(Issuer { iss }) = jws::peek(token) else { return Ok(None) };
        if iss != self.issuer {
            return Ok(None);
        }
        let claims: Claims = jws::verify(token, &self.keys).map_err(AuthnError::Token)?;
        let wanted = if audiences.is_empty() { self.audiences.as_slice() } else { audiences };
        let both: Vec<_> = claims.aud.iter().filter(|aud| wanted.contains(aud)).cloned().collect();
        if both.is_empty() {
            return Err(AuthnError::Claim { claim: "aud", found: claims.aud, wanted: wanted.to_vec() });
        }
        self.check(&claims, now)?;
        Ok(Some((user_of(&claims), both)))
    }

    fn check(&self, claims: &Claims, now: Timestamp) -> Result<(), AuthnError> {
        let now = now.as_second();
        if now + LEEWAY_SECONDS < claims.nbf {
            return Err(AuthnError::NotYetValid);
        }
        if now > claims.exp {
            return Err(AuthnError::Expired);
        }
        let KubernetesClaims { namespace, node, pod, secret, serviceaccount } = &claims.kubernetes;
        let subject = service_account_name(namespace, &serviceaccount.name);
        if claims.sub != subject {
            return Err(AuthnError::Claim {
                claim: "sub",
                found: vec![claims.sub.clone()],
                wanted: vec![subject],
            });
        }
        let account = self.getter.service_account(namespace, &serviceaccount.name);
        bound("service account", serviceaccount, account, now)?;
        if let Some(secret) = secret {
            bound("secret", secret, self.getter.secret(namespace, &secret.name), now)?;
        }
        match (pod, node) {
            // The node of a pod-bound token only tells where the pod runs: it is not checked (KEP-4193).
            (Some(pod), _) => bound("pod", pod, self.getter.pod(namespace, &pod.name), now),
            (None, Some(node)) => bound("node", node, self.getter.node(&node.name), now),
            (None, None) => Ok(()),
        }
    }
}

impl Authenticator for TokenVerifier {
    fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: Timestamp,
    ) -> Result<Option<UserInfo>, AuthnError> {
        let Some(token) = credentials.bearer() else { return Ok(None) };
        Ok(self.verify(token, &[], now)?.map(|(user, _)| user))
    }
}

/// Checks that what a token is bound to is still there and still the same.
fn bound(kind: &'static str, claim: &NamedClaim, live: Option<Live>, now: i64) -> Result<(), AuthnError> {
    let lives = |live: &Live| {
        let over = live.deleted_at.is_some_and(|end| now > end + DELETED_LEEWAY_SECONDS);
        live.uid == claim.uid && !over
    };
    if live.as_ref().is_some_and(lives) {
        return Ok(());
    }
    Err(AuthnError::Invalidated { kind, name: claim.name.clone() })
}

fn user_of(claims: &Claims) -> UserInfo {
    let KubernetesClaims { namespace, node, pod, serviceaccount, .. } = &claims.kubernetes;
    let mut user = UserInfo::service_account(namespace, &serviceaccount.name, &serviceaccount.uid);
    let mut extra = BTreeMap::new();
    let mut tell = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    if !claims.jti.is_empty() {
        tell("credential-id", &format!("JTI={}", claims.jti));
    }
    for (kind, claim) in [("pod", pod), ("node", node)] {
        if let Some(claim) = claim {
            tell(&format!("{kind}-name"), &claim.name);
            tell(&format!("{kind}-uid"), &claim.uid);
        }
    }
    user.extra = extra;
    user
}

/// A random UUID (RFC 9562 §5.4).
fn new_id() -> String {
    let mut bits: u128 = rand::random();
    bits = bits & !(0xf << 76) | 4 << 76;
    bits = bits & !(0b11 << 62) | 0b10 << 62;
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// `aud` is one string or a list of them (RFC 7519 §4.1.3).
mod one_or_many {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    pub fn serialize<S: Serializer>(value: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        Ok(match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
    const NOW: i64 = 1_000_000;

    #[derive(Default)]
    struct Objects(BTreeMap<&'static str, Live>);

    impl Objects {
        fn find(&self, kind: &str, name: &str) -> Option<Live> {
            self.0.get(format!("{kind}/{name}").as_str()).cloned()
        }
    }

    impl TokenGetter for Objects {
        fn service_account(&self, _: &str, name: &str) -> Option<Live> {
            self.find("sa", name)
        }
        fn pod(&self, _: &str, name: &str) -> Option<Live> {
            self.find("pod", name)
        }
        fn secret(&self, _: &str, name: &str) -> Option<Live> {
            self.find("secret", name)
        }
        fn node(&self, name: &str) -> Option<Live> {
            self.find("node", name)
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn named(name: &str, uid: &str) -> NamedClaim {
        NamedClaim { name: name.into(), uid: uid.into() }
    }

    fn key() -> Arc<SigningKey> {
        let pair = rcgen::KeyPair::generate().unwrap();
        Arc::new(SigningKey::from_pkcs8(pair.serialized_der()).unwrap())
    }

    fn request() -> TokenRequest {
        TokenRequest {
            namespace: "ns".into(),
            service_account: named("app", "u1"),
            expiration_seconds: 600,
            ..TokenRequest::default()
        }
    }

    /// Issues what `request` asks for and checks it against `objects` after `seconds`.
    fn check(request: TokenRequest, objects: &[(&'static str, &str, Option<i64>)], seconds: i64) -> String {
        let (key, audiences) = (key(), [ISSUER.to_owned()]);
        let issuer = ServiceAccountTokens::new(ISSUER, &audiences, key.clone());
        let (token, expires) = issuer.issue(request, at(NOW)).unwrap();
        assert_eq!(expires, at(NOW + 600));
        let live = |uid: &str, deleted_at| Live { uid: uid.into(), deleted_at };
        let objects = objects.iter().map(|(name, uid, deleted)| (*name, live(uid, *deleted))).collect();
        let verifier =
            TokenVerifier::new(ISSUER, &audiences, vec![key.public().clone()], Arc::new(Objects(objects)));
        let header = format!("Bearer {token}");
        let credentials = Credentials { certificate: None, authorization: Some(&header) };
        match verifier.authenticate(&credentials, at(NOW + seconds)) {
            Ok(user) => user.unwrap().name,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn accounts_must_live_and_be_the_same() {
        let user = "system:serviceaccount:ns:app";
        let gone = "service account token has been invalidated: service account app is gone or another one";
        assert_eq!(check(request(), &[("sa/app", "u1", None)], 0), user);
        assert_eq!(check(request(), &[("sa/app", "u2", None)], 0), gone);
        assert_eq!(check(request(), &[], 0), gone);
        assert_eq!(check(request(), &[("sa/app", "u1", None)], 600), user);
        assert_eq!(check(request(), &[("sa/app", "u1", None)], 601), "service account token has expired");
        assert_eq!(check(request(), &[("sa/app", "u1", None)], -10), user);
        assert_eq!(
            check(request(), &[("sa/app", "u1", None)], -11),
            "service account token is not valid yet"
        );
    }

    #[test]
    fn bound_objects_must_live_and_be_the_same() {
        let sa = ("sa/app", "u1", None);
        let user = "system:serviceaccount:ns:app";
        let gone = "service account token has been invalidated: pod web is gone or another one";
        let pod = TokenRequest { pod: Some(named("web", "p1")), node: Some(named("n", "x")), ..request() };
        assert_eq!(check(pod.clone(), &[sa, ("pod/web", "p1", None)], 0), user, "its node is not checked");
        assert_eq!(check(pod.clone(), &[sa, ("pod/web", "p2", None)], 0), gone);
        assert_eq!(check(pod.clone(), &[sa], 0), gone);
        assert_eq!(check(pod.clone(), &[sa, ("pod/web", "p1", Some(NOW))], 60), user, "still going down");
        assert_eq!(check(pod, &[sa, ("pod/web", "p1", Some(NOW))], 61), gone);
        let node = TokenRequest { node: Some(named("n", "x")), ..request() };
        assert_eq!(check(node.clone(), &[sa, ("node/n", "x", None)], 0), user);
        assert!(check(node, &[sa], 0).contains("node n is gone"));
        let secret = TokenRequest { secret: Some(named("s", "x")), ..request() };
        assert!(check(secret, &[sa], 0).contains("secret s is gone"));
    }

    #[test]
    fn audience_issuer_and_key_must_match() {
        let sa = ("sa/app", "u1", None);
        let other = TokenRequest { audiences: vec!["vault".into()], ..request() };
        let refused = format!("token aud [\"vault\"] is not one of [{ISSUER:?}]");
        assert_eq!(check(other, &[sa], 0), refused);

        let (key, objects) =
            (key(), Objects([("sa/app", Live { uid: "u1".into(), deleted_at: None })].into()));
        let verifier =
            TokenVerifier::new(ISSUER, &["api".into()], vec![key.public().clone()], Arc::new(objects));
        let issue = |issuer: &str, key, aud: &str| {
            let request = TokenRequest { audiences: vec![aud.into(), "x".into()], ..request() };
            ServiceAccountTokens::new(issuer, &[], key).issue(request, at(NOW)).unwrap().0
        };
        let token = issue(ISSUER, key.clone(), "vault");
        let (_, audiences) =
            verifier.verify(&token, &["vault".into(), "y".into()], at(NOW)).unwrap().unwrap();
        assert_eq!(audiences, ["vault"], "a review asks for other audiences");
        let foreign = issue("https://elsewhere", key, "api");
        assert!(
            verifier.verify(&foreign, &[], at(NOW)).unwrap().is_none(),
            "another authenticator's business"
        );
        let forged = issue(ISSUER, self::key(), "api");
        assert!(matches!(
            verifier.verify(&forged, &[], at(NOW)),
            Err(AuthnError::Token(JwsError::Signature))
        ));
        assert!(verifier.verify("not-a-jwt", &[], at(NOW)).unwrap().is_none());
    }

    #[test]
    fn claims_are_upstreams() {
        let request =
            TokenRequest { pod: Some(named("web", "p1")), node: Some(named("n", "x")), ..request() };
        let issuer = ServiceAccountTokens::new(ISSUER, &["api".into()], key());
        let (token, _) = issuer.issue(request, at(NOW)).unwrap();
        let mut claims: Value = jws::peek(&token).unwrap();
        let id = claims["jti"].take();
        assert_eq!(id.as_str().unwrap().len(), 36);
        assert_eq!(&id.as_str().unwrap()[14..15], "4");
        let wanted = json!({
            "aud": ["api"], "exp": NOW + 600, "iat": NOW, "nbf": NOW, "iss": ISSUER, "jti": null,
            "sub": "system:serviceaccount:ns:app",
            "kubernetes.io": {
                "namespace": "ns",
                "serviceaccount": {"name": "app", "uid": "u1"},
                "pod": {"name": "web", "uid": "p1"},
                "node": {"name": "n", "uid": "x"},
            },
        });
        assert_eq!(claims, wanted);
        let user = user_of(&jws::peek(&token).unwrap());
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns"]);
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["web"]);
        assert_eq!(user.extra["authentication.kubernetes.io/node-uid"], ["x"]);
        assert_eq!(user.extra["authentication.kubernetes.io/credential-id"][0].len(), 40);
    }
}
