//! Compiles the program of the image, one static executable of the standard library alone, and makes the image: nobody
//! has to pack or hash it when a node starts.

#[path = "build/archive.rs"]
mod archive;

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use archive::{Image, Source, image};

/// The image's name without a tag.
const NAME: &str = "docker.io/xebec/toolbox";

fn main() {
    let out = Path::new(&var("OUT_DIR")).to_owned();
    let program = out.join("toolbox");
    compile(&program);
    let program = fs::read(&program).expect("the program was compiled");
    let architecture = match var("CARGO_CFG_TARGET_ARCH").as_str() {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let Image { id, archive } = image(&Source { name: NAME, architecture, program: &program });
    // The library shows the program as a part of the archive, so that a binary carries it once.
    let start = archive.windows(program.len()).position(|window| window == program);
    let start = start.expect("an uncompressed archive contains its files as they are");
    fs::write(out.join("image.tar"), &archive).expect("OUT_DIR can be written");
    let constants = format!(
        "const NAME: &str = {NAME:?};\nconst ID: &str = {id:?};\nconst PROGRAM_START: usize = {start};\n\
         const PROGRAM_LENGTH: usize = {};\n",
        program.len()
    );
    fs::write(out.join("image.rs"), constants).expect("OUT_DIR can be written");
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

fn compile(out: &Path) {
    let source = Path::new(&var("CARGO_MANIFEST_DIR")).join("src/program");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
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
        command.arg("-o").arg(out).arg(source.join("main.rs")).status().expect("rustc can be started");
    assert!(status.success(), "the toolbox program does not compile for {}", var("TARGET"));
}
