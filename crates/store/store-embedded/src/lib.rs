//! The embedded store: one file tree, one writer, group commit.
