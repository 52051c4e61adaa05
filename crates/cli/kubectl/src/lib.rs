//! The client's verbs, on the kube crate.
