//! The diagnostic log (not the access record): human-readable on standard error.

use tracing_subscriber::EnvFilter;

/// Install the log for this process. `RUST_LOG` wins over `level`; a second call changes nothing.
pub fn init_logging(level: &str) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr())
        && std::env::var_os("NO_COLOR").is_none();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .with_target(false)
        // What standard error does not take would be told there, by a panic.
        .log_internal_errors(false)
        .try_init();
}
