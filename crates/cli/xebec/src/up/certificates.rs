//! Certificates that are renewed while the cluster runs.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use xebec_auth::pki::tls::ServingCertificate;
use xebec_auth::pki::{Pki, Request};

/// When to try again if a certificate could not be renewed.
const RETRY: Duration = Duration::from_secs(60);

/// A serving certificate, and the task that keeps it fresh.
///
/// # Errors
/// If it cannot be issued now.
pub fn serving(
    pki: Arc<Pki>,
    request: Request,
    token: CancellationToken,
) -> Result<(Arc<ServingCertificate>, impl Future<Output = Result<(), Infallible>> + Send + 'static)> {
    let identity = pki.identity(&request, Timestamp::now()).context("issue a serving certificate")?;
    let certificate = Arc::new(ServingCertificate::new(&identity).context("use a serving certificate")?);
    let renewing = renew(pki, request, certificate.clone(), identity.renew_at, token);
    Ok((certificate, renewing))
}

async fn renew(
    pki: Arc<Pki>,
    request: Request,
    certificate: Arc<ServingCertificate>,
    mut at: Timestamp,
    token: CancellationToken,
) -> Result<(), Infallible> {
    loop {
        let wait = u64::try_from(at.as_second() - Timestamp::now().as_second()).unwrap_or(0);
        let wait = Duration::from_secs(wait).max(RETRY);
        if token.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return Ok(());
        }
        let renewed = pki.identity(&request, Timestamp::now());
        match renewed.and_then(|identity| certificate.replace(&identity).map(|()| identity)) {
            Ok(identity) => at = identity.renew_at,
            Err(error) => tracing::warn!(%error, "a serving certificate cannot be renewed, trying again"),
        }
    }
}
