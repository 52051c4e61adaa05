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
    Ok(store.rootfs(&images[0].image.id)?.lowerdirs)
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
async fn an_archive_that_breaks_off_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let old = [Layer::new().file("a", "old").bytes()];
    let before = {
        let archive = oci_archive(&image(&old), "test/app:1");
        store.import_reader(std::io::Cursor::new(archive), &ImportOptions::default()).await.unwrap();
        store.list()
    };
    let new = [Layer::new().file("a", "new").bytes(), Layer::new().file("b", "b").bytes()];
    let new = image(&new);
    let layers = [Layer::new().file("a", "new").bytes(), Layer::new().file("b", "b").bytes()];
    for whole in [oci_archive(&new, "test/app:1"), docker_archive(&new, &layers, "test/app:1")] {
        // The last file ends before the padding of its block and the two blocks that end an archive.
        for end in (0..whole.len() - 3 * 512).step_by(256) {
            let part = std::io::Cursor::new(whole[..end].to_vec());
            let result = store.import_reader(part, &ImportOptions::default()).await;
            assert!(result.is_err(), "{end} bytes of {}: {result:?}", whole.len());
            assert_eq!(store.list(), before, "{end} bytes");
        }
    }
    let packed = gzip(&oci_archive(&new, "test/app:1"));
    let path = dir.path().join("half.tar.gz");
    std::fs::write(&path, &packed[..packed.len() / 2]).unwrap();
    let error = store.import_file(&path, &ImportOptions::default()).await.unwrap_err();
    assert!(error.to_string().starts_with("image archive: cannot be read"), "{error}");
    assert_eq!(store.list(), before);
    assert_eq!(std::fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn imports_tell_the_names_they_gave() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let layers = [Layer::new().file("a", "a").bytes()];
    let sample = image(&layers);
    let import = async |archive: Vec<u8>, name: Option<&str>| {
        let tags = name.map(ToOwned::to_owned).into_iter().collect();
        let options = ImportOptions { tags, ..ImportOptions::default() };
        let imported = store.import_reader(std::io::Cursor::new(archive), &options).await;
        imported.map(|all| all.into_iter().flat_map(|one| one.names).collect::<Vec<_>>())
    };
    let oci = oci_archive(&sample, "test/z:1");
    assert_eq!(import(oci.clone(), None).await.unwrap(), ["docker.io/test/z:1"]);
    let docker = docker_archive(&sample, &layers, "test/a:1");
    assert_eq!(import(docker.clone(), None).await.unwrap(), ["docker.io/test/a:1"]);
    assert_eq!(import(docker.clone(), Some("r.io/b")).await.unwrap(), ["r.io/b:latest"]);
    assert_eq!(store.list()[0].repo_tags.len(), 3);
    // A name with a digest is no tag.
    let digest = fixture::sha(&sample.manifest);
    let named = format!("r.io/c@{digest}");
    assert_eq!(import(oci, Some(&named)).await.unwrap(), std::slice::from_ref(&named));
    assert!(store.get(&named).is_some());
    assert_eq!(store.list()[0].repo_tags.len(), 3);
    let error = import(docker, Some(&named)).await.unwrap_err().to_string();
    assert!(error.contains("has a digest that is not the image's"), "{error}");
    // The toolbox's archive has an entry for each of its two names.
    let toolbox = import(xebec_toolbox::image_archive().to_vec(), Some("r.io/tools:1")).await;
    assert_eq!(toolbox.unwrap(), ["r.io/tools:1"]);
    let empty = Layer::new().file("manifest.json", "[]").bytes();
    let error = import(empty, None).await.unwrap_err().to_string();
    assert!(error.contains("it holds no image"), "{error}");
    let nameless = docker_archive(&sample, &layers, "x");
    let text = String::from_utf8_lossy(&nameless).contains(r#"["x"]"#);
    assert!(text, "the fixture's names are where the next line looks for them");
    let at = nameless.windows(5).position(|part| part == br#"["x"]"#).unwrap();
    let mut nameless = nameless;
    nameless[at..at + 5].copy_from_slice(b"null ");
    let error = import(nameless, None).await.unwrap_err().to_string();
    assert!(error.contains("has no name: give one (`xebec images import --name`)"), "{error}");
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
