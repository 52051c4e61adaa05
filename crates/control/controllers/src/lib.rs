//! The controllers of the cluster, one folder each.
