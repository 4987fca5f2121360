//! `up`: the sidecar.

use clap::Args;
use sluicegate_relay::descriptors;
use tokio::signal::unix::{SignalKind, signal};

use super::{client::Client, options::Options, report::Report};

/// What --any-uid gives away.
const ANY_UID: &str = "--any-uid: every user and every process of this network namespace may use this session's services and its \
                       way out; give it only where the namespace is this sandbox's alone";

/// Exit codes: 0 stopped by SIGTERM or SIGINT; 1 failed; 2 bad flags, file or environment; 3 cannot listen.
#[derive(Args)]
pub(super) struct UpArgs {
    #[command(flatten)]
    options: Options,
    /// Report as JSON lines on standard output
    #[arg(long)]
    json: bool,
}

/// Serve until told to stop.
///
/// # Errors
/// Settings, listeners, trust.
pub(super) async fn run(args: &UpArgs) -> anyhow::Result<()> {
    let config = args.options.settle()?;
    if let Err(error) = descriptors::raise() {
        tracing::warn!(%error, "the limit of file descriptors stays as it is");
    }
    let (mut terminate, mut interrupt, mut hangup) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    );
    let report = Report { json: args.json };
    let gateway = config.endpoint.to_string();
    if !config.open_to_all().is_empty() {
        // Whether the namespace is the sandbox's alone no process can tell from within: a pod's or a container's may be shared.
        report.tell("warning", &[("reason", ANY_UID)]);
        tracing::warn!("{ANY_UID}");
    }
    for exposed in config.exposed_files() {
        report.tell("warning", &[("reason", &exposed.to_string())]);
        tracing::warn!("{exposed}");
    }
    let client = Client::start(config, report).await?;
    let reread = async {
        while hangup.recv().await.is_some() {
            client.reread();
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = reread => {}
        () = report.follow(client.status(), gateway) => {}
    }
    client.stop().await;
    Ok(())
}
