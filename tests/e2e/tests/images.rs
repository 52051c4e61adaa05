//! `xebec images` as people use it: archives and registries, with a cluster running and without.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use xebec_e2e::{first, pods, ready_pod};
use xebec_testkit::{Cluster, Options, Output, PATIENCE, Running, run, wait_gone};

/// Makes images of two layers, busybox and a file that says which image it is: `$1/NAME.docker.tar`,
/// `$1/NAME.oci.tar.gz` and `$1/NAME.id` for every further argument `NAME=REFERENCE`; and leaves what registries want
/// in `$1/NAME/`.
const MAKE: &str = r#"
set -euo pipefail
umask 022
cd "$1"; shift
pack() { tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --file "$@"; }
sum() { sha256sum "$1" | cut -d ' ' -f 1; }
# blob FILE DIRECTORY: puts it there under its digest, which is printed.
blob() { local hex; hex=$(sum "$1"); cp "$1" "$2/blobs/sha256/$hex"; echo "sha256:$hex"; }
mkdir -p base/bin
cp /bin/busybox base/bin/busybox
for name in sh cat sleep; do ln -s busybox "base/bin/$name"; done
pack base.tar -C base .
gzip --no-name --fast --keep base.tar
for pair; do
    name=${pair%%=*} reference=${pair#*=}
    mkdir -p "$name/blobs/sha256" top
    echo "$name" >top/what
    pack top.tar -C top what
    gzip --no-name --force --keep top.tar
    cat >config.json <<JSON
{"os": "linux", "architecture": "$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')",
 "config": {"Env": ["PATH=/bin"], "Cmd": ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$(sum base.tar)", "sha256:$(sum top.tar)"]}}
JSON
    cat >manifest.json <<JSON
[{"Config": "config.json", "RepoTags": ["$reference"], "Layers": ["base.tar", "top.tar"]}]
JSON
    pack "$name.docker.tar" config.json base.tar top.tar manifest.json
    described() { echo '"digest": "'"$(blob "$1" "$name")"'", "size": '"$(stat -c %s "$1")"; }
    gzipped='"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"'
    cat >"$name.manifest" <<JSON
{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
 "config": {"mediaType": "application/vnd.oci.image.config.v1+json", $(described config.json)},
 "layers": [{$gzipped, $(described base.tar.gz)}, {$gzipped, $(described top.tar.gz)}]}
JSON
    cat >"$name/index.json" <<JSON
{"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",
 $(described "$name.manifest"), "annotations": {"io.containerd.image.name": "$reference"}}]}
JSON
    echo '{"imageLayoutVersion": "1.0.0"}' >"$name/oci-layout"
    pack "$name.oci.tar" -C "$name" .
    gzip --no-name "$name.oci.tar"
    sum config.json | tr -d '\n' >"$name.id"
done
"#;

/// Pushes the image that `MAKE` left in directory `$1/$2` to repository and tag `$4:$5` of registry `$3`; further
/// arguments are curl's.
const PUSH: &str = r#"
set -euo pipefail
cd "$1"; image=$2 at=http://$3/v2/$4 tag=$5; shift 5
http() { curl --silent --show-error --fail --max-time 60 --output /dev/null "$@"; }
for blob in "$image"/blobs/sha256/*; do
    location=$(http "$@" --dump-header - --request POST "$at/blobs/uploads/" |
        tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    http "$@" --request PUT --header 'Content-Type: application/octet-stream' --data-binary "@$blob" \
        "$location&digest=sha256:${blob##*/}"
done
http "$@" --request PUT --header 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
    --data-binary "@$image.manifest" "$at/manifests/$tag"
"#;

/// `user` with the password `s3cret word`, as htpasswd writes it.
const HTPASSWD: &str = "user:$2b$04$5YaAgRaSEyr2wsjNP83fceCZkKp6HyaCxr9wwnXfXCWmpei/vZGiK\n";
const PASSWORD: &str = "s3cret word";

#[test]
fn archives_are_imported_listed_run_and_removed() {
    run(Options::default(), async |cluster| {
        let docker = make(cluster, &["docker=r.test/docker:v1", "oci=r.test/oci:v1", "new=r.test/docker:v1"]);
        docker.await?;
        import_and_list(cluster).await?;
        runs(cluster, "docker", "r.test/docker:v1", "Never").await?;
        runs(cluster, "oci", "r.test/oci:v1", "Never").await?;
        remove(cluster).await?;
        bad_archives(cluster).await?;
        a_name_that_moves(cluster).await
    });
}

async fn import_and_list(cluster: &Cluster) -> Result<()> {
    let (docker, oci) = (file(cluster, "docker.docker.tar"), file(cluster, "oci.oci.tar.gz"));
    let said = good(cluster, &["import", &docker, &oci]).await?;
    ensure!(said == "imported r.test/docker:v1\nimported r.test/oci:v1\n", "import: {said}");
    // Again, under another name: the command tells the name that was given now.
    let said = good(cluster, &["import", "--name", "alias", &docker]).await?;
    ensure!(said == "imported docker.io/library/alias:latest\n", "import --name: {said}");
    let two = bad(cluster, &["import", "--name", "alias", &docker, &oci]).await?;
    ensure!(two.contains("--name can be given for one archive only"), "{two}");

    let images = list(cluster).await?;
    for (name, image) in [
        ("r.test/docker:v1", "docker"),
        ("docker.io/library/alias:latest", "docker"),
        ("r.test/oci:v1", "oci"),
    ] {
        let (id, size) = images.get(name).with_context(|| format!("{name} is not among {images:?}"))?;
        ensure!(*id == short_id(cluster, image)?, "{name} has the id {id}");
        let busybox = std::fs::metadata("/bin/busybox").context("busybox")?.len();
        ensure!(*size == format!("{:.1} MB", busybox as f64 / 1e6), "{name} has the size {size}");
    }
    ensure!(images.contains_key("docker.io/xebec/toolbox:latest"), "{images:?}");
    Ok(())
}

async fn remove(cluster: &Cluster) -> Result<()> {
    let before = identity(cluster, "docker").await?;
    let said = good(cluster, &["rm", "alias"]).await?;
    ensure!(said == "untagged docker.io/library/alias:latest\n", "one tag of two: {said}");
    for name in ["r.test/docker:v1", &short_id(cluster, "docker")?] {
        let said = bad(cluster, &["rm", name]).await?;
        ensure!(
            said.contains("is in use by a container (") && said.contains("delete the pods first"),
            "{said}"
        );
    }
    ensure!(list(cluster).await?.contains_key("r.test/docker:v1"), "a refused removal removed");
    ensure!(identity(cluster, "docker").await? == before, "the container did not stay");
    what(cluster, "docker").await?;

    let said = bad(cluster, &["rm", "r.test/nobody:1"]).await?;
    ensure!(said.contains(r#"image "r.test/nobody:1" not found"#), "unknown: {said}");
    let said = bad(cluster, &["rm", "Not//valid"]).await?;
    ensure!(said.contains(r#"image "Not//valid" not found"#), "no name at all: {said}");
    let said = bad(cluster, &["rm", "xebec/toolbox"]).await?;
    ensure!(said.contains("is pinned and cannot be removed"), "the node's own: {said}");

    // By its id, when nothing uses it; what cannot be removed beside it is told and is not in the way.
    delete(cluster, "oci").await?;
    let id = short_id(cluster, "oci")?;
    let output = images(cluster, &["rm", "r.test/nobody:1", &id]).await?;
    ensure!(output.code == 1 && output.stdout == format!("removed {id}\n"), "one of two: {output:?}");
    ensure!(output.stderr.contains("not found"), "one of two: {output:?}");
    let left = list(cluster).await?;
    ensure!(!left.contains_key("r.test/oci:v1"), "{left:?}");
    Ok(())
}

/// Archives that are none, with what is said of them.
async fn bad_archives(cluster: &Cluster) -> Result<()> {
    let before = good(cluster, &["ls"]).await?;
    let half = |from: &str, to: &str| -> Result<String> {
        let whole = std::fs::read(cluster.scratch().join(from)).context("read an archive")?;
        let to = cluster.scratch().join(to);
        std::fs::write(&to, &whole[..whole.len() / 2]).context("write half of it")?;
        Ok(to.display().to_string())
    };
    // Half of the archive whose image would take the name of one that is here.
    let cases = [
        ("/bin/busybox".to_owned(), "image archive:"),
        (half("new.docker.tar", "half.tar")?, "image archive:"),
        (half("new.oci.tar.gz", "half.tar.gz")?, "image archive: cannot be read"),
        (file(cluster, "nothing.tar"), "No such file"),
        (cluster.scratch().display().to_string(), "not a file"),
    ];
    for (path, wanted) in cases {
        let said = bad(cluster, &["import", &path]).await?;
        ensure!(said.contains(&path) && said.contains(wanted), "import of {path}: {said}");
        let after = good(cluster, &["ls"]).await?;
        ensure!(after == before, "import of {path} changed\n{before}to\n{after}");
    }
    Ok(())
}

/// Another image gets the name of one whose container runs.
async fn a_name_that_moves(cluster: &Cluster) -> Result<()> {
    let before = identity(cluster, "docker").await?;
    good(cluster, &["import", &file(cluster, "new.docker.tar")]).await?;
    let (old, new) = (short_id(cluster, "docker")?, short_id(cluster, "new")?);
    let images = list(cluster).await?;
    let id = |name: &str| images.get(name).map(|(id, _)| id.as_str());
    ensure!(id("r.test/docker:v1") == Some(&new) && id("<none>") == Some(&old), "{images:?}");
    ensure!(bad(cluster, &["rm", &old]).await?.contains("is in use by a container"), "rm of one in use");
    ensure!(identity(cluster, "docker").await? == before, "the container did not stay");
    delete(cluster, "docker").await?;
    good(cluster, &["rm", &old]).await?;
    ensure!(!list(cluster).await?.contains_key("<none>"), "the image without a name is still there");
    runs(cluster, "new", "r.test/docker:v1", "Never").await
}

#[test]
fn a_stopped_cluster_has_its_images_on_disk() {
    run(Options::default(), async |cluster| {
        make(cluster, &["docker=r.test/docker:v1", "oci=r.test/oci:v1"]).await?;
        good(cluster, &["import", &file(cluster, "docker.docker.tar")]).await?;
        runs(cluster, "docker", "r.test/docker:v1", "Never").await?;
        let (listed, before) = (good(cluster, &["ls"]).await?, identity(cluster, "docker").await?);

        cluster.stop_agent().await?;
        ensure!(good(cluster, &["ls"]).await? == listed, "ls says something else without a cluster");
        bad_archives_without_new(cluster).await?;
        let said = good(cluster, &["import", &file(cluster, "oci.oci.tar.gz")]).await?;
        ensure!(said == "imported r.test/oci:v1\n", "import: {said}");
        good(cluster, &["import", "--name", "alias", &file(cluster, "oci.oci.tar.gz")]).await?;
        good(cluster, &["rm", "alias"]).await?;
        let said = bad(cluster, &["rm", "r.test/docker:v1"]).await?;
        ensure!(said.contains("is in use by a container"), "its container runs on: {said}");

        // A cluster that was killed leaves its socket behind.
        cluster.up().await?;
        cluster.kill_agent()?;
        good(cluster, &["ls"]).await?;
        cluster.up().await?;
        ensure!(identity(cluster, "docker").await? == before, "the container did not stay");
        what(cluster, "docker").await?;
        runs(cluster, "oci", "r.test/oci:v1", "Never").await?;

        // Directories of no cluster stay as they are.
        let scratch = cluster.scratch().display().to_string();
        let nowhere = format!("{scratch}/nowhere");
        for (directory, wanted) in
            [(&nowhere, "there is no such directory"), (&scratch, "there is no cluster")]
        {
            let output = cluster.xebec(&["images", "ls", "--data-dir", directory]).await?;
            ensure!(output.code == 1 && output.stderr.contains(wanted), "{directory}: {output:?}");
            ensure!(output.stderr.contains(directory.as_str()), "{directory}: {output:?}");
        }
        ensure!(!Path::new(&nowhere).exists() && !cluster.scratch().join("lock").exists(), "it made files");
        Ok(())
    });
}

async fn bad_archives_without_new(cluster: &Cluster) -> Result<()> {
    for kind in ["docker.tar", "oci.tar.gz"] {
        let (from, to) = (format!("docker.{kind}"), format!("new.{kind}"));
        std::fs::copy(cluster.scratch().join(from), cluster.scratch().join(to)).context("copy")?;
    }
    bad_archives(cluster).await
}

#[test]
fn registries_give_images_and_say_what_they_have_not() {
    run(Options::default(), async |cluster| {
        make(cluster, &["open=unused", "closed=unused"]).await?;
        let (open, at) = registry(cluster, "open", "").await?;
        let htpasswd = file(cluster, "htpasswd");
        std::fs::write(&htpasswd, HTPASSWD).context("write htpasswd")?;
        let auth = format!("auth: {{htpasswd: {{realm: test, path: {htpasswd}}}}}");
        let (closed, closed_at) = registry(cluster, "closed", &auth).await?;
        push(cluster, "open", &at, "team/open", &[]).await?;
        push(cluster, "closed", &closed_at, "team/closed", &["--user", &format!("user:{PASSWORD}")]).await?;

        pulls(cluster, &at).await?;
        pulls_with_credentials(cluster, &closed_at).await?;

        // Without a cluster the command goes to the registry itself.
        cluster.stop_agent().await?;
        good(cluster, &["pull", &format!("{at}/team/open:v1")]).await?;
        for registry in [open, closed] {
            registry.interrupt().await?;
        }
        let image = format!("{at}/team/open:v1");
        let before = good(cluster, &["ls"]).await?;
        let refused = bad(cluster, &["pull", &image]).await?;
        cluster.up().await?;
        for said in [refused, bad(cluster, &["pull", &image]).await?] {
            ensure!(said.contains(&image) && said.contains("Connection refused"), "it is down: {said}");
        }
        ensure!(good(cluster, &["ls"]).await? == before, "an image was lost");
        Ok(())
    });
}

async fn pulls(cluster: &Cluster, at: &str) -> Result<()> {
    let image = format!("{at}/team/open:v1");
    for _ in 0..2 {
        let said = good(cluster, &["pull", &image]).await?;
        ensure!(said == format!("pulled {image}\n"), "pull: {said}");
    }
    let images = list(cluster).await?;
    let id = images.get(&image).map(|(id, _)| id.clone());
    ensure!(id == Some(short_id(cluster, "open")?), "{image} is not among {images:?}");
    runs(cluster, "open", &image, "Never").await?;
    for missing in [format!("{at}/team/open:none"), format!("{at}/team/nobody:v1")] {
        let said = bad(cluster, &["pull", &missing]).await?;
        ensure!(said.trim_end().ends_with(&format!("{missing}: not found")), "{missing}: {said}");
    }
    let said = bad(cluster, &["pull", "Not//valid"]).await?;
    ensure!(said.contains("couldn't parse image name"), "{said}");
    ensure!(list(cluster).await? == images, "pulls that failed changed the images");
    Ok(())
}

async fn pulls_with_credentials(cluster: &Cluster, at: &str) -> Result<()> {
    let image = format!("{at}/team/closed:v1");
    let pull = async |password: &str| {
        let data_dir = cluster.data_dir().display().to_string();
        let words =
            ["images", "pull", "--data-dir", &data_dir, "--username", "user", "--password-stdin", &image];
        cluster.xebec_with_input(&words, password).await
    };
    let denied = bad(cluster, &["pull", &image]).await?;
    ensure!(denied.contains("pull access denied"), "without credentials: {denied}");
    let wrong = pull("wrong\n").await?;
    ensure!(wrong.code == 1 && wrong.stderr.contains("pull access denied"), "wrong password: {wrong:?}");
    let empty = pull("\n").await?;
    ensure!(empty.code == 1 && empty.stderr.contains("--password-stdin"), "no password: {empty:?}");
    let pulled = pull(&format!("{PASSWORD}\n")).await?;
    ensure!(pulled.success() && pulled.stdout == format!("pulled {image}\n"), "credentials: {pulled:?}");
    let half = images(cluster, &["pull", "--username", "user", &image]).await?;
    ensure!(half.code == 2 && half.stderr.contains("--password-stdin"), "half of them: {half:?}");
    runs(cluster, "closed", &image, "Never").await?;
    delete(cluster, "closed").await?;
    let said = good(cluster, &["rm", &image]).await?;
    ensure!(said == format!("removed {image}\n"), "rm: {said}");
    Ok(())
}

/// Starts Debian's docker-registry on loopback of the node. Answers it with its address.
async fn registry(cluster: &Cluster, name: &str, more: &str) -> Result<(Running, String)> {
    let config = file(cluster, &format!("{name}.yml"));
    let data = file(cluster, &format!("{name}-registry"));
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {data}}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n{more}\n"
    );
    std::fs::write(&config, text).context("write the registry's configuration")?;
    let running = cluster.start_in_netns(&["docker-registry", "serve", &config])?;
    let address = |said: &str| -> Option<String> {
        let (_, rest) = said.split_once("listening on 127.0.0.1:")?;
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        Some(format!("127.0.0.1:{}", &rest[..end]))
    };
    let said = running.until("it listens", |said| address(said).is_some()).await?;
    Ok((running, address(&said).context("invariant: the condition saw it")?))
}

async fn push(cluster: &Cluster, image: &str, at: &str, repository: &str, more: &[&str]) -> Result<()> {
    let directory = cluster.scratch().display().to_string();
    let mut words = vec!["bash", "-c", PUSH, "push", &directory, image, at, repository, "v1"];
    words.extend(more);
    let done = cluster.run_in_netns(&words).await?;
    ensure!(done.success(), "push {image}: {done:?}");
    Ok(())
}

async fn make(cluster: &Cluster, images: &[&str]) -> Result<()> {
    let directory = cluster.scratch().display().to_string();
    let mut words = vec!["bash", "-c", MAKE, "make", &directory];
    words.extend(images);
    let done = cluster.run_in_netns(&words).await?;
    ensure!(done.success(), "make images: {done:?}");
    Ok(())
}

fn file(cluster: &Cluster, name: &str) -> String {
    cluster.scratch().join(name).display().to_string()
}

/// The id of an image that was made, as lists show it.
fn short_id(cluster: &Cluster, image: &str) -> Result<String> {
    let id = std::fs::read_to_string(cluster.scratch().join(format!("{image}.id"))).context("read an id")?;
    Ok(id[..12].to_owned())
}

async fn images(cluster: &Cluster, words: &[&str]) -> Result<Output> {
    let data_dir = cluster.data_dir().display().to_string();
    let words: Vec<&str> = [&["images"], words, &["--data-dir", &data_dir]].concat();
    cluster.xebec(&words).await
}

/// Runs `xebec images` and wants it to succeed quietly. Answers its standard output.
async fn good(cluster: &Cluster, words: &[&str]) -> Result<String> {
    let output = images(cluster, words).await?;
    ensure!(output.success() && output.stderr.is_empty(), "images {}: {output:?}", words.join(" "));
    Ok(output.stdout)
}

/// Runs `xebec images` and wants it to fail. Answers what it says.
async fn bad(cluster: &Cluster, words: &[&str]) -> Result<String> {
    let output = images(cluster, words).await?;
    ensure!(output.code == 1 && output.stdout.is_empty(), "images {}: {output:?}", words.join(" "));
    ensure!(output.stderr.starts_with("xebec: "), "images {}: {output:?}", words.join(" "));
    Ok(output.stderr)
}

/// Ids and sizes of the images by name.
async fn list(cluster: &Cluster) -> Result<BTreeMap<String, (String, String)>> {
    let text = good(cluster, &["ls"]).await?;
    let mut lines = text.lines();
    let heading: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    ensure!(heading == ["IMAGE", "ID", "SIZE"], "ls begins with {heading:?}");
    let mut images = BTreeMap::new();
    for line in lines {
        let [name, id, number, unit] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            bail!("a line of ls: {line}");
        };
        let old = images.insert(name.to_owned(), (id.to_owned(), format!("{number} {unit}")));
        ensure!(old.is_none(), "{name} is there twice:\n{text}");
    }
    Ok(images)
}

/// Runs a pod with an image and looks whether it is that one.
async fn runs(cluster: &Cluster, name: &str, image: &str, policy: &str) -> Result<()> {
    let container = json!({"name": "main", "image": image, "imagePullPolicy": policy});
    let pod: Value = json!({
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 20, "containers": [container]},
    });
    ready_pod(cluster, pod).await?;
    what(cluster, name).await
}

/// A pod has the name of its image, which the image says of itself.
async fn what(cluster: &Cluster, name: &str) -> Result<()> {
    let said = cluster.exec(name, &["cat", "/what"]).await?;
    ensure!(said.success() && said.stdout.trim() == name, "{name} runs another image: {said:?}");
    Ok(())
}

async fn delete(cluster: &Cluster, pod: &str) -> Result<()> {
    let api = pods(&cluster.client());
    api.delete(pod, &DeleteParams::default()).await.context("delete")?;
    wait_gone(&api, pod, PATIENCE).await
}

/// What a restart of the container would change.
async fn identity(cluster: &Cluster, pod: &str) -> Result<String> {
    let pod = pods(&cluster.client()).get(pod).await.context("get the pod")?;
    let status = first(&pod).context("a container status")?;
    let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
    ensure!(running, "the container does not run: {status:?}");
    Ok(format!("{:?}, restarts {}", status.container_id, status.restart_count))
}
