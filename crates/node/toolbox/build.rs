//! Compiles the program of the image: one static executable of the standard library alone.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    let var = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let source = Path::new(&var("CARGO_MANIFEST_DIR")).join("src/program");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-changed=build.rs");
    let out = Path::new(&var("OUT_DIR")).join("toolbox");
    let mut command = Command::new(var("RUSTC"));
    command.args([
        "--crate-name",
        "toolbox",
        "--crate-type",
        "bin",
        "--edition",
        "2024",
        "--target",
        &var("TARGET"),
    ]);
    for option in [
        "opt-level=s",
        "panic=abort",
        "target-feature=+crt-static",
        "lto",
        "codegen-units=1",
        "strip=symbols",
    ] {
        command.args(["-C", option]);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        command.arg("-C").arg(format!("linker={linker}"));
    }
    // The image must not depend on where it was built.
    command.arg(format!("--remap-path-prefix={}=toolbox", source.display()));
    let status =
        command.arg("-o").arg(&out).arg(source.join("main.rs")).status().expect("rustc can be started");
    assert!(status.success(), "the toolbox program does not compile for {}", var("TARGET"));
}
