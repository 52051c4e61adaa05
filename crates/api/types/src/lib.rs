//! The vocabulary of the Kubernetes API: names, quantities, selectors, status.
