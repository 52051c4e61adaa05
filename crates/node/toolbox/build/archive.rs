//! The image as an OCI archive, made when the crate is built.

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// What the image is made of.
pub struct Source<'a> {
    /// Name without a tag. The archive names it with `latest` and with this crate's version.
    pub name: &'a str,
    /// Go's name of the architecture.
    pub architecture: &'a str,
    /// The program, an ELF executable.
    pub program: &'a [u8],
}

/// The image.
pub struct Image {
    /// Its id: the digest of its configuration.
    pub id: String,
    /// An uncompressed OCI archive (image layout 1.0.0). The bytes depend on the source only.
    pub archive: Vec<u8>,
}

/// Names the program answers to in `/bin`, beside its own.
const APPLETS: &[&str] = &[
    "[", "basename", "cat", "client", "cp", "date", "dirname", "echo", "env", "false", "get", "grep", "head",
    "hostname", "id", "ip", "kill", "ln", "lookup", "ls", "mkdir", "mv", "nc", "nslookup", "pause",
    "printenv", "ps", "pwd", "rm", "rmdir", "seq", "serve", "sh", "sleep", "tail", "test", "touch", "true",
    "uname", "wc", "wget", "whoami",
];
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nnobody:x:65534:\n";

/// Makes the image.
pub fn image(source: &Source<'_>) -> Image {
    let layer = layer(source.program);
    let config = config(&layer, source.architecture);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string()
    .into_bytes();
    let tagged = |tag: &str| {
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({
            "io.containerd.image.name": format!("{}:{tag}", source.name),
            "org.opencontainers.image.ref.name": tag,
        });
        entry
    };
    let index = json!({
        "schemaVersion": 2,
        "manifests": [tagged("latest"), tagged(concat!("v", env!("CARGO_PKG_VERSION")))],
    });
    let mut out = Builder::new(Vec::new());
    file(&mut out, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    file(&mut out, "index.json", 0o644, index.to_string().as_bytes());
    for blob in [&manifest, &config, &layer] {
        file(&mut out, &format!("blobs/{}", sha256(blob).replace(':', "/")), 0o644, blob);
    }
    Image { id: sha256(&config), archive: finish(out) }
}

fn config(layer: &[u8], architecture: &str) -> Vec<u8> {
    json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": ["/toolbox"],
            "Env": ["PATH=/bin"],
            "WorkingDir": "/",
            "ExposedPorts": {"8080/tcp": {}, "8081/tcp": {}, "8082/udp": {}},
            "Labels": {"org.opencontainers.image.title": "xebec/toolbox"},
        },
        "rootfs": {"type": "layers", "diff_ids": [sha256(layer)]},
    })
    .to_string()
    .into_bytes()
}

fn layer(program: &[u8]) -> Vec<u8> {
    let mut out = Builder::new(Vec::new());
    for (path, mode) in [("bin/", 0o755), ("etc/", 0o755), ("tmp/", 0o1777)] {
        append(&mut out, EntryType::Directory, path, mode, b"", None);
    }
    file(&mut out, "toolbox", 0o755, program);
    for applet in APPLETS.iter().chain(&["toolbox"]) {
        append(&mut out, EntryType::Symlink, &format!("bin/{applet}"), 0o777, b"", Some("/toolbox"));
    }
    file(&mut out, "etc/passwd", 0o644, PASSWD.as_bytes());
    file(&mut out, "etc/group", 0o644, GROUP.as_bytes());
    finish(out)
}

fn file(out: &mut Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) {
    append(out, EntryType::Regular, path, mode, content, None);
}

fn append(
    out: &mut Builder<Vec<u8>>,
    kind: EntryType,
    path: &str,
    mode: u32,
    content: &[u8],
    link: Option<&str>,
) {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let result = match link {
        Some(target) => out.append_link(&mut header, path, target),
        None => out.append_data(&mut header, path, content),
    };
    result.expect("invariant: short names written to memory");
}

fn finish(out: Builder<Vec<u8>>) -> Vec<u8> {
    out.into_inner().expect("invariant: writing to memory does not fail")
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": sha256(bytes), "size": bytes.len()})
}

fn sha256(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in digest(&SHA256, bytes).as_ref() {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
