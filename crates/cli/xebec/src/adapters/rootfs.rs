//! Root file systems out of the image store.

use std::path::PathBuf;

use async_trait::async_trait;
use xebec_cri::CriError;
use xebec_images::ImageStore;
use xebec_runtime::{Rootfs, RootfsProvider};

/// Hands the layers of images to containers, and keeps them as long as a container uses them.
pub struct StoredRootfs(pub ImageStore);

#[async_trait]
impl RootfsProvider for StoredRootfs {
    async fn prepare(&self, image_id: &str, container_id: &str) -> Result<Rootfs, CriError> {
        let rootfs = self.0.hold(container_id, image_id)?;
        let lowerdirs: Vec<PathBuf> = rootfs.lowerdirs;
        Ok(Rootfs { lowerdirs, config: rootfs.config })
    }

    async fn release(&self, container_id: &str) -> Result<(), CriError> {
        Ok(self.0.release(container_id)?)
    }
}
