//! Clusters in their own namespaces and directories, cleaned up even on panic.
