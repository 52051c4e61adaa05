//! The CA: issues certificates, and tells whether one on disk is still what is wanted.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Identity, PkiError, Request, Usage, files};
use crate::authn::pem_to_der;

/// kubeadm's lives: ten years for the CA, one for everything else.
const CA_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Certificates are good from a little before they are made, for machines whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(300);

/// The cluster's CA.
pub struct Authority {
    pub certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

impl Authority {
    /// Reads the CA, or makes it if neither half is there.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, PkiError> {
        let (certificate, key) = (directory.join("ca.crt"), directory.join("ca.key"));
        let damaged = |path: &Path, detail: String| PkiError::Damaged { path: path.into(), detail };
        let (certificate_pem, pair) = match (files::read(&certificate)?, files::read(&key)?) {
            // The key is written first, so a key alone is a first start that was cut short.
            (None, pem) => {
                let pair = pem.map_or_else(new_key, |pem| KeyPair::from_pem(&pem));
                let pair = pair.map_err(|error| damaged(&key, error.to_string()))?;
                let made = new_authority(&pair, now).map_err(issue_error("ca"))?;
                files::replace(&key, &pair.serialize_pem())?;
                files::replace(&certificate, &made)?;
                (made, pair)
            }
            (Some(_), None) => return Err(damaged(&key, "it is missing".into())),
            (Some(pem), Some(key_pem)) => {
                let pair = KeyPair::from_pem(&key_pem).map_err(|error| damaged(&key, error.to_string()))?;
                (pem, pair)
            }
        };
        let der =
            pem_to_der(&certificate_pem).ok_or_else(|| damaged(&certificate, "it is not PEM".into()))?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|error| damaged(&certificate, error.to_string()))?;
        if parsed.public_key().subject_public_key.data != pair.public_key_raw() {
            return Err(damaged(&certificate, "it does not fit ca.key".into()));
        }
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, pair)
            .map_err(|error| damaged(&certificate, error.to_string()))?;
        Ok(Self { certificate_pem, issuer, der })
    }

    /// Issues what is wanted.
    pub fn issue(&self, request: &Request, now: Timestamp) -> Result<Identity, PkiError> {
        let fault = || issue_error(&request.file);
        let pair = new_key().map_err(fault())?;
        let mut params = CertificateParams::default();
        set_life(&mut params, now, LEAF_LIFE);
        params.distinguished_name = name(&request.common_name, &request.organizations);
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match request.usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        for host in request.dns_names.iter().collect::<BTreeSet<_>>() {
            let bad = |_| PkiError::Host { name: request.file.clone(), host: host.clone() };
            params.subject_alt_names.push(SanType::DnsName(host.as_str().try_into().map_err(bad)?));
        }
        let addresses: BTreeSet<_> = request.addresses.iter().collect();
        params.subject_alt_names.extend(addresses.into_iter().map(|address| SanType::IpAddress(*address)));
        let certificate = params.signed_by(&pair, &self.issuer).map_err(fault())?;
        let (from, to) = (now - BACKDATE, now + LEAF_LIFE);
        Ok(Identity {
            certificate_pem: certificate.pem(),
            key_pem: pair.serialize_pem(),
            renew_at: renewal(from.as_second(), to.as_second()),
        })
    }

    /// Takes a pair from disk, if it is what is wanted and will be for a while.
    pub fn accept(
        &self,
        request: &Request,
        certificate: String,
        key: String,
        now: Timestamp,
    ) -> Option<Identity> {
        let der = pem_to_der(&certificate)?;
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        let (_, ca) = X509Certificate::from_der(&self.der).ok()?;
        parsed.verify_signature(Some(ca.public_key())).ok()?;
        let pair = KeyPair::from_pem(&key).ok()?;
        let fits = parsed.public_key().subject_public_key.data == pair.public_key_raw();
        let validity = parsed.validity();
        let renew_at = renewal(validity.not_before.timestamp(), validity.not_after.timestamp());
        let wanted = fits && is_for(&parsed, request) && now < renew_at;
        wanted.then_some(Identity { certificate_pem: certificate, key_pem: key, renew_at })
    }
}

fn issue_error(name: &str) -> impl Fn(rcgen::Error) -> PkiError + use<> {
    let name = name.to_owned();
    move |source| PkiError::Issue { name: name.clone(), source }
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
}

fn new_authority(pair: &KeyPair, now: Timestamp) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    set_life(&mut params, now, CA_LIFE);
    params.distinguished_name = name("kubernetes", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(params.self_signed(pair)?.pem())
}

fn name(common_name: &str, organizations: &[String]) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn set_life(params: &mut CertificateParams, now: Timestamp, life: Duration) {
    let now = SystemTime::from(now);
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + life).into();
}

/// When 30% of the life is left.
fn renewal(from: i64, to: i64) -> Timestamp {
    Timestamp::from_second(to - (to - from) * 3 / 10).unwrap_or(Timestamp::MIN)
}

/// Whether subject, names and use are the wanted ones, no more and no less.
fn is_for(certificate: &X509Certificate<'_>, request: &Request) -> bool {
    let subject = certificate.subject();
    let names: Vec<_> = subject.iter_common_name().filter_map(|name| name.as_str().ok()).collect();
    let organizations: Vec<_> = subject.iter_organization().filter_map(|name| name.as_str().ok()).collect();
    let usage = certificate.extended_key_usage().ok().flatten().map(|extension| extension.value);
    let used = usage.is_some_and(|usage| match request.usage {
        Usage::Server => usage.server_auth,
        Usage::Client => usage.client_auth,
    });
    let (mut hosts, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    for alternative in alternatives.map(|extension| &extension.value.general_names).into_iter().flatten() {
        match alternative {
            GeneralName::DNSName(host) => drop(hosts.insert((*host).to_owned())),
            GeneralName::IPAddress(bytes) => drop(addresses.insert(address(bytes))),
            _ => return false,
        }
    }
    let wanted_addresses: BTreeSet<_> = request.addresses.iter().copied().map(Some).collect();
    names == [request.common_name.as_str()]
        && organizations == request.organizations
        && used
        && hosts == request.dns_names.iter().cloned().collect()
        && addresses == wanted_addresses
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}
