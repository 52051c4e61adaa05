//! Reading and following a container's log.
