//! The `sluicegate` binary: arguments → runtime → command → exit code.

fn main() -> std::process::ExitCode {
    sluicegate::cli::run()
}
