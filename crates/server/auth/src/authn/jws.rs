//! Compact JWS (RFC 7515) with ES256 (RFC 7518 §3.4), and the key documents that go with it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The DER that precedes an uncompressed P-256 point in a SubjectPublicKeyInfo (RFC 5480 §2).
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Longer ones are not looked at; the server's own are some 1,200 bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Why a key or a token is not one.
#[derive(Debug, thiserror::Error)]
pub enum JwsError {
    /// Not the PKCS #8 form of a P-256 key.
    #[error("signing key: {detail}")]
    Key {
        /// What is wrong with it.
        detail: String,
    },
    /// Signing failed.
    #[error("sign token")]
    Sign,
    /// Not three base64url parts of JSON with the header of a signed token.
    #[error("token is malformed: {detail}")]
    Malformed {
        /// What is wrong with it.
        detail: String,
    },
    /// Signed by none of the known keys.
    #[error("token signature is not of a known key")]
    Signature,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// A private key that signs tokens.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    public: PublicKey,
}

/// A public key that tokens are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Tells keys apart: the digest of the key in SPKI form, as upstream computes it.
    pub id: String,
    point: Vec<u8>,
}

/// A key as RFC 7517 writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    #[serde(rename = "use")]
    usage: String,
    kty: String,
    kid: String,
    crv: String,
    alg: String,
    x: String,
    y: String,
}

/// The answer of `/openid/v1/jwks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwks {
    /// All keys that a valid token may be signed with.
    pub keys: Vec<Jwk>,
}

/// The answer of `/.well-known/openid-configuration` (OpenID Connect Discovery 1.0 §3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    /// Who issues the tokens.
    pub issuer: String,
    /// Where the keys are.
    pub jwks_uri: String,
    /// Always `id_token`.
    pub response_types_supported: Vec<String>,
    /// Always `public`.
    pub subject_types_supported: Vec<String>,
    /// Always `ES256`.
    pub id_token_signing_alg_values_supported: Vec<String>,
}

impl SigningKey {
    /// Takes a key in PKCS #8 DER form.
    ///
    /// # Errors
    /// [`JwsError::Key`] if it is not a P-256 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, JwsError> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)
            .map_err(|error| JwsError::Key { detail: error.to_string() })?;
        let public = PublicKey::from_point(pair.public_key().as_ref());
        Ok(Self { pair, random, public })
    }

    /// The other half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs claims into a compact token.
    ///
    /// # Errors
    /// [`JwsError::Sign`] if the system has no randomness, [`JwsError::Malformed`] if the claims are not JSON.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, JwsError> {
        let header = Header { alg: "ES256".into(), kid: self.public.id.clone() };
        let mut token = format!("{}.{}", encode(&header)?, encode(claims)?);
        let signature = self.pair.sign(&self.random, token.as_bytes()).map_err(|_| JwsError::Sign)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }
}

impl PublicKey {
    fn from_point(point: &[u8]) -> Self {
        let spki = [&P256_SPKI, point].concat();
        Self { id: URL_SAFE_NO_PAD.encode(digest(&SHA256, &spki)), point: point.to_vec() }
    }

    fn jwk(&self) -> Jwk {
        // An uncompressed point is 4, x, y (SEC 1 §2.3.3).
        let (x, y) = self.point[1..].split_at((self.point.len() - 1) / 2);
        Jwk {
            usage: "sig".into(),
            kty: "EC".into(),
            kid: self.id.clone(),
            crv: "P-256".into(),
            alg: "ES256".into(),
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
        }
    }
}

/// The document that lists `keys`.
#[must_use]
pub fn jwks(keys: &[PublicKey]) -> Jwks {
    Jwks { keys: keys.iter().map(PublicKey::jwk).collect() }
}

/// The document that tells others how to check tokens of `issuer`.
#[must_use]
pub fn discovery(issuer: &str, jwks_uri: &str) -> Discovery {
    Discovery {
        issuer: issuer.into(),
        jwks_uri: jwks_uri.into(),
        response_types_supported: vec!["id_token".into()],
        subject_types_supported: vec!["public".into()],
        id_token_signing_alg_values_supported: vec!["ES256".into()],
    }
}

/// Reads the claims of a token **without** checking who signed it: only to tell whose token it would be.
///
/// # Errors
/// [`JwsError::Malformed`].
pub fn peek<T: DeserializeOwned>(token: &str) -> Result<T, JwsError> {
    let [_, claims, _] = split(token)?;
    decode("claims", claims)
}

/// Checks a token's signature and reads its claims.
///
/// # Errors
/// [`JwsError::Malformed`] if it is no token, [`JwsError::Signature`] if no key of `keys` signed it.
pub fn verify<T: DeserializeOwned>(token: &str, keys: &[PublicKey]) -> Result<T, JwsError> {
    let [header, claims, signature] = split(token)?;
    let header: Header = decode("header", header)?;
    // Only one algorithm, so that a token cannot choose a weaker one (RFC 8725 §3.1).
    if header.alg != "ES256" {
        return Err(JwsError::Malformed { detail: format!("algorithm {:?} is not ES256", header.alg) });
    }
    let signed = &token[..token.len() - signature.len() - 1];
    let signature = unbase64("signature", signature)?;
    let signs = |key: &&PublicKey| {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point)
            .verify(signed.as_bytes(), &signature)
            .is_ok()
    };
    let candidates = keys.iter().filter(|key| header.kid.is_empty() || key.id == header.kid);
    candidates.into_iter().find(signs).ok_or(JwsError::Signature)?;
    decode("claims", claims)
}

fn split(token: &str) -> Result<[&str; 3], JwsError> {
    let malformed = |detail: &str| JwsError::Malformed { detail: detail.into() };
    if token.len() > MAX_TOKEN_BYTES {
        return Err(malformed("longer than 16 KiB"));
    }
    let parts: Vec<_> = token.splitn(4, '.').collect();
    parts.try_into().map_err(|_| malformed("not three parts"))
}

fn encode(value: &impl Serialize) -> Result<String, JwsError> {
    let json =
        serde_json::to_vec(value).map_err(|error| JwsError::Malformed { detail: error.to_string() })?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

fn unbase64(part: &str, text: &str) -> Result<Vec<u8>, JwsError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|error| JwsError::Malformed { detail: format!("{part}: {error}") })
}

fn decode<T: DeserializeOwned>(part: &str, text: &str) -> Result<T, JwsError> {
    serde_json::from_slice(&unbase64(part, text)?)
        .map_err(|error| JwsError::Malformed { detail: format!("{part}: {error}") })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn key() -> SigningKey {
        let pair = rcgen::KeyPair::generate().unwrap();
        SigningKey::from_pkcs8(pair.serialized_der()).unwrap()
    }

    #[test]
    fn signs_and_verifies() {
        let (ours, theirs) = (key(), key());
        let token = ours.sign(&json!({"a": 1})).unwrap();
        let keys = [theirs.public().clone(), ours.public().clone()];
        assert_eq!(verify::<Value>(&token, &keys).unwrap(), json!({"a": 1}));
        assert_eq!(peek::<Value>(&token).unwrap(), json!({"a": 1}));
        assert!(matches!(verify::<Value>(&token, &keys[..1]), Err(JwsError::Signature)));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let ours = key();
        let token = ours.sign(&json!({"a": 1})).unwrap();
        for at in 0..token.len() {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert!(verify::<Value>(&other, &[ours.public().clone()]).is_err(), "byte {at}");
        }
    }

    #[test]
    fn no_weaker_algorithm() {
        let ours = key();
        for alg in ["none", "HS256", "RS256"] {
            let header = encode(&json!({"alg": alg})).unwrap();
            let token = format!("{header}.{}.", encode(&json!({})).unwrap());
            let error = verify::<Value>(&token, &[ours.public().clone()]).unwrap_err();
            assert!(error.to_string().contains("is not ES256"), "{error}");
        }
        for text in ["", "a", "a.b", "a.b.c.d", "..", "\u{e9}.b.c"] {
            assert!(matches!(verify::<Value>(text, &[]), Err(JwsError::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn documents_name_the_key() {
        let ours = key();
        let document = serde_json::to_value(jwks(&[ours.public().clone()])).unwrap();
        let jwk = &document["keys"][0];
        assert_eq!(jwk["kid"], ours.public().id);
        assert_eq!(
            (&jwk["use"], &jwk["kty"], &jwk["alg"], &jwk["crv"]),
            (&json!("sig"), &json!("EC"), &json!("ES256"), &json!("P-256"))
        );
        // Both coordinates are 32 bytes: 43 characters.
        assert_eq!((jwk["x"].as_str().unwrap().len(), jwk["y"].as_str().unwrap().len()), (43, 43));
    }
}
