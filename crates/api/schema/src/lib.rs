//! The structural-schema engine: decode, prune, default, check and publish.
