//! Pod links and address management.
