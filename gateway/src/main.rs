//! The `sluicegate` binary: arguments → runtime → command → exit code.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    sluicegate::cli::run()
}
