//! Clients over TLS: certificates, tokens, and the kube client both ways.
#![allow(clippy::unwrap_used)]

mod common;

use common::TestServer;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Config};
use std::sync::Arc;
use tokio::net::TcpListener;
use xebec_auth::pki::{Request, ServingCertificate, server_config};

async fn serve(server: &TestServer) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let request = Request::apiserver("cluster.local", &["localhost".into()], &[address.ip()]);
    let identity = server.pki.identity(&request, jiff::Timestamp::now()).unwrap();
    let tls =
        server_config(Arc::new(ServingCertificate::new(&identity).unwrap()), server.pki.ca_pem()).unwrap();
    let (api, cancel) = (server.server.clone(), server.cancel.clone());
    tokio::spawn(async move { api.serve(listener, Arc::new(tls), cancel).await });
    address
}

async fn client(server: &TestServer, address: std::net::SocketAddr, user: Option<&Request>) -> Client {
    let mut config = Config::new(format!("https://{address}").parse().unwrap());
    let pem: Vec<u8> = server.pki.ca_pem().into();
    config.root_cert = Some(
        rustls::pki_types::pem::PemObject::pem_slice_iter(&pem)
            .map(|der: Result<rustls::pki_types::CertificateDer<'_>, _>| der.unwrap().to_vec())
            .collect(),
    );
    if let Some(user) = user {
        let identity = server.pki.identity(user, jiff::Timestamp::now()).unwrap();
        config.auth_info.client_certificate_data = Some(encoded(&identity.certificate_pem));
        config.auth_info.client_key_data = Some(secret(&identity.key_pem));
    }
    Client::try_from(config).unwrap()
}

fn encoded(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn secret(text: &str) -> kube::config::SecretString {
    serde_json::from_value(serde_json::Value::String(encoded(text))).unwrap()
}

#[tokio::test]
async fn clients_with_and_without_certificates() {
    let server = TestServer::start().await;
    let address = serve(&server).await;
    let admin = client(&server, address, Some(&Request::admin())).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(admin.clone());
    let map =
        serde_json::from_value(serde_json::json!({"metadata": {"name": "m"}, "data": {"a": "b"}})).unwrap();
    let made = maps.create(&PostParams::default(), &map).await.unwrap();
    assert!(made.metadata.uid.is_some());
    let patch = serde_json::json!({"data": {"a": "c"}});
    let patched = maps.patch("m", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    assert_eq!(patched.data.unwrap()["a"], "c");
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);

    let anonymous = client(&server, address, None).await;
    let refused = Api::<Pod>::default_namespaced(anonymous).list(&ListParams::default()).await.unwrap_err();
    assert!(
        refused.to_string().contains("User \"system:anonymous\" cannot list resource \"pods\""),
        "{refused}"
    );
}

#[tokio::test]
async fn the_kube_client_watches_in_process() {
    use futures::StreamExt;
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let mut events =
        Box::pin(kube::runtime::watcher(maps.clone(), kube::runtime::watcher::Config::default()));
    let map = serde_json::from_value(serde_json::json!({"metadata": {"name": "m"}})).unwrap();
    let created = tokio::spawn({
        let maps = maps.clone();
        async move { maps.create(&PostParams::default(), &map).await }
    });
    created.await.unwrap().unwrap();
    loop {
        match events.next().await.unwrap().unwrap() {
            kube::runtime::watcher::Event::Apply(map) | kube::runtime::watcher::Event::InitApply(map) => {
                assert_eq!(map.metadata.name.as_deref(), Some("m"));
                break;
            }
            _ => {}
        }
    }
    maps.delete("m", &kube::api::DeleteParams::default()).await.unwrap();
    while !matches!(events.next().await.unwrap().unwrap(), kube::runtime::watcher::Event::Delete(_)) {}
}
