//! The steps: what is tried, and what has to come of it.

use std::{io, time::Duration};

use anyhow::{Context, bail, ensure};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic_health::pb::{HealthCheckResponse, health_check_response::ServingStatus};

use super::{
    decisions::{self, Decisions},
    revocation,
    sandbox::Sandbox,
    show::{Seen, Show, Step},
    stage::{INTRANET, ORIGIN, PRIVATE, Stage},
};
use crate::cli::output::text;

/// No step takes longer, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tunnels, requests and streams of the whole tour: one record each.
const RECORDS: usize = 11;

/// Walk through everything. An error is only what keeps the tour from going on.
pub(super) async fn walk(stage: &Stage, show: &mut Show) -> anyhow::Result<()> {
    let bundle = stage.create_session().await?;
    let mut sandbox = Sandbox::enter(&bundle, &stage.path("sandbox")).await?;
    introduce(stage, &sandbox, show);
    let decisions = Decisions::new(stage.path("access.jsonl"), stage.telemetry.clone());

    egress(stage, &mut sandbox, &decisions, show).await;
    relay(&sandbox, show).await;
    revocation::walk(stage, &mut sandbox, show).await?;
    told(&decisions, show).await;
    Ok(())
}

async fn egress(stage: &Stage, sandbox: &mut Sandbox, decisions: &Decisions, show: &mut Show) {
    let (https, http) = (stage.https_target(), stage.http_target());
    show.heading("Egress proxy");
    let step = Step {
        word: "allowed",
        what: "GET https://api.demo.test/ through CONNECT",
        expected: "200 from the origin, its certificate verified end to end",
    };
    show.step(step, within(secure_get(stage, sandbox, &https)).await);
    let step = Step {
        word: "allowed",
        what: "GET http://api.demo.test/ in absolute-form",
        expected: "200 from the origin, which never sees the credential",
    };
    show.step(step, within(plain_get(sandbox, &http)).await);
    let step = Step {
        word: "refused",
        what: "CONNECT exfiltrate.example:443, never allowed",
        expected: "403 host_not_allowed and a hint",
    };
    let refused = refusal(sandbox, "exfiltrate.example:443", "host_not_allowed");
    show.step(step, within(refused).await);
    let step = Step {
        word: "refused",
        what: "CONNECT intranet.demo.test:443, private",
        expected: "403 special_address",
    };
    show.step(step, within(private_address(sandbox)).await);
    let step = Step {
        word: "cut",
        what: "TLS for another name in an allowed tunnel",
        expected: "the TLS alert access_denied, recorded as sni_mismatch, no byte at the origin",
    };
    let mismatch = sni_mismatch(stage, sandbox, &https, decisions);
    show.step(step, within(mismatch).await);
}

async fn relay(sandbox: &Sandbox, show: &mut Show) {
    show.heading("Relay");
    let step = Step {
        word: "relayed",
        what: "TCP, by the sandbox's own port",
        expected: "the line, echoed by the host's service",
    };
    show.step(step, within(echo(sandbox)).await);
    let step = Step {
        word: "relayed",
        what: "gRPC Health/Check, TLS and a relay token",
        expected: "SERVING",
    };
    show.step(step, within(check(sandbox)).await);
}

fn introduce(stage: &Stage, sandbox: &Sandbox, show: &Show) {
    let of = |name: &str| sandbox.env.get(name).map_or("-", String::as_str);
    let proxy = of("HTTPS_PROXY")
        .rsplit_once('@')
        .map_or("-", |(_, place)| place);
    show.say("A gateway, an HTTPS origin, a TCP service and a gRPC service on this machine; no internet.");
    show.say(&format!("  proxy     http://{proxy}"));
    show.say(&format!("  relay     {}", of("SLUICEGATE_RELAY_URL")));
    show.say(&format!(
        "  session   may reach {ORIGIN} on ports {} (TLS) and {}, and {INTRANET}",
        stage.https.port(),
        stage.http.port()
    ));
    show.say(&format!(
        "  services  {}",
        of("SLUICEGATE_SERVICES").replace(',', ", ")
    ));
}

pub(super) async fn within<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    timeout(PATIENCE, work)
        .await
        .with_context(|| format!("nothing within {PATIENCE:?}"))?
}

/// A 200 from the origin, which saw no credential of ours.
async fn said(response: http::Response<Incoming>) -> anyhow::Result<()> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let body = String::from_utf8_lossy(&body).trim().to_owned();
    ensure!(status == StatusCode::OK, "{status}: {body}");
    ensure!(
        body.ends_with("reached the origin, credential seen: false"),
        "200: {body}"
    );
    Ok(())
}

async fn secure_get(stage: &Stage, sandbox: &mut Sandbox, target: &str) -> anyhow::Result<Seen> {
    let response = sandbox.get_secure(target, "/", &stage.origin_tls).await?;
    said(response).await?;
    Ok(Seen::new("200, certificate verified end to end"))
}

async fn plain_get(sandbox: &mut Sandbox, target: &str) -> anyhow::Result<Seen> {
    said(sandbox.get_plain(target, "/").await?).await?;
    Ok(Seen::new("200, credential not passed on"))
}

async fn refusal(sandbox: &mut Sandbox, target: &str, reason: &str) -> anyhow::Result<Seen> {
    let Err(refusal) = sandbox.connect(target).await? else {
        bail!("a tunnel to {target}");
    };
    ensure!(
        refusal.status == StatusCode::FORBIDDEN && refusal.reason == reason,
        "{refusal}"
    );
    let hint = refusal.hint.as_deref().context("no hint")?;
    Ok(Seen::new(refusal.to_string()).note(format!("hint: {hint}")))
}

async fn private_address(sandbox: &mut Sandbox) -> anyhow::Result<Seen> {
    let target = format!("{INTRANET}:443");
    let seen = refusal(sandbox, &target, "special_address").await?;
    let address = PRIVATE.to_string();
    let named = seen.notes.iter().any(|hint| hint.contains(&address));
    ensure!(named, "a hint that does not name {address}");
    Ok(seen)
}

/// The SNI is another name than the target's.
async fn sni_mismatch(
    stage: &Stage,
    sandbox: &mut Sandbox,
    target: &str,
    decisions: &Decisions,
) -> anyhow::Result<Seen> {
    let mut silent = stage.silent.clone();
    let before = *silent.borrow();
    let Err(error) = sandbox
        .secure(target, "other.demo.test", &stage.origin_tls)
        .await
    else {
        bail!("a TLS session for other.demo.test");
    };
    let alert = error
        .downcast_ref::<io::Error>()
        .and_then(|error| error.get_ref())
        .and_then(|error| error.downcast_ref::<rustls::Error>());
    let denied = rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied);
    ensure!(alert == Some(&denied), "{error:#}");
    silent.wait_for(|count| *count > before).await?;
    let recorded = |record: &Value| text(record, "reason") == "sni_mismatch";
    let found = |records: &[Value]| records.iter().any(recorded);
    decisions.wait("one with sni_mismatch", found).await?;
    Ok(Seen::new("TLS alert access_denied")
        .note("recorded as sni_mismatch; the origin saw a connection and not one byte"))
}

/// A line there and back.
pub(super) async fn converse(stream: &mut TcpStream, line: &str) -> anyhow::Result<()> {
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    let wanted = format!("echo: {line}\n");
    let mut got = vec![0; wanted.len()];
    stream.read_exact(&mut got).await?;
    let got = String::from_utf8_lossy(&got);
    ensure!(got == wanted, "{got:?}");
    Ok(())
}

async fn echo(sandbox: &Sandbox) -> anyhow::Result<Seen> {
    let mut stream = TcpStream::connect(sandbox.echo).await?;
    converse(&mut stream, "hello from the sandbox").await?;
    // The end travels too: FIN there, FIN back.
    stream.shutdown().await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    ensure!(rest.is_empty(), "{} bytes more", rest.len());
    Ok(Seen::new(
        "\"echo: hello from the sandbox\", closed in order",
    ))
}

pub(super) fn serving(response: &HealthCheckResponse) -> anyhow::Result<()> {
    let status = response.status();
    ensure!(status == ServingStatus::Serving, "{}", status.as_str_name());
    Ok(())
}

async fn check(sandbox: &Sandbox) -> anyhow::Result<Seen> {
    let mut client = sandbox.health().await?;
    let response = client.check(sandbox.health_request()?).await?;
    serving(response.get_ref())?;
    Ok(Seen::new("SERVING"))
}

/// The log of all this.
async fn told(decisions: &Decisions, show: &mut Show) {
    show.heading("Decision log");
    let all = |records: &[Value]| records.len() >= RECORDS;
    let mut records = decisions.wait("all of them", all).await;
    if let Ok(records) = &mut records {
        // Written as they end, told as they began: RFC 3339 in UTC sorts as text.
        records.sort_by_key(|record| text(record, "time"));
        for record in &*records {
            show.object(&serde_json::json!({"record": record}));
        }
        show.say(decisions::lines(records).trim_end());
    }
    let step = Step {
        word: "recorded",
        what: "every tunnel, request and stream, once",
        expected: "11 records",
    };
    show.step(step, records.and_then(|records| counted(&records)));
}

fn counted(records: &[Value]) -> anyhow::Result<Seen> {
    ensure!(records.len() == RECORDS, "{} records", records.len());
    Ok(Seen::new(format!("{RECORDS} records")))
}
