//! The pod machine, its probes, its status and the node's HTTPS door.
