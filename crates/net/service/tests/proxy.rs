//! The proxy against an API that the test plays. Needs root.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../cni/tests/lab/mod.rs"]
mod lab;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use lab::{Lab, serve, tcp};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use xebec_netlink::NetNs;
use xebec_service::{Proxy, ProxyConfig};

type Frame = http_body::Frame<bytes::Bytes>;

/// Lists what it is given and streams what is sent.
#[derive(Clone, Default)]
struct FakeApi {
    lists: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
    watches: Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<Value>>>>,
}

impl FakeApi {
    fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request.uri())) }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, uri: &http::Uri) -> http::Response<Lines> {
        let kind = uri.path().rsplit('/').next().unwrap().to_owned();
        let (sender, receiver) = mpsc::unbounded_channel::<Value>();
        if uri.query().is_some_and(|query| query.contains("watch=")) {
            self.watches.lock().unwrap().insert(kind, sender);
        } else {
            let items = self.lists.lock().unwrap().get(&kind).cloned().unwrap_or_default();
            let metadata = json!({"resourceVersion": "1"});
            let list = json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items});
            sender.send(list).unwrap();
        }
        http::Response::new(Lines(receiver))
    }

    async fn send(&self, kind: &str, event: &str, object: Value) {
        wait(|| self.watches.lock().unwrap().contains_key(kind)).await;
        let line = json!({"type": event, "object": object});
        self.watches.lock().unwrap()[kind].send(line).unwrap();
    }
}

/// A body of one line per value, open as long as the sender lives.
struct Lines(mpsc::UnboundedReceiver<Value>);

impl http_body::Body for Lines {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Infallible>>> {
        let line = |value: Value| Ok(Frame::data(format!("{value}\n").into()));
        self.0.poll_recv(cx).map(|value| value.map(line))
    }
}

async fn wait(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "condition never held");
        tokio::task::yield_now().await;
    }
}

fn service(version: u32, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "ns", "resourceVersion": version.to_string()},
        "spec": {
            "clusterIP": "10.98.0.10", "clusterIPs": ["10.98.0.10"], "type": "ClusterIP",
            "ports": [{"port": port, "protocol": "TCP", "targetPort": 8080}]
        }
    })
}

fn slice(version: u32, ready: bool, ip: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "web-1", "namespace": "ns", "resourceVersion": version.to_string(),
            "labels": {"kubernetes.io/service-name": "web"}
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": ready}, "nodeName": "node"}]
    })
}

#[test]
fn services_follow_the_api() {
    let mut lab = Lab::new();
    let network = lab.network();
    let (path, pod) = lab.pod("a");
    let ip = lab.block_on(async {
        network.setup().await.unwrap();
        network.add("a", &path, "ns", "a", &[]).await.unwrap().ips[0].to_string()
    });
    serve(&pod, 8080, "a ");
    let api = FakeApi::default();
    api.lists.lock().unwrap().insert("services".into(), vec![service(1, 80)]);
    api.lists.lock().unwrap().insert("endpointslices".into(), vec![slice(1, true, &ip)]);
    let config =
        ProxyConfig::new(vec!["10.99.0.0/16".parse().unwrap()], vec!["10.98.0.0/16".parse().unwrap()]);
    let reach = |node: &NetNs, target: &str| tcp(node, target).is_ok();
    lab.block_on(async {
        let cancel = CancellationToken::new();
        let proxy = Proxy::new(&config).unwrap();
        let mut synced = proxy.synced();
        let (client, token) = (api.client(), cancel.clone());
        let running = tokio::spawn(async move { proxy.run(client, "node", token).await });
        synced.wait_for(|synced| *synced).await.unwrap();
        assert!(reach(&lab.node, "10.98.0.10:80"));
        api.send("services", "MODIFIED", service(2, 81)).await;
        wait(|| reach(&lab.node, "10.98.0.10:81")).await;
        assert!(!reach(&lab.node, "10.98.0.10:80"));
        api.send("endpointslices", "MODIFIED", slice(3, false, &ip)).await;
        wait(|| !reach(&lab.node, "10.98.0.10:81")).await;
        api.send("endpointslices", "MODIFIED", slice(4, true, &ip)).await;
        wait(|| reach(&lab.node, "10.98.0.10:81")).await;
        // Someone else removes the table: the next change repairs everything.
        Proxy::uninstall(&config).await.unwrap();
        assert!(!reach(&lab.node, "10.98.0.10:81"));
        api.send("services", "MODIFIED", service(5, 82)).await;
        wait(|| reach(&lab.node, "10.98.0.10:82")).await;
        cancel.cancel();
        running.await.unwrap().unwrap();
        assert!(reach(&lab.node, "10.98.0.10:82"), "Services outlive the proxy");
        Proxy::uninstall(&config).await.unwrap();
    });
}
