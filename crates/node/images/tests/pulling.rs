//! Pulls from Debian's docker-registry and from one made here that wants credentials.
#![allow(clippy::unwrap_used)]

mod fixture;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fixture::{DockerRegistry, Image, Layer, image, index, sha};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use xebec_cri::{AuthConfig, CriError, ImageService};
use xebec_images::{ImageStore, Options};

fn sample() -> Image {
    let big: String = (0u64..300_000).map(|i| char::from(b'a' + (i * i % 26) as u8)).collect();
    image(&[
        Layer::new().file("big", &big).bytes(),
        Layer::new().file("second", "2").bytes(),
        Layer::new().file("third", "3").bytes(),
    ])
}

#[tokio::test]
async fn images_come_from_a_real_registry() {
    let registry = DockerRegistry::start();
    let sample = sample();
    registry.push("team/app", "v1", &sample);
    registry.push_manifest("team/app", "multi", "index", &index_without_others(&sample));
    let dir = TempDir::new().unwrap();
    let store = ImageStore::open(dir.path(), Options::default()).unwrap();
    let name = format!("{}/team/app", registry.address);
    let pulled = store.pull_image(&format!("{name}:v1"), None).await.unwrap();
    assert_eq!(pulled.id, sha(&sample.config));
    assert_eq!(pulled.repo_digests, [format!("{name}@{}", sha(&sample.manifest))]);
    assert!(pulled.size > 300_000);
    assert!(store.rootfs(&pulled.id).unwrap().lowerdirs[2].join("big").exists());
    let multi = store.pull_image(&format!("{name}:multi"), None).await.unwrap();
    assert_eq!(multi.id, pulled.id);
    assert_eq!(multi.repo_tags.len(), 2);
    let by_digest = format!("{name}@{}", sha(&sample.manifest));
    assert_eq!(store.pull_image(&by_digest, None).await.unwrap().id, pulled.id);
    assert_eq!(store.image_status(&by_digest).await.unwrap().unwrap().id, pulled.id);

    let missing = store.pull_image(&format!("{name}:none"), None).await.unwrap_err();
    let CriError::Pull { reason, message } = missing else { panic!("{missing}") };
    assert_eq!(reason, "ErrImagePull");
    assert!(message.ends_with(&format!("{name}:none: not found")), "{message}");
    assert!(matches!(store.pull_image("Not//valid", None).await, Err(CriError::Invalid(_))));
    assert_eq!(store.image_fs_info().await.unwrap().inodes_used, 3);
    for tag in ["v1", "multi"] {
        store.remove_image(&format!("{name}:{tag}")).await.unwrap();
    }
    assert!(store.list_images().await.unwrap().is_empty());
    assert_eq!(store.image_fs_info().await.unwrap().used_bytes, 0);
}

/// Docker's registry refuses indexes that name manifests it does not have.
fn index_without_others(image: &Image) -> Vec<u8> {
    let mut index: serde_json::Value = serde_json::from_slice(&index(image)).unwrap();
    index["manifests"].as_array_mut().unwrap().remove(0);
    serde_json::to_vec(&index).unwrap()
}

/// A registry that wants a user, counts requests, and can serve damaged blobs.
#[derive(Default)]
struct Fake {
    documents: HashMap<String, (String, Vec<u8>)>,
    blob_requests: AtomicUsize,
}

impl Fake {
    fn with(image: &Image, damage: bool) -> Self {
        let mut fake = Self::default();
        let mut put = |path: String, kind: &str, body: &[u8]| {
            fake.documents.insert(path, (kind.to_owned(), body.to_vec()));
        };
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        put("/v2/app/manifests/latest".into(), "application/vnd.oci.image.index.v1+json", &index(image));
        put(format!("/v2/app/manifests/{}", sha(&image.manifest)), manifest, &image.manifest);
        for blob in image.blobs.iter().chain([&image.config]) {
            let mut served = blob.clone();
            if damage && blob != &image.config {
                *served.last_mut().unwrap() ^= 1;
            }
            put(format!("/v2/app/blobs/{}", sha(blob)), "application/octet-stream", &served);
        }
        fake
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        // user:secret
        let known = request.headers().get("authorization").is_some_and(|v| v == "Basic dXNlcjpzZWNyZXQ=");
        if !known {
            return Response::builder()
                .status(401)
                .header("www-authenticate", "Basic realm=\"test\"")
                .body(Full::default())
                .unwrap();
        }
        if request.uri().path().contains("/blobs/") {
            self.blob_requests.fetch_add(1, Ordering::Relaxed);
        }
        match self.documents.get(request.uri().path()) {
            Some((kind, body)) => {
                Response::builder().header("content-type", kind).body(Full::from(body.clone())).unwrap()
            }
            None => Response::builder().status(404).body(Full::default()).unwrap(),
        }
    }

    async fn serve(self: Arc<Self>) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let fake = self.clone();
                let service = hyper::service::service_fn(move |request| {
                    let answer = fake.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        address
    }
}

#[tokio::test]
async fn credentials_are_used_and_pulls_shared() {
    let sample = sample();
    let fake = Arc::new(Fake::with(&sample, false));
    let address = fake.clone().serve().await;
    let dir = TempDir::new().unwrap();
    let store = ImageStore::open(dir.path(), Options::default()).unwrap();
    let name = format!("{address}/app");
    let denied = store.pull_image(&name, None).await.unwrap_err();
    assert!(denied.to_string().contains("pull access denied"), "{denied}");
    let auth = AuthConfig { username: "user".into(), password: "secret".into(), ..AuthConfig::default() };
    let pulls = (0..8).map(|_| store.pull_image(&name, Some(&auth)));
    for result in futures::future::join_all(pulls).await {
        assert_eq!(result.unwrap().id, sha(&sample.config));
    }
    assert_eq!(fake.blob_requests.load(Ordering::Relaxed), 4, "three layers and the configuration, once");
    // Again: the layers are here.
    store.pull_image(&name, Some(&auth)).await.unwrap();
    assert_eq!(fake.blob_requests.load(Ordering::Relaxed), 5);
    let identity = AuthConfig { identity_token: "t".into(), ..AuthConfig::default() };
    assert!(
        store.pull_image(&name, Some(&identity)).await.unwrap_err().to_string().contains("identityToken")
    );
}

#[tokio::test]
async fn damaged_blobs_are_refused() {
    let sample = sample();
    let address = Arc::new(Fake::with(&sample, true)).serve().await;
    let dir = TempDir::new().unwrap();
    let store = ImageStore::open(dir.path(), Options::default()).unwrap();
    let auth = AuthConfig { username: "user".into(), password: "secret".into(), ..AuthConfig::default() };
    let error = store.pull_image(&format!("{address}/app"), Some(&auth)).await.unwrap_err();
    assert!(error.to_string().to_lowercase().contains("digest"), "{error}");
    assert!(store.list().is_empty());
    assert_eq!(std::fs::read_dir(dir.path().join("layers")).unwrap().count(), 0);
}
