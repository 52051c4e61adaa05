//! The PKI on disk, and in real handshakes.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::{ClientConnection, ServerConnection, Stream};
use xebec_auth::authn::{Authenticator, Authenticators, ClientCertificate, ClientCertificates, Credentials};
use xebec_auth::pki::tls::{ServingCertificate, client_config, server_config};
use xebec_auth::pki::{Identity, Pki, PkiError, Request};
use xebec_auth::{UserInfo, groups};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn apiserver(addresses: &[&str]) -> Request {
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Request::apiserver("cluster.local", &["node-1".into()], &addresses)
}

/// Lets client and server talk over memory until both have sent one byte; gives the client certificate seen.
fn handshake(
    pki: &Pki,
    serving: &Identity,
    client: Option<&Identity>,
    name: &str,
) -> Result<Option<Vec<u8>>, String> {
    let certificate = Arc::new(ServingCertificate::new(serving).unwrap());
    let server = Arc::new(server_config(certificate, pki.ca_pem()).unwrap());
    let client = Arc::new(client_config(pki.ca_pem(), client).unwrap());
    let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let name = name.to_owned().try_into().unwrap();
    std::thread::scope(|scope| {
        let server = scope.spawn(move || {
            let mut connection = ServerConnection::new(server).unwrap();
            let mut stream = Stream::new(&mut connection, &mut theirs);
            let mut byte = [0];
            stream
                .read_exact(&mut byte)
                .and_then(|()| stream.write_all(&byte))
                .map_err(|error| error.to_string())?;
            let chain = connection.peer_certificates();
            Ok::<_, String>(chain.and_then(|chain| chain.first()).map(|certificate| certificate.to_vec()))
        });
        let mut connection = ClientConnection::new(client, name).unwrap();
        let mut stream = Stream::new(&mut connection, &mut ours);
        let talked = stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0]));
        drop(ours);
        let seen = server.join().unwrap();
        talked.map_err(|error| error.to_string())?;
        seen
    })
}

#[test]
fn a_client_certificate_says_who_one_is() {
    let directory = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let pki = Pki::open(&directory.path().join("pki"), now).unwrap();
    let serving = pki.identity(&apiserver(&["10.96.0.1"]), now).unwrap();
    let authenticators = Authenticators::new(vec![Box::new(ClientCertificates)], true);
    let who = |request: &Request| {
        let identity = pki.identity(request, now).unwrap();
        let der = handshake(&pki, &serving, Some(&identity), "localhost").unwrap().unwrap();
        let certificate = ClientCertificate::read(&der);
        let credentials = Credentials { certificate: Some(&certificate), authorization: None };
        authenticators.authenticate(&credentials, now).unwrap()
    };
    let admin = who(&Request::admin());
    assert_eq!(
        (&*admin.name, admin.groups),
        ("kubernetes-admin", vec![groups::MASTERS.to_owned(), groups::AUTHENTICATED.to_owned()])
    );
    let node = who(&Request::kubelet("node-1"));
    assert_eq!((&*node.name, node.is_in(groups::NODES)), ("system:node:node-1", true));
    assert!(node.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));

    assert_eq!(handshake(&pki, &serving, None, "localhost"), Ok(None), "no certificate is fine, too");
    assert_eq!(authenticators.authenticate(&Credentials::default(), now).unwrap(), UserInfo::anonymous());
    for name in
        ["kubernetes.default.svc.cluster.local", "kubernetes", "node-1", "127.0.0.1", "::1", "10.96.0.1"]
    {
        assert_eq!(handshake(&pki, &serving, None, name), Ok(None), "{name}");
    }
    let error = handshake(&pki, &serving, None, "elsewhere").unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}

#[test]
fn strangers_and_the_expired_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let pki = Pki::open(&directory.path().join("ours"), now).unwrap();
    let theirs = Pki::open(&directory.path().join("theirs"), now).unwrap();
    let serving = pki.identity(&apiserver(&[]), now).unwrap();
    let stranger = theirs.identity(&Request::admin(), now).unwrap();
    assert!(handshake(&pki, &serving, Some(&stranger), "localhost").is_err(), "of another CA");
    let as_client = handshake(&pki, &serving, Some(&serving), "localhost");
    assert!(as_client.is_err(), "a serving certificate is no client certificate");

    let admin = pki.identity(&Request::admin(), now).unwrap();
    let der = handshake(&pki, &serving, Some(&admin), "localhost").unwrap().unwrap();
    let certificate = ClientCertificate::read(&der);
    let credentials = Credentials { certificate: Some(&certificate), authorization: None };
    let error = ClientCertificates.authenticate(&credentials, now + DAY * 366).unwrap_err();
    assert!(error.to_string().starts_with("client certificate: valid from"), "{error}");
    assert!(ClientCertificates.authenticate(&credentials, now - DAY).is_err(), "not yet");
}

#[test]
fn certificates_are_kept_and_renewed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pki");
    let now = Timestamp::now();
    let pki = Pki::open(&path, now).unwrap();
    let first = pki.identity(&apiserver(&["10.0.0.1"]), now).unwrap();
    let reopened = Pki::open(&path, now).unwrap();
    assert_eq!(reopened.ca_pem(), pki.ca_pem());
    assert_eq!(reopened.signing_key().public(), pki.signing_key().public());
    assert!(reopened.identity(&apiserver(&["10.0.0.1"]), now + DAY * 250).unwrap() == first, "kept");
    assert!(first.renew_at > now + DAY * 255 && first.renew_at < now + DAY * 257);
    let renewed = pki.identity(&apiserver(&["10.0.0.1"]), now + DAY * 258).unwrap();
    assert!(renewed != first, "30% are left");
    let moved = pki.identity(&apiserver(&["10.0.0.2"]), now + DAY * 258).unwrap();
    assert!(moved != renewed, "another address");

    let admin = pki.identity(&Request::admin(), now).unwrap();
    std::fs::write(path.join("admin.key"), &first.key_pem).unwrap();
    assert!(pki.identity(&Request::admin(), now).unwrap() != admin, "key and certificate do not fit");
    std::fs::write(path.join("admin.crt"), "rubbish").unwrap();
    pki.identity(&Request::admin(), now).unwrap();
    let bad = Request { dns_names: vec!["n\u{e9}".into()], ..apiserver(&[]) };
    assert!(matches!(pki.identity(&bad, now), Err(PkiError::Host { .. })));
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_damaged_ca_is_never_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let make = |name: &str| {
        let path = directory.path().join(name);
        Pki::open(&path, now).unwrap();
        path
    };
    let refused = |path: &Path| match Pki::open(path, now) {
        Err(PkiError::Damaged { path, detail }) => {
            format!("{} {detail}", path.file_name().unwrap().display())
        }
        other => panic!("{:?}", other.map(|_| ())),
    };
    let path = make("no-key");
    std::fs::remove_file(path.join("ca.key")).unwrap();
    assert_eq!(refused(&path), "ca.key it is missing");
    let path = make("rubbish");
    std::fs::write(path.join("ca.crt"), "rubbish").unwrap();
    assert_eq!(refused(&path), "ca.crt it is not PEM");
    let (path, other) = (make("mixed"), make("other"));
    std::fs::copy(other.join("ca.key"), path.join("ca.key")).unwrap();
    assert_eq!(refused(&path), "ca.crt it does not fit ca.key");
    let path = make("sa");
    std::fs::write(path.join("sa.key"), "rubbish").unwrap();
    assert!(refused(&path).starts_with("sa.key "));
    let path = make("cut-short");
    std::fs::remove_file(path.join("ca.crt")).unwrap();
    Pki::open(&path, now).unwrap();
}

#[test]
fn kubeconfigs() {
    let directory = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let pki = Pki::open(&directory.path().join("pki"), now).unwrap();
    let config = pki.kubeconfig(&Request::admin(), "https://127.0.0.1:6443", now).unwrap();
    let path = directory.path().join("admin.conf");
    config.write(&path).unwrap();
    config.write(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    let told: Vec<_> = text.lines().filter(|line| !line.contains("-data:")).collect();
    let wanted = [
        "apiVersion: v1",
        "kind: Config",
        "current-context: kubernetes-admin@xebec",
        "preferences: {}",
        "clusters:",
        "- name: xebec",
        "  cluster:",
        "    server: https://127.0.0.1:6443",
        "contexts:",
        "- name: kubernetes-admin@xebec",
        "  context:",
        "    cluster: xebec",
        "    user: kubernetes-admin",
        "users:",
        "- name: kubernetes-admin",
        "  user:",
    ];
    assert_eq!(told, wanted);
}
