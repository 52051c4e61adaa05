//! Chores: generated tables, tidy checks, images.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod gen_schema;
mod go_types;
mod tidy;

/// Chores of the repository.
#[derive(Parser)]
#[command(name = "xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Write the table of built-in API types from upstream's reference data.
    GenSchema(gen_schema::Args),
    /// Check the rules of the house: layers, sizes, unsafe code, crate comments, licences.
    Tidy,
}

fn main() -> Result<()> {
    match Cli::parse().chore {
        Chore::GenSchema(args) => gen_schema::run(&args),
        Chore::Tidy => tidy::run(),
    }
}
