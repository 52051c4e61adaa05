//! Cluster DNS from the binary itself.
