//! `--keep`: what to paste to try by hand.

use anyhow::Context;
use serde_json::json;
use std::{io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use super::{
    sandbox::Sandbox,
    show::Show,
    stage::{INTRANET, SESSION, Stage},
};
use crate::cli::output::{export, variables};

/// Start the session again and print how to use it. Everything runs on for as long as the stage and the answer live.
pub(super) async fn invite(stage: &Stage, show: &Show) -> anyhow::Result<Invited> {
    let bundle = stage.act("start").await?;
    let sandbox = Sandbox::enter(&bundle, &stage.path("sandbox")).await?;
    let trust = trust(stage, &sandbox)?;
    let ca_file = sandbox.env.get("SLUICEGATE_CA_FILE");
    let mut env = variables(&bundle);
    for (_, value) in &mut env {
        // Programs that take one file only need the demo's CA in it too, beside the gateway's.
        if Some(&*value) == ca_file {
            value.clone_from(&trust);
        }
    }
    let all = stage.path("session.env");
    write_private(&all, &export(&env))?;
    let short = [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "http_proxy",
        "https_proxy",
        "SSL_CERT_FILE",
        "CURL_CA_BUNDLE",
    ];
    let short: Vec<_> = env
        .iter()
        .filter(|(name, _)| short.contains(&name.as_str()))
        .cloned()
        .collect();
    let state = stage.path("state").display().to_string();
    let commands = commands(stage, &sandbox, &state);

    show.heading("Running until Ctrl-C. In another terminal:");
    show.say(&format!("\n{}", export(&short).trim_end()));
    show.say(&format!("# the whole bundle: . {}", all.display()));
    for (what, command) in &commands {
        show.say(&format!("\n# {what}\n{command}"));
    }
    show.object(&json!({
        "keep": {
            "stateDir": state,
            "env": env.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "commands": commands.iter().map(|(what, command)| json!({"what": what, "command": command})).collect::<Vec<_>>(),
        }
    }));
    Ok(Invited { _sandbox: sandbox })
}

/// Keeps the sidecar running.
pub(super) struct Invited {
    _sandbox: Sandbox,
}

fn commands(stage: &Stage, sandbox: &Sandbox, state: &str) -> Vec<(&'static str, String)> {
    let (https, http) = (stage.https_target(), stage.http_target());
    let this = std::env::current_exe()
        .map_or_else(|_| "sluicegate".into(), |path| path.display().to_string());
    vec![
        ("allowed", format!("curl https://{https}/")),
        ("allowed, plain HTTP", format!("curl http://{http}/")),
        (
            "refused: the answer says why",
            "curl -i http://exfiltrate.example/".into(),
        ),
        (
            "refused: a private address",
            format!("curl -v https://{INTRANET}/"),
        ),
        (
            "the host's TCP service, by the relay",
            format!("(echo hello; sleep 1) | curl telnet://{}", sandbox.echo),
        ),
        (
            "what happens",
            format!("{this} events --follow --state-dir {state}"),
        ),
        (
            "cut it mid-stream",
            format!(
                "(sleep 2; {this} session revoke {SESSION} --state-dir {state}) & curl -N https://{https}/ticks"
            ),
        ),
    ]
}

/// The gateway's bundle of roots and the demo CA, in one file.
fn trust(stage: &Stage, sandbox: &Sandbox) -> anyhow::Result<String> {
    let bundle = sandbox
        .env
        .get("SLUICEGATE_CA_FILE")
        .context("no CA in the bundle")?;
    let bundle = std::fs::read_to_string(bundle)?;
    let path = stage.path("trust.pem");
    std::fs::write(&path, format!("{bundle}\n{}", stage.origin_ca))?;
    Ok(path.display().to_string())
}

/// It holds credentials.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}
