//! The supervisor as a binary of its own, which the tests start.

fn main() -> std::process::ExitCode {
    // `<exe> supervisor --state-dir …`, as the `xebec` binary takes it.
    xebec_runtime::supervisor_main(std::env::args().skip(2))
}
