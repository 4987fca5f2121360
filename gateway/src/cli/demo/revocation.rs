//! Revocation in mid-stream: an HTTPS response, a relayed TCP stream and a relayed gRPC stream are open, and end.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tonic::Streaming;
use tonic_health::pb::HealthCheckResponse;

use super::{
    peers::TICK,
    sandbox::Sandbox,
    show::{Seen, Show, Step},
    stage::Stage,
    tour::{converse, serving, within},
};

/// A revoked session's tunnels are cut within this time.
const CUT_WITHIN: Duration = Duration::from_secs(1);

/// When something ended, counted from the request to revoke, and how.
type End = anyhow::Result<(Duration, String)>;

/// Open all three, revoke, and see how and when each ends.
pub(super) async fn walk(
    stage: &Stage,
    sandbox: &mut Sandbox,
    show: &mut Show,
) -> anyhow::Result<()> {
    show.heading("Revocation, with a tunnel and two streams open");
    let body = within(ticking(stage, sandbox)).await?;
    let mut stream = TcpStream::connect(sandbox.echo).await?;
    within(converse(&mut stream, "still there?")).await?;
    let watch = within(watching(sandbox)).await?;

    let start = Instant::now();
    let (revoked, body, stream, watch) = tokio::join!(
        stage.act("reset"),
        within(response_end(body, start)),
        within(stream_end(stream, start)),
        within(watch_end(watch, start)),
    );
    revoked?;
    let ends = [
        ("an HTTPS response, halfway", body),
        ("a relayed TCP stream", stream),
        ("a relayed gRPC server stream", watch),
    ];
    for (what, end) in ends {
        let step = Step {
            word: "cut",
            what,
            expected: "cut within 1 s, and not as a clean end",
        };
        show.step(step, end.and_then(|(after, how)| in_time(after, &how)));
    }
    let step = Step {
        word: "refused",
        what: "the old credential",
        expected: "407 credential_invalid",
    };
    let old = old_credential(sandbox, stage.https_target());
    show.step(step, within(old).await);
    Ok(())
}

fn in_time(after: Duration, how: &str) -> anyhow::Result<Seen> {
    let ms = after.as_secs_f64() * 1e3;
    ensure!(after <= CUT_WITHIN, "{how} after {ms:.0} ms");
    Ok(Seen::new(format!("{ms:.1} ms after: {how}")))
}

/// A response that goes on for ever, some of it read.
async fn ticking(stage: &Stage, sandbox: &mut Sandbox) -> anyhow::Result<Incoming> {
    let target = stage.https_target();
    let response = sandbox.get_secure(&target, "/ticks", &stage.origin_tls);
    let response = response.await?;
    ensure!(response.status() == StatusCode::OK, "{}", response.status());
    let mut body = response.into_body();
    for _ in 0..3 {
        let frame = body.frame().await.context("it ended by itself")??;
        let ticks = frame.data_ref().is_some_and(|data| data.starts_with(TICK));
        ensure!(ticks, "something else than ticks");
    }
    Ok(body)
}

/// A server stream, its first message read.
async fn watching(sandbox: &Sandbox) -> anyhow::Result<Streaming<HealthCheckResponse>> {
    let mut client = sandbox.health().await?;
    let mut watch = client.watch(sandbox.health_request()?).await?.into_inner();
    let first = watch.message().await?.context("it ended by itself")?;
    serving(&first)?;
    Ok(watch)
}

async fn response_end(mut body: Incoming, start: Instant) -> End {
    loop {
        match body.frame().await {
            // What was on its way.
            Some(Ok(_)) => {}
            Some(Err(error)) => return Ok((start.elapsed(), deepest(&error))),
            None => bail!("it ended as if it were complete"),
        }
    }
}

async fn stream_end(mut stream: TcpStream, start: Instant) -> End {
    match stream.read_u8().await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            Ok((start.elapsed(), "connection reset".to_owned()))
        }
        Err(error) => bail!("{error}"),
        Ok(byte) => bail!("one more byte: {byte:#04x}"),
    }
}

async fn watch_end(mut watch: Streaming<HealthCheckResponse>, start: Instant) -> End {
    match watch.message().await {
        Err(status) => {
            let how = format!("gRPC {:?}: {}", status.code(), status.message());
            Ok((start.elapsed(), how))
        }
        Ok(Some(_)) => bail!("one more message"),
        Ok(None) => bail!("it ended as if it were complete"),
    }
}

/// What is beneath everything else that an error says.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

async fn old_credential(sandbox: &mut Sandbox, target: String) -> anyhow::Result<Seen> {
    let Err(refusal) = sandbox.connect(&target).await? else {
        bail!("a tunnel");
    };
    let unknown = refusal.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED
        && refusal.reason == "credential_invalid";
    ensure!(unknown, "{refusal}");
    Ok(Seen::new(refusal.to_string()))
}
