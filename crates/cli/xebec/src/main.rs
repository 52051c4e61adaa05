//! The binary: parse, wire, run.

fn main() {}
