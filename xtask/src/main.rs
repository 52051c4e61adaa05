//! Chores: generated tables, tidy checks, images.

fn main() {}
