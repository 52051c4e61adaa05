//! The socket by which `xebec images` reaches a running cluster.
//!
//! The image store belongs to one process. While a cluster runs, that is the cluster's, so other commands ask it:
//! one line of JSON there, one back. The socket lies in the data directory, which only root may enter.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use xebec_cri::{AuthConfig, Image};
use xebec_images::{ImageError, ImageStore, ImportOptions, Reference, Removed};

/// Longest request in bytes.
const LONGEST: u64 = 1 << 20;

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImagesRequest {
    /// All images.
    List,
    /// Import an archive.
    Import {
        /// Absolute path.
        file: PathBuf,
        /// Name for the image.
        name: Option<String>,
    },
    /// Pull an image.
    Pull {
        /// Its name.
        reference: String,
        /// Who asks the registry.
        credentials: Option<Credentials>,
    },
    /// Remove an image.
    Remove(String),
}

/// A user of a registry.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// Name.
    pub username: String,
    /// Password; not shown when this is printed.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImagesReply {
    /// All images.
    Images(Vec<Image>),
    /// What was done, in words.
    Done(Vec<String>),
    /// Why it did not work.
    Failed(String),
}

/// Carries a request out on the store itself.
pub async fn serve_locally(store: &ImageStore, request: ImagesRequest) -> ImagesReply {
    match carry_out(store, request).await {
        Ok(reply) => reply,
        Err(error) => ImagesReply::Failed(error.to_string()),
    }
}

async fn carry_out(store: &ImageStore, request: ImagesRequest) -> Result<ImagesReply, ImageError> {
    let done = match request {
        ImagesRequest::List => return Ok(ImagesReply::Images(store.list())),
        ImagesRequest::Import { file, name } => {
            let options = ImportOptions { tags: name.into_iter().collect(), ..ImportOptions::default() };
            let imported = store.import_file(&file, &options).await?;
            imported.into_iter().flat_map(|one| one.names).map(|name| format!("imported {name}")).collect()
        }
        ImagesRequest::Pull { reference, credentials } => {
            let auth = credentials.map(|Credentials { username, password }| AuthConfig {
                username,
                password,
                ..AuthConfig::default()
            });
            store.pull(&reference, auth.as_ref()).await?;
            vec![format!("pulled {}", reference.parse::<Reference>()?)]
        }
        ImagesRequest::Remove(reference) => {
            let store = store.clone();
            // Deleting layers takes a moment.
            let removal = tokio::task::spawn_blocking(move || {
                let removed = store.remove_unused(&reference)?;
                Ok::<_, ImageError>(match removed {
                    Removed::Tag(tag) => format!("untagged {tag}"),
                    Removed::Image => format!("removed {reference}"),
                })
            });
            vec![removal.await??]
        }
    };
    Ok(ImagesReply::Done(done))
}

/// Answers requests until the token is cancelled.
pub async fn listen(path: PathBuf, store: ImageStore, token: CancellationToken) -> io::Result<()> {
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    while let Some(accepted) = token.run_until_cancelled(listener.accept()).await {
        let (store, token) = (store.clone(), token.clone());
        let (stream, _) = accepted?;
        tokio::spawn(async move {
            if let Some(Err(error)) = token.run_until_cancelled(answer(stream, &store)).await {
                tracing::debug!(%error, "image request");
            }
        });
    }
    std::fs::remove_file(&path)
}

async fn answer(stream: UnixStream, store: &ImageStore) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(tokio::io::AsyncReadExt::take(read, LONGEST)).read_line(&mut line).await?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => serve_locally(store, request).await,
        Err(error) => ImagesReply::Failed(format!("not a request: {error}")),
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    write.write_all(&text).await
}

/// Asks the cluster that listens at `path`.
pub async fn ask(path: &Path, request: &ImagesRequest) -> Result<ImagesReply> {
    let mut stream =
        UnixStream::connect(path).await.with_context(|| format!("connect {}", path.display()))?;
    let mut text = serde_json::to_vec(request).context("write request")?;
    text.push(b'\n');
    stream.write_all(&text).await.context("send request")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.context("read reply")?;
    ensure!(line.ends_with('\n'), "it ended before it had answered");
    serde_json::from_str(&line).context("read reply")
}
