//! Clients over TLS: certificates, tokens, and the kube client both ways.
#![allow(clippy::unwrap_used)]

mod common;

use common::TestServer;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Config};
use std::sync::Arc;
use tokio::net::TcpListener;
use xebec_auth::pki::Request;
use xebec_auth::pki::tls::{ServingCertificate, server_config};

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
    use base64::Engine as _;
    let data = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let mut credentials = serde_json::json!({});
    if let Some(user) = user {
        let identity = server.pki.identity(user, jiff::Timestamp::now()).unwrap();
        credentials = serde_json::json!({
            "client-certificate-data": data(&identity.certificate_pem),
            "client-key-data": data(&identity.key_pem),
        });
    }
    let kubeconfig = serde_json::json!({
        "clusters": [{"name": "c", "cluster": {
            "server": format!("https://{address}"), "certificate-authority-data": data(server.pki.ca_pem())}}],
        "users": [{"name": "u", "user": credentials}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    let kubeconfig = serde_json::from_value(kubeconfig).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap()).unwrap()
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
