//! Structured logs on stderr.

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Short lines for a terminal.
    #[default]
    Compact,
    /// Full lines with target and time, for files and collectors.
    Full,
}

/// Starts logging. `XEBEC_LOG` (as in `info,xebec_kubelet=debug`) overrides `default`; calling it twice is harmless.
pub fn init_logs(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_env("XEBEC_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Compact => builder.compact().with_target(false).try_init(),
        LogFormat::Full => builder.try_init(),
    };
    drop(started);
}
