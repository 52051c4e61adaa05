//! OCI images: pull, import, unpack, keep and remove.
