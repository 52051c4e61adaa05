//! The binary: parse, wire, run.
//!
//! One program is everything: `xebec up` runs a cluster, `xebec kubectl` (or the name `kubectl`) is its client, and
//! `xebec supervisor` is what the node starts to hold its containers.

mod adapters;
mod cli;
mod datadir;
mod down;
mod host;
mod images;
mod lock;
mod options;
mod preflight;
mod up;

use std::process::ExitCode;

use clap::Parser;

/// The API server makes and drops many small values; the C library's allocator would take a third of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    let called = std::path::Path::new(&program).file_name().and_then(|name| name.to_str()).unwrap_or("");
    if called == "kubectl" {
        return kubectl(std::env::args().collect());
    }
    match args.next().as_deref() {
        // Before anything else: the supervisor is single-threaded and must stay small.
        Some("supervisor") => xebec_runtime::supervisor_main(args),
        Some("kubectl") => kubectl(std::iter::once("kubectl".to_owned()).chain(args).collect()),
        _ => run(cli::Cli::parse()),
    }
}

fn run(cli: cli::Cli) -> ExitCode {
    // Only the first installation counts; a second one would fail harmlessly.
    drop(rustls::crypto::ring::default_provider().install_default());
    let result = match cli.command {
        cli::Command::Up(arguments) => up::main(arguments),
        cli::Command::Down(arguments) => down::down(arguments),
        cli::Command::Uninstall(arguments) => down::uninstall(arguments),
        cli::Command::Images(arguments) => images::main(arguments),
        cli::Command::Kubectl { .. } | cli::Command::Supervisor { .. } => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xebec: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn kubectl(args: Vec<String>) -> ExitCode {
    drop(rustls::crypto::ring::default_provider().install_default());
    xebec_kubectl::main(args)
}
