//! `xebec images`: the images of the node.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use xebec_cri::Image;
use xebec_images::ImageStore;

use crate::cli::{ImagesArgs, ImagesCommand};
use crate::datadir::DataDir;
use crate::lock;
use crate::up::{ImagesReply, ImagesRequest, ask_images, serve_locally};

/// Carries the command out, on the running cluster if there is one.
pub fn main(args: ImagesArgs) -> Result<()> {
    let data = DataDir::new(std::path::absolute(&args.data_dir).context("data-dir")?);
    ensure!(rustix::process::geteuid().is_root(), "root is needed to read the image store; run it with sudo");
    data.create()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start tokio")?;
    runtime.block_on(async {
        match args.command {
            ImagesCommand::Ls => list(&send(&data, ImagesRequest::List).await?),
            ImagesCommand::Import { files, name } => {
                ensure!(name.is_none() || files.len() == 1, "--name can be given for one archive only");
                for file in files {
                    let file = std::path::absolute(&file).with_context(|| format!("{}", file.display()))?;
                    tell("imported", &send(&data, ImagesRequest::Import { file, name: name.clone() }).await?);
                }
            }
            ImagesCommand::Pull { references } => {
                for reference in references {
                    tell("pulled", &send(&data, ImagesRequest::Pull(reference)).await?);
                }
            }
            ImagesCommand::Rm { references } => {
                for reference in references {
                    send(&data, ImagesRequest::Remove(reference.clone())).await?;
                    println!("removed {reference}");
                }
            }
        }
        Ok(())
    })
}

async fn send(data: &DataDir, request: ImagesRequest) -> Result<Vec<Image>> {
    match lock::try_take(&data.lock())? {
        Err(_) => ask_images(&data.control_socket(), &request).await,
        Ok(_lock) => {
            let images: PathBuf = data.images();
            let store = ImageStore::open(images, xebec_images::Options::default())?;
            match serve_locally(&store, request).await {
                ImagesReply::Images(images) => Ok(images),
                ImagesReply::Failed(why) => bail!("{why}"),
            }
        }
    }
}

fn tell(verb: &str, images: &[Image]) {
    for image in images {
        let name = image.repo_tags.first().or(image.repo_digests.first()).unwrap_or(&image.id);
        println!("{verb} {name}");
    }
}

fn list(images: &[Image]) {
    println!("{:<60} {:<14} {:>10}", "IMAGE", "ID", "SIZE");
    for image in images {
        let id: String = image.id.trim_start_matches("sha256:").chars().take(12).collect();
        let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
        for name in names {
            println!("{name:<60} {id:<14} {:>10}", size(image.size));
        }
    }
}

/// Bytes as people read them, in decimal units.
fn size(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let value = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(
            [size(12), size(1_500), size(2_340_000), size(3_000_000_000)],
            ["12 B", "1.5 kB", "2.3 MB", "3.00 GB"]
        );
    }
}
