//! `sluicegate-relay`: the sandbox's end of the relay.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
