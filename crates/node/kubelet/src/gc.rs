//! Rare chores: log rotation and removal of unused images when their file system fills.
//!
//! They run when a container has died (that is when there may be something to do), at most once a minute, and
//! otherwise every ten minutes with jitter, because a log also grows while nothing dies.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use xebec_cri::ContainerFilter;

use crate::logs::rotate;
use crate::worker::Shared;

const AT_MOST: Duration = Duration::from_secs(60);
const AT_LEAST: Duration = Duration::from_secs(600);

/// Does the chores until cancelled.
pub(crate) async fn run(shared: Arc<Shared>, cancel: CancellationToken) {
    loop {
        let jitter = 1.0 + rand::random::<f64>() * 0.2;
        tokio::select! {
            () = cancel.cancelled() => return,
            () = shared.died.notified() => {}
            () = tokio::time::sleep(AT_LEAST.mul_f64(jitter)) => {}
        }
        let config = &shared.config;
        let runtime = shared.runtime.runtime.as_ref();
        rotate::rotate_all(runtime, config.log_max_bytes, config.log_max_files).await;
        collect_images(&shared).await;
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(AT_MOST) => {}
        }
    }
}

/// How full a file system is, in percent.
fn fullness(path: &std::path::Path) -> Option<u8> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let used = stat.f_blocks.checked_sub(stat.f_bavail)?;
    u8::try_from(used * 100 / stat.f_blocks.max(1)).ok()
}

async fn collect_images(shared: &Shared) {
    let images = &shared.runtime.images;
    let Ok(info) = images.image_fs_info().await else { return };
    let full = || fullness(&info.mountpoint).unwrap_or(0);
    if full() <= shared.config.image_gc_high_percent {
        return;
    }
    let (Ok(all), Ok(containers)) = (
        images.list_images().await,
        shared.runtime.runtime.list_containers(&ContainerFilter::default()).await,
    ) else {
        return;
    };
    let used: BTreeSet<_> = containers.iter().map(|c| c.image_id.as_str()).collect();
    let mut unused: Vec<_> = all.iter().filter(|i| !i.pinned && !used.contains(i.id.as_str())).collect();
    unused.sort_by_key(|i| std::cmp::Reverse(i.size));
    for image in unused {
        if full() <= shared.config.image_gc_low_percent {
            return;
        }
        match images.remove_image(&image.id).await {
            Ok(()) => tracing::info!(image = image.id, "unused image removed"),
            Err(error) => tracing::debug!(%error, image = image.id, "image stays"),
        }
    }
}
