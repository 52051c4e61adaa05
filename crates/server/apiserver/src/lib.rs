//! The generic verbs over every resource, the watch cache, discovery and the HTTPS door.
