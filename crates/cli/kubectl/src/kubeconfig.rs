//! Which cluster, as whom, and in which namespace.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::cmdline::Globals;
use crate::duration;
use crate::error::{Error, Result};
use crate::session::{Session, Streams};

/// What `xebec up` writes.
const OWN: &str = "/var/lib/xebec/kubeconfig";

/// The files to read: `--kubeconfig`, else `$KUBECONFIG`, else Xebec's own when it can be read, else the user's.
pub fn files(globals: &Globals) -> Vec<PathBuf> {
    if let Some(path) = &globals.kubeconfig {
        return vec![path.clone()];
    }
    if let Some(list) = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty()) {
        return std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
    }
    if std::fs::File::open(OWN).is_ok() {
        return vec![OWN.into()];
    }
    std::env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect()
}

/// Reads and merges the files; files of a list that do not exist are skipped, as client-go does.
pub fn load(globals: &Globals) -> Result<Kubeconfig> {
    let mut merged = Kubeconfig::default();
    for path in files(globals) {
        if globals.kubeconfig.is_none() && !path.exists() {
            continue;
        }
        let one = read(&path)?;
        merged = merged.merge(one).map_err(Error::Kubeconfig)?;
    }
    Ok(merged)
}

/// Reads one file.
pub fn read(path: &Path) -> Result<Kubeconfig> {
    Kubeconfig::read_from(path).map_err(|error| match error {
        KubeconfigError::ReadConfig(source, path) => Error::File { path, source },
        other => Error::Kubeconfig(other),
    })
}

/// Connects as the flags and files say.
pub async fn connect(globals: &Globals, streams: Streams) -> Result<Session> {
    let timeout = duration::parse(&globals.request_timeout)
        .map_err(|e| Error::client(format!("--request-timeout: {e}")))?;
    let mut config = config(globals).await?;
    if let Some(server) = &globals.server {
        config.cluster_url =
            server.parse().map_err(|e| Error::client(format!("--server {server:?}: {e}")))?;
    }
    if let Some(path) = &globals.certificate_authority {
        let open = |source| Error::File { path: path.clone(), source };
        std::fs::File::open(path).map_err(open)?;
        config.root_cert_file = Some(path.clone());
    }
    config.accept_invalid_certs |= globals.insecure_skip_tls_verify;
    if let Some(token) = &globals.token {
        config.auth_info = kube::config::AuthInfo { token: Some(token.clone().into()), ..Default::default() };
    }
    if let Some(user) = &globals.impersonate {
        config.auth_info.impersonate = Some(user.clone());
    }
    if !globals.impersonate_groups.is_empty() {
        config.auth_info.impersonate_groups = Some(globals.impersonate_groups.clone());
    }
    // The server's own answers are shown; a hidden retry would only make them late.
    config.default_retry = false;
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let client = Client::try_from(config).map_err(Error::from)?;
    let mut session = Session::new(client, globals.namespace.clone(), streams).with_timeout(timeout);
    session.server = server;
    Ok(session)
}

async fn config(globals: &Globals) -> Result<Config> {
    let kubeconfig = load(globals)?;
    if kubeconfig.clusters.is_empty() && globals.server.is_none() {
        // A pod has no kubeconfig but a service account.
        return Config::incluster().map_err(|_| {
            Error::Plain(
                "The connection to the server localhost:8080 was refused - did you specify the right host or port?\n\
                 (no kubeconfig was found: use --kubeconfig or $KUBECONFIG)"
                    .into(),
            )
        });
    }
    if kubeconfig.clusters.is_empty() {
        let server = globals.server.clone().unwrap_or_default();
        return Ok(Config::new(
            server.parse().map_err(|e| Error::client(format!("--server {server:?}: {e}")))?,
        ));
    }
    let options = KubeConfigOptions {
        context: globals.context.clone(),
        cluster: globals.cluster.clone(),
        user: globals.user.clone(),
    };
    if let Some(context) = &options.context
        && !kubeconfig.contexts.iter().any(|c| c.name == *context)
    {
        return Err(Error::client(format!("context {context:?} does not exist")));
    }
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(Error::Kubeconfig)
}
