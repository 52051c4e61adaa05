//! The store as CRI's `ImageService`.

use std::time::SystemTime;

use async_trait::async_trait;
use xebec_cri::{AuthConfig, CriError, FilesystemUsage, Image, ImageService};

use crate::{ImageError, ImageStore};

#[async_trait]
impl ImageService for ImageStore {
    async fn list_images(&self) -> Result<Vec<Image>, CriError> {
        Ok(self.list())
    }

    async fn image_status(&self, reference: &str) -> Result<Option<Image>, CriError> {
        Ok(self.get(reference))
    }

    async fn pull_image(&self, reference: &str, auth: Option<&AuthConfig>) -> Result<Image, CriError> {
        Ok(self.pull(reference, auth).await?)
    }

    async fn remove_image(&self, reference: &str) -> Result<(), CriError> {
        let (store, reference) = (self.clone(), reference.to_owned());
        let removal = tokio::task::spawn_blocking(move || store.remove(&reference));
        match removal.await.map_err(ImageError::from)? {
            Err(error @ ImageError::Pinned(_)) => Err(CriError::State(error.to_string())),
            Err(error) => Err(CriError::failed("remove image", error)),
            Ok(()) => Ok(()),
        }
    }

    async fn image_fs_info(&self) -> Result<FilesystemUsage, CriError> {
        let (used_bytes, inodes_used) = self.usage();
        Ok(FilesystemUsage {
            mountpoint: self.inner.root.clone(),
            at: SystemTime::now(),
            used_bytes,
            inodes_used,
        })
    }
}
