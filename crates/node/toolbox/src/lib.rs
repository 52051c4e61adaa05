//! The image `xebec/toolbox`: what diagnosis and examples need, on machines that reach no registry.
//!
//! The program in it is made at build time from `src/program` (standard library only, static) and wrapped into an OCI
//! archive (`build/archive.rs`), which this library carries: the same bytes every time, and nothing to do at run time.

#[cfg(test)]
#[path = "program/main.rs"]
#[allow(dead_code, missing_docs, clippy::unwrap_used)]
mod program;

include!(concat!(env!("OUT_DIR"), "/image.rs"));

const ARCHIVE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/image.tar"));

/// The image's name without a tag. The archive names it with `latest` and with this crate's version.
pub const IMAGE: &str = NAME;

/// The program, an ELF executable without dependencies.
pub const PROGRAM: &[u8] = ARCHIVE.split_at(PROGRAM_START).1.split_at(PROGRAM_LENGTH).0;

/// The image as an uncompressed OCI archive (image layout 1.0.0).
pub fn image_archive() -> &'static [u8] {
    ARCHIVE
}

/// The image's id: the digest of its configuration.
pub fn image_id() -> &'static str {
    ID
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use ring::digest::{SHA256, digest};
    use serde_json::Value;

    use super::*;

    fn sha256(bytes: &[u8]) -> String {
        let digest = digest(&SHA256, bytes);
        digest.as_ref().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// Regular files by name.
    fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(tar).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if entry.header().entry_type().is_file() {
                files.insert(name, content);
            }
        }
        files
    }

    fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, digest: &Value) -> &'a [u8] {
        &files[&format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"))]
    }

    fn layer() -> Vec<u8> {
        let files = files(image_archive());
        let config: Value = serde_json::from_slice(blob(&files, &ID.into())).unwrap();
        blob(&files, &config["rootfs"]["diff_ids"][0]).to_vec()
    }

    #[test]
    fn the_archive_is_complete_and_named() {
        let files = files(image_archive());
        assert_eq!(files.len(), 5);
        for (name, content) in &files {
            if let Some(hex) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(sha256(content), format!("sha256:{hex}"));
            }
        }
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let names: Vec<_> = index["manifests"].as_array().unwrap().iter().collect();
        assert_eq!(names[0]["annotations"]["io.containerd.image.name"], format!("{IMAGE}:latest"));
        let manifest: Value = serde_json::from_slice(blob(&files, &names[0]["digest"])).unwrap();
        assert_eq!(manifest["config"]["digest"], image_id());
    }

    #[test]
    fn the_layer_holds_the_program() {
        assert!(PROGRAM.starts_with(b"\x7fELF"));
        assert_eq!(files(&layer())["toolbox"], PROGRAM);
    }

    #[test]
    fn every_applet_of_the_image_exists() {
        let layer = layer();
        let mut found = 0;
        for entry in tar::Archive::new(&layer[..]).entries().unwrap() {
            let entry = entry.unwrap();
            if entry.header().entry_type().is_symlink() {
                let path = entry.path().unwrap().into_owned();
                let name = path.strip_prefix("bin").unwrap().to_str().unwrap().to_owned();
                assert!(name == "toolbox" || crate::program::applet(&name).is_some(), "{name}");
                found += 1;
            }
        }
        assert!(found > 10, "{found}");
    }
}
