//! The socket by which `xebec images` reaches a running cluster.
//!
//! The image store belongs to one process. While a cluster runs, that is the cluster's, so other commands ask it:
//! one line of JSON there, one back. The socket lies in the data directory, which only root may enter.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use xebec_cri::Image;
use xebec_images::{ImageStore, ImportOptions};

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
    Pull(String),
    /// Remove an image.
    Remove(String),
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImagesReply {
    /// The images concerned.
    Images(Vec<Image>),
    /// Why it did not work.
    Failed(String),
}

/// Carries a request out on the store itself.
pub async fn serve_locally(store: &ImageStore, request: ImagesRequest) -> ImagesReply {
    let done = match request {
        ImagesRequest::List => Ok(store.list()),
        ImagesRequest::Import { file, name } => {
            let options = ImportOptions { tags: name.into_iter().collect(), ..ImportOptions::default() };
            store.import_file(&file, &options).await
        }
        ImagesRequest::Pull(reference) => store.pull(&reference, None).await.map(|image| vec![image]),
        ImagesRequest::Remove(reference) => match store.get(&reference) {
            None => return ImagesReply::Failed(format!("image {reference:?} not found")),
            Some(_) => store.remove(&reference).map(|()| Vec::new()),
        },
    };
    match done {
        Ok(images) => ImagesReply::Images(images),
        Err(error) => ImagesReply::Failed(format!("{:#}", anyhow::Error::new(error))),
    }
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
pub async fn ask(path: &Path, request: &ImagesRequest) -> Result<Vec<Image>> {
    let mut stream = UnixStream::connect(path)
        .await
        .with_context(|| format!("reach the running cluster at {}", path.display()))?;
    let mut text = serde_json::to_vec(request).context("write request")?;
    text.push(b'\n');
    stream.write_all(&text).await.context("send request")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.context("read reply")?;
    match serde_json::from_str(&line).context("read reply")? {
        ImagesReply::Images(images) => Ok(images),
        ImagesReply::Failed(why) => bail!("{why}"),
    }
}
