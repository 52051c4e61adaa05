//! Removing images, for the kubelet and for people.

use crate::state::{Record, State};
use crate::store::IMAGES;
use crate::{ImageError, ImageStore, Reference};

/// What a removal took away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// One of the image's tags; the image has others.
    Tag(String),
    /// The image with all its references.
    Image,
}

impl ImageStore {
    /// Removes an image, or only the tag when it has others and a tag is given. Pinned images stay. Layers that
    /// containers hold stay until they are released.
    ///
    /// # Errors
    /// A pinned image, or a store that cannot be written. An image that is not here is no error.
    pub fn remove(&self, reference: &str) -> Result<(), ImageError> {
        self.change(|state| match state.find(reference).cloned() {
            Some(record) => take_away(state, reference, &record, false).map(drop),
            None => Ok(()),
        })
    }

    /// Like [`ImageStore::remove`], for people: the beginning of an id is enough, if there are four digits of it, and
    /// an image that a container is made of keeps its last reference, because the container could not be made again
    /// from an image that no registry has.
    ///
    /// # Errors
    /// As [`ImageStore::remove`]; images that are not here, that are in use, or that are not told apart.
    pub fn remove_unused(&self, reference: &str) -> Result<Removed, ImageError> {
        self.change(|state| {
            let found = state.find_short(reference)?.cloned();
            let record = found.ok_or_else(|| ImageError::NotFound(reference.to_owned()))?;
            take_away(state, reference, &record, true)
        })
    }

    fn change<T>(&self, with: impl FnOnce(&mut State) -> Result<T, ImageError>) -> Result<T, ImageError> {
        let done = {
            let mut state = self.inner.lock();
            let done = with(&mut state)?;
            state.save(&self.inner.root.join(IMAGES))?;
            done
        };
        self.inner.collect();
        Ok(done)
    }
}

fn take_away(
    state: &mut State,
    reference: &str,
    record: &Record,
    only_unused: bool,
) -> Result<Removed, ImageError> {
    if record.pinned {
        return Err(ImageError::Pinned(reference.to_owned()));
    }
    let tag = reference.parse::<Reference>().ok().map(|r| r.to_string());
    let tag = tag.filter(|t| record.repo_tags.contains(t) && record.repo_tags.len() > 1);
    if let (Some(tag), Some(image)) = (tag, state.images.get_mut(&record.id)) {
        image.repo_tags.remove(&tag);
        return Ok(Removed::Tag(tag));
    }
    let containers = state.holders(&record.id);
    if only_unused && !containers.is_empty() {
        return Err(ImageError::InUse { reference: reference.to_owned(), containers });
    }
    state.images.remove(&record.id);
    Ok(Removed::Image)
}
