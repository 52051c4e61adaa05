//! `xebec images`: the images of the node.

use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use xebec_cri::Image;
use xebec_images::{ImageStore, Reference};

use crate::cli::{ImagesArgs, ImagesCommand};
use crate::datadir::DataDir;
use crate::lock;
use crate::up::{Credentials, ImagesReply, ImagesRequest, ask_images, serve_locally};

/// No password is longer than this many bytes.
const LONGEST_PASSWORD: u64 = 64 << 10;

/// Carries the command out, on the running cluster if there is one.
pub fn main(args: ImagesArgs) -> Result<()> {
    let data = DataDir::new(std::path::absolute(&args.data_dir).context("data-dir")?);
    ensure!(rustix::process::geteuid().is_root(), "root is needed to read the image store; run it with sudo");
    check_data_dir(&data)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start tokio")?;
    runtime.block_on(run(&data, args.command))
}

async fn run(data: &DataDir, command: ImagesCommand) -> Result<()> {
    match command {
        ImagesCommand::Ls => match send(data, ImagesRequest::List).await? {
            ImagesReply::Images(images) => say(&table(images)),
            other => bail!("not a list of images: {other:?}"),
        },
        ImagesCommand::Import { files, name } => {
            ensure!(name.is_none() || files.len() == 1, "--name can be given for one archive only");
            for file in files {
                let shown = file.display().to_string();
                let path = archive(&file).with_context(|| shown.clone())?;
                let request = ImagesRequest::Import { file: path, name: name.clone() };
                tell(send(data, request).await.context(shown)?)?;
            }
            Ok(())
        }
        ImagesCommand::Pull { references, username, password_stdin: _ } => {
            let credentials = username.map(|name| credentials(name, &references)).transpose()?;
            for reference in references {
                tell(send(data, ImagesRequest::Pull { reference, credentials: credentials.clone() }).await?)?;
            }
            Ok(())
        }
        ImagesCommand::Rm { references } => {
            // What cannot be removed is not in the way of the rest.
            let mut failures = Vec::new();
            for reference in references {
                match send(data, ImagesRequest::Remove(reference)).await {
                    Ok(reply) => tell(reply)?,
                    Err(error) => failures.push(format!("{error:#}")),
                }
            }
            ensure!(failures.is_empty(), "{}", failures.join("\nxebec: "));
            Ok(())
        }
    }
}

/// Refuses directories that are no cluster's, where the commands would make files. An empty one may become a
/// cluster's: images can be there before the cluster is.
fn check_data_dir(data: &DataDir) -> Result<()> {
    let shown = data.path().display();
    let mut entries = match std::fs::read_dir(data.path()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!(
                "data-dir {shown}: there is no such directory; `xebec up` makes it, --data-dir names another"
            )
        }
        Err(error) => return Err(error).with_context(|| format!("data-dir {shown}")),
    };
    ensure!(
        data.lock().exists() || entries.next().is_none(),
        "data-dir {shown}: there is no cluster; name its directory with --data-dir"
    );
    Ok(())
}

/// The absolute path of an archive, which whoever opens it may need.
fn archive(file: &Path) -> Result<std::path::PathBuf> {
    let path = std::path::absolute(file)?;
    // It is read twice, by another process: pipes do not do.
    ensure!(std::fs::metadata(&path)?.is_file(), "not a file");
    Ok(path)
}

/// The password comes from standard input; no registry but the one it is for may see it.
fn credentials(username: String, references: &[String]) -> Result<Credentials> {
    let registry = |text: &String| text.parse::<Reference>().map(|reference| reference.registry);
    let mut registries = references.iter().map(registry).collect::<Result<Vec<_>, _>>()?;
    registries.dedup();
    ensure!(
        registries.len() == 1,
        "--username: the images are in several registries ({}); pull them one registry at a time",
        registries.join(", ")
    );
    let mut password = String::new();
    let read = io::stdin().take(LONGEST_PASSWORD).read_to_string(&mut password);
    read.context("--password-stdin: read standard input")?;
    let password = password.trim_end_matches(['\r', '\n']).to_owned();
    ensure!(!password.is_empty(), "--password-stdin: standard input is empty; write the password there");
    Ok(Credentials { username, password })
}

async fn send(data: &DataDir, request: ImagesRequest) -> Result<ImagesReply> {
    let reply = match lock::try_take(&data.lock())? {
        Err(pid) => ask_images(&data.control_socket(), &request).await.with_context(|| {
            format!(
                "data-dir {}: another xebec works on it (pid {pid}) and did not answer; try again when it is \
                 ready or has ended",
                data.path().display()
            )
        })?,
        Ok(_lock) => {
            let store = ImageStore::open(data.images(), xebec_images::Options::default())?;
            serve_locally(&store, request).await
        }
    };
    match reply {
        ImagesReply::Failed(why) => bail!("{why}"),
        reply => Ok(reply),
    }
}

/// Prints what was done.
fn tell(reply: ImagesReply) -> Result<()> {
    match reply {
        ImagesReply::Done(lines) => say(&lines.iter().map(|line| format!("{line}\n")).collect::<String>()),
        other => bail!("no word of what was done: {other:?}"),
    }
}

/// Prints, also to a reader that has seen enough.
fn say(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("write"),
        _ => Ok(()),
    }
}

/// A line for every name of every image, sorted; an image that lost its names to others is shown by its id.
fn table(images: Vec<Image>) -> String {
    let mut rows = Vec::new();
    for image in images {
        let id: String = image.id.trim_start_matches("sha256:").chars().take(12).collect();
        let names = if image.repo_tags.is_empty() { image.repo_digests } else { image.repo_tags };
        let names = if names.is_empty() { vec!["<none>".to_owned()] } else { names };
        rows.extend(names.into_iter().map(|name| (name, id.clone(), size(image.size))));
    }
    rows.sort();
    let heading = ("IMAGE".to_owned(), "ID".to_owned(), "SIZE".to_owned());
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0).max(heading.0.len());
    let line = |(name, id, size): &(String, String, String)| format!("{name:<width$}  {id:<12}  {size:>9}\n");
    std::iter::once(&heading).chain(&rows).map(line).collect()
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

    fn image(hex: &str, tags: &[&str], digests: &[&str]) -> Image {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Image {
            id: format!("sha256:{}", hex.repeat(64)),
            repo_tags: own(tags),
            repo_digests: own(digests),
            size: 1_500,
            uid: None,
            username: String::new(),
            pinned: false,
            config: xebec_cri::ImageConfig::default(),
        }
    }

    #[test]
    fn every_name_has_a_line_and_so_has_an_image_without() {
        let images = vec![
            image("a", &[], &[]),
            image("b", &["r.io/z:1", "docker.io/library/a:1"], &["r.io/z@sha256:12"]),
            image("c", &[], &["r.io/y@sha256:34"]),
        ];
        let wanted = [
            "IMAGE                  ID                 SIZE",
            "<none>                 aaaaaaaaaaaa     1.5 kB",
            "docker.io/library/a:1  bbbbbbbbbbbb     1.5 kB",
            "r.io/y@sha256:34       cccccccccccc     1.5 kB",
            "r.io/z:1               bbbbbbbbbbbb     1.5 kB",
        ];
        assert_eq!(table(images).lines().collect::<Vec<_>>(), wanted);
        assert_eq!(table(Vec::new()).lines().count(), 1);
    }

    #[test]
    fn a_password_is_for_one_registry() {
        let of = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            credentials("user".into(), &list).map(drop).map_err(|error| error.to_string())
        };
        let error = of(&["r.io/a", "redis"]).expect_err("two registries");
        assert!(error.contains("several registries (r.io, docker.io)"), "{error}");
        assert!(of(&["r.io/Not valid"]).is_err());
    }

    #[test]
    fn only_directories_of_clusters_are_touched() {
        let dir = tempfile::tempdir().expect("a directory");
        let check = |name: &str| check_data_dir(&DataDir::new(dir.path().join(name)));
        let error = check("none").expect_err("it is missing").to_string();
        assert!(error.contains("there is no such directory"), "{error}");
        std::fs::create_dir(dir.path().join("new")).expect("a directory");
        check("new").expect("an empty one will do");
        let error = check("").expect_err("it holds something else").to_string();
        assert!(error.contains("there is no cluster"), "{error}");
        std::fs::write(dir.path().join("lock"), "").expect("a file");
        check("").expect("it is a cluster's");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(
            [size(12), size(1_500), size(2_340_000), size(3_000_000_000)],
            ["12 B", "1.5 kB", "2.3 MB", "3.00 GB"]
        );
    }
}
