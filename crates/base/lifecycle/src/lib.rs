//! Components of a process: start, readiness, orderly stop.
