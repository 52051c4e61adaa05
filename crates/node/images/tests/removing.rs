//! What people may remove, and under which names.
#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{Layer, docker_archive, image};
use tempfile::TempDir;
use xebec_images::{ImageError, ImageStore, ImportOptions, Options, Removed};

/// A store with an image under each of the names; `content` tells images apart.
async fn import(store: &ImageStore, content: &str, names: &[&str], pinned: bool) -> String {
    let mut id = String::new();
    for name in names {
        let layers = [Layer::new().file("content", content).bytes()];
        let archive = std::io::Cursor::new(docker_archive(&image(&layers), &layers, name));
        let options = ImportOptions { pinned, ..ImportOptions::default() };
        id = store.import_reader(archive, &options).await.unwrap().remove(0).image.id;
    }
    id
}

#[tokio::test]
async fn tags_go_one_by_one_and_ids_at_once() {
    let dir = TempDir::new().unwrap();
    let store = ImageStore::open(dir.path(), Options::default()).unwrap();
    let one = import(&store, "1", &["a:1", "a:2"], false).await;
    let two = import(&store, "2", &["b:1", "b:2"], false).await;
    assert_eq!(store.remove_unused("a:2").unwrap(), Removed::Tag("docker.io/library/a:2".into()));
    assert_eq!(store.remove_unused("a:1").unwrap(), Removed::Image);
    assert!(store.get(&one).is_none());
    let error = store.remove_unused("a:1").unwrap_err();
    assert_eq!(error.to_string(), "image \"a:1\" not found");
    // As a list shows it, and as the runtime writes it.
    let short = &two["sha256:".len()..][..12];
    assert!(matches!(store.remove_unused(&short[..3]), Err(ImageError::NotFound(_))), "too short");
    assert_eq!(store.remove_unused(short).unwrap(), Removed::Image);
    assert!(store.list().is_empty());
    let again = import(&store, "2", &["b:1"], false).await;
    assert_eq!(store.remove_unused(&again).unwrap(), Removed::Image);
    let pinned = import(&store, "3", &["c:1", "c:2"], true).await;
    for name in ["c:1", &pinned] {
        assert!(matches!(store.remove_unused(name), Err(ImageError::Pinned(_))), "{name}");
    }
    assert_eq!(store.list()[0].repo_tags.len(), 2);
}

#[tokio::test]
async fn the_beginning_of_two_ids_names_neither() {
    let dir = TempDir::new().unwrap();
    let store = ImageStore::open(dir.path(), Options::default()).unwrap();
    // Two ids with the same four first digits, made by what the store itself keeps on disk.
    let one = import(&store, "1", &["a:1"], false).await;
    drop(store);
    let path = dir.path().join("images.json");
    let mut stored: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut twin = stored["images"][0].clone();
    let last = if one.ends_with('0') { "1" } else { "0" };
    twin["id"] = format!("{}{last}", &one[..one.len() - 1]).into();
    twin["repo_tags"] = serde_json::json!(["docker.io/library/b:1"]);
    stored["images"].as_array_mut().unwrap().push(twin);
    std::fs::write(&path, stored.to_string()).unwrap();
    let store = ImageStore::open(dir.path(), Options::default()).unwrap();
    assert_eq!(store.list().len(), 2);
    let error = store.remove_unused(&one["sha256:".len()..][..12]).unwrap_err();
    assert!(error.to_string().contains("beginning of several ids"), "{error}");
    assert_eq!(store.remove_unused(&one).unwrap(), Removed::Image, "a whole id is never in doubt");
    assert_eq!(store.list().len(), 1);
}

#[tokio::test]
async fn an_image_in_use_keeps_its_last_name() {
    let dir = TempDir::new().unwrap();
    let store = ImageStore::open(dir.path(), Options::default()).unwrap();
    let id = import(&store, "1", &["a:1", "a:2"], false).await;
    store.hold("container-1", "a:1").unwrap();
    assert_eq!(store.remove_unused("a:2").unwrap(), Removed::Tag("docker.io/library/a:2".into()));
    for name in ["a:1", &id, &id["sha256:".len()..][..8]] {
        let error = store.remove_unused(name).unwrap_err().to_string();
        let wanted = format!("image {name:?} is in use by a container (container-1): delete the pods first");
        assert_eq!(error, wanted);
    }
    assert!(store.get("a:1").is_some());
    drop(store);
    let store = ImageStore::open(dir.path(), Options::default()).unwrap();
    assert!(store.remove_unused("a:1").is_err(), "also after a restart");
    store.release("container-1").unwrap();
    assert_eq!(store.remove_unused("a:1").unwrap(), Removed::Image);
}
