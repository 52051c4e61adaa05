//! Upstream's fully populated objects of every kind pass through the decoder unchanged.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;

use serde_json::Value;
use xebec_schema::{FieldValidation, builtin, decode};

fn reference() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../..").canonicalize().unwrap();
    let folder = root.parent()?.join("shared/reference");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {} is absent", folder.display());
    None
}

#[test]
fn every_kind_round_trips() {
    let Some(reference) = reference() else { return };
    let mut kinds = 0;
    for entry in std::fs::read_dir(reference.join("roundtrip")).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap();
        let Some(stem) = name.strip_suffix(".json") else { continue };
        let (rest, kind) = stem.rsplit_once('.').unwrap();
        let (group, version) = rest.rsplit_once('.').unwrap();
        let group = if group == "core" { "" } else { group };
        let schema = builtin(group, version, kind).unwrap_or_else(|| panic!("{name}: no schema"));
        let bytes = std::fs::read(&file).unwrap();
        let (value, warnings) =
            decode(&bytes, &schema, FieldValidation::Strict).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(warnings.is_empty());
        let expected: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value, expected, "{name}");
        kinds += 1;
    }
    assert!(kinds > 150, "{kinds} kinds");
}
