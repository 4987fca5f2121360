//! `demo`: a tour on this machine. Needs no internet and no privileges.
//!
//! Everything in it is real: the gateway of `serve` on sockets of its own, an HTTPS origin, a TCP service, a gRPC service
//! and a DNS server ([`peers`]), and clients that know nothing but a session's env bundle ([`sandbox`]). [`tour`] and
//! [`revocation`] walk through it, [`show`] tells what came of each step, [`decisions`] reads the log of it.

mod decisions;
mod keep;
mod peers;
mod revocation;
mod sandbox;
mod show;
mod stage;
mod tour;

use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::{show::Show, stage::Stage};
use crate::telemetry::init_logging;

/// Ended by a signal (as shells have it for SIGINT).
const INTERRUPTED: u8 = 130;

/// `demo`.
#[derive(Debug, Default, Args)]
pub(super) struct DemoArgs {
    /// Leave everything running until Ctrl-C, and print what to paste to try it by hand.
    #[arg(long)]
    keep: bool,
    /// Print steps and records as JSON lines.
    #[arg(long)]
    json: bool,
}

/// 0 only if every step did what it says.
pub(super) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    // The tour tells what happens; the log is for those who ask for it by RUST_LOG.
    init_logging("off");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut show = Show::new(args.json);
    let mut stage = Stage::build().await?;
    let mut verdict = ExitCode::from(INTERRUPTED);
    let tour = async {
        tour::walk(&stage, &mut show).await?;
        verdict = show.verdict();
        if args.keep {
            let _running = keep::invite(&stage, &show).await?;
            std::future::pending::<()>().await;
        }
        anyhow::Ok(())
    };
    let ended = tokio::select! {
        ended = tour => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    stage.close().await;
    ended.map(|()| verdict)
}

#[cfg(test)]
mod tests;
