//! Layers as they arrive in the store, honest and malicious ones.
#![allow(clippy::unwrap_used)]

mod fixture;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use fixture::{Layer, docker_archive, gzip, image, oci_archive};
use tempfile::TempDir;
use xebec_images::{ImageStore, ImportOptions, Options};

fn open(dir: &Path) -> ImageStore {
    ImageStore::open(dir.join("store"), Options::default()).unwrap()
}

async fn import(store: &ImageStore, layers: &[Vec<u8>]) -> Result<Vec<PathBuf>, xebec_images::ImageError> {
    let archive = oci_archive(&image(layers), "test/app:1");
    let images = store.import_reader(std::io::Cursor::new(archive), &ImportOptions::default()).await?;
    Ok(store.rootfs(&images[0].id)?.lowerdirs)
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn opaque(path: &Path) -> bool {
    let mut value = [0u8; 1];
    rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut value[..]).is_ok() && value == *b"y"
}

#[tokio::test]
async fn files_keep_what_they_are() {
    let dir = TempDir::new().unwrap();
    let layer = Layer::new()
        .dir("etc/", 0o755)
        .file("etc/conf", "first")
        .file("etc/conf", "second")
        .hardlink("etc/hard", "etc/conf")
        .symlink("etc/soft", "/etc/conf")
        .file("deep/without/parents", "x")
        .entry(tar::EntryType::Regular, "bin/tool", 0o4755, b"#!")
        .dir("tmp", 0o1777);
    let store = open(dir.path());
    let lower = import(&store, &[layer.bytes()]).await.unwrap().remove(0);
    assert_eq!(read(lower.join("etc/conf")), "second");
    assert_eq!(read(lower.join("etc/hard")), "second");
    let meta = std::fs::metadata(lower.join("etc/conf")).unwrap();
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mode() & 0o7777, meta.mtime(), meta.nlink()),
        (7, 8, 0o640, 1_000_000, 2)
    );
    assert_eq!(std::fs::read_link(lower.join("etc/soft")).unwrap(), Path::new("/etc/conf"));
    assert_eq!(std::fs::metadata(lower.join("bin/tool")).unwrap().mode() & 0o7777, 0o4755);
    let tmp = std::fs::metadata(lower.join("tmp")).unwrap();
    assert_eq!((tmp.mode() & 0o7777, tmp.mtime()), (0o1777, 1_000_000));
    assert_eq!(std::fs::metadata(lower.join("etc")).unwrap().mtime(), 1_000_000);
    let shown = store.get("docker.io/test/app:1").unwrap();
    assert_eq!((shown.uid, shown.config.entrypoint.len(), shown.pinned), (Some(1000), 1, false));
}

#[tokio::test]
async fn upper_layers_hide_and_follow_lower_ones() {
    let dir = TempDir::new().unwrap();
    let below = Layer::new()
        .dir("usr/bin", 0o755)
        .file("usr/bin/old", "old")
        .symlink("bin", "usr/bin")
        .dir("srv", 0o1777)
        .file("srv/a", "a")
        .file("gone", "gone")
        .file("var/cache/x", "x");
    let above = Layer::new()
        .file("bin/new", "new")
        .hardlink("usr/bin/again", "bin/old")
        .file("srv/b", "b")
        .file(".wh.gone", "")
        .file("var/cache/.wh..wh..opq", "")
        .file("var/cache/y", "y");
    let lowers = import(&open(dir.path()), &[below.bytes(), above.bytes()]).await.unwrap();
    let (top, bottom) = (&lowers[0], &lowers[1]);
    assert!(bottom.join("usr/bin/old").exists());
    assert_eq!(read(top.join("usr/bin/new")), "new", "the link of the lower layer is followed");
    assert!(!top.join("bin").exists());
    assert_eq!(read(top.join("usr/bin/again")), "old");
    assert_eq!(std::fs::metadata(top.join("srv")).unwrap().mode() & 0o7777, 0o1777, "looks as below");
    let whiteout = std::fs::symlink_metadata(top.join("gone")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    assert!(opaque(&top.join("var/cache")) && top.join("var/cache/y").exists());
}

#[tokio::test]
async fn nothing_escapes() {
    let dir = TempDir::new().unwrap();
    let victim = dir.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    let store = open(dir.path());
    let outside = victim.to_str().unwrap();
    let up = "../../../../../../../../../..";
    let refused = [
        Layer::new().file("../escaped", "x"),
        Layer::new().file("a/../../escaped", "x"),
        Layer::new().hardlink("stolen", "/etc/passwd"),
        Layer::new().hardlink("stolen", "../../../../../../etc/passwd"),
        Layer::new().symlink("loop", "loop").file("loop/x", "x"),
        Layer::new().entry(tar::EntryType::Char, "null", 0o666, b""),
    ];
    for (number, layer) in refused.into_iter().enumerate() {
        assert!(import(&store, &[layer.bytes()]).await.is_err(), "case {number}");
    }
    let contained = [
        Layer::new().symlink("door", outside).file("door/x", "x"),
        Layer::new().symlink("door", &format!("{up}{outside}")).file("door/x", "x"),
        Layer::new().symlink("door", outside).file("door", "x"),
        Layer::new().file("/absolute", "x"),
    ];
    for layer in contained {
        let lower = import(&store, &[layer.bytes()]).await.unwrap().remove(0);
        assert!(lower.starts_with(dir.path().join("store")));
        assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
    }
    // The door of one layer leads nowhere in the next, either.
    let layers = [Layer::new().symlink("door", outside).bytes(), Layer::new().file("door/x", "x").bytes()];
    let lowers = import(&store, &layers).await.unwrap();
    assert_eq!(read(lowers[0].join(outside.trim_start_matches('/')).join("x")), "x");
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
}

#[tokio::test]
async fn docker_archives_are_read_and_layers_shared() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let base = Layer::new().file("base", "base").bytes();
    let first = [base.clone(), Layer::new().file("one", "1").bytes()];
    let second = [base, Layer::new().file("two", "2").bytes()];
    for (name, layers) in [("test/first:v1", &first), ("second", &second)] {
        let path = dir.path().join("archive.tar.gz");
        std::fs::write(&path, gzip(&docker_archive(&image(&layers[..]), &layers[..], name))).unwrap();
        let images = store
            .import_file(&path, &ImportOptions { pinned: name == "second", tags: vec![] })
            .await
            .unwrap();
        assert_eq!(images.len(), 1);
    }
    let layers = || std::fs::read_dir(dir.path().join("store/layers")).unwrap().count();
    assert_eq!(layers(), 3);
    let held = store.hold("container-1", "test/first:v1").unwrap();
    store.remove("test/first:v1").unwrap();
    assert!(store.get("test/first:v1").is_none());
    assert!(store.remove("second").is_err(), "it is pinned");
    assert_eq!(layers(), 3, "a container holds them");
    drop(store);
    // What a crash leaves behind.
    let root = dir.path().join("store");
    std::fs::create_dir_all(root.join("tmp/half/fs")).unwrap();
    std::fs::create_dir_all(root.join("layers").join("f".repeat(64)).join("fs")).unwrap();
    let store = open(dir.path());
    assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    assert_eq!(layers(), 3);
    assert!(held.lowerdirs.iter().all(|d| d.exists()));
    assert_eq!(store.holders(), ["container-1"]);
    store.release("container-1").unwrap();
    assert_eq!(layers(), 2);
    assert_eq!(
        store.get("docker.io/library/second:latest").unwrap().repo_tags,
        ["docker.io/library/second:latest"]
    );
    // Nothing is unpacked again.
    let inode =
        |store: &ImageStore| std::fs::metadata(&store.rootfs("second").unwrap().lowerdirs[0]).unwrap().ino();
    let before = inode(&store);
    let archive = docker_archive(&image(&second), &second, "second");
    store.import_reader(std::io::Cursor::new(archive), &ImportOptions::default()).await.unwrap();
    assert_eq!(inode(&store), before);
    assert!(store.get("second").unwrap().pinned);
}

#[tokio::test]
async fn damage_is_noticed() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let layers = [Layer::new().file("a", "a").bytes()];
    let mut damaged = image(&layers);
    let other = image(&[Layer::new().file("a", "b").bytes()]);
    damaged.config = other.config;
    let archive = docker_archive(&damaged, &layers, "x");
    let error =
        store.import_reader(std::io::Cursor::new(archive), &ImportOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("expected digest"), "{error}");
    let error = store.import_reader(&b"no archive"[..], &ImportOptions::default()).await.unwrap_err();
    assert!(error.to_string().starts_with("image archive"), "{error}");
    assert!(store.list().is_empty());
    assert_eq!(std::fs::read_dir(dir.path().join("store/layers")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn the_toolbox_is_imported_and_pinned() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let options = ImportOptions { pinned: true, tags: vec![] };
    let archive = std::io::Cursor::new(xebec_toolbox::image_archive());
    let images = store.import_reader(archive, &options).await.unwrap();
    assert_eq!(images.len(), 1, "both tags are one image");
    let image = store.get("xebec/toolbox").unwrap();
    assert!(image.pinned && image.repo_tags.len() == 2, "{:?}", image.repo_tags);
    assert_eq!(image.config.entrypoint, ["/toolbox"]);
    let rootfs = store.rootfs(&image.id).unwrap();
    assert_eq!(std::fs::read(rootfs.lowerdirs[0].join("toolbox")).unwrap(), xebec_toolbox::PROGRAM);
    assert_eq!(std::fs::read_link(rootfs.lowerdirs[0].join("bin/sh")).unwrap(), Path::new("/toolbox"));
    assert_eq!(std::fs::metadata(rootfs.lowerdirs[0].join("tmp")).unwrap().mode() & 0o7777, 0o1777);
}
