//! `webhook …`: how deliveries go, what was given up, and one more attempt at it.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, ClientArgs},
    failure::Failure,
    output::{printable, table, text},
};

/// `webhook …`.
#[derive(Debug, Subcommand)]
pub(super) enum WebhookCommand {
    /// Each webhook: where it stands, what it is trying, and the events that were given up.
    List(ClientArgs),
    /// Try what was given up once more.
    Redeliver(RedeliverArgs),
}

#[derive(Debug, Args)]
pub(super) struct RedeliverArgs {
    /// The webhook, as `webhook list` shows it.
    name: String,
    /// This event only.
    #[arg(long, value_name = "CURSOR")]
    event: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(command: WebhookCommand) -> Result<(), Failure> {
    let args = match command {
        WebhookCommand::List(args) => args,
        WebhookCommand::Redeliver(args) => return redeliver(args).await,
    };
    let body = Client::new(&args)?
        .call(Method::GET, "/admin/api/v1/webhooks", None)
        .await?
        .body;
    if args.json {
        say!("{body:#}");
        return Ok(());
    }
    let hooks = body.get("webhooks").and_then(Value::as_array);
    let hooks = hooks.map(Vec::as_slice).unwrap_or_default();
    say_whole!("{}", shown(hooks));
    Ok(())
}

async fn redeliver(args: RedeliverArgs) -> Result<(), Failure> {
    let mut asked = json!({ "name": args.name });
    if let (Some(event), Some(fields)) = (args.event, asked.as_object_mut()) {
        fields.insert("cursor".into(), event.into());
    }
    let path = "/admin/api/v1/webhooks:redeliver";
    let body = Client::new(&args.client)?
        .call(Method::POST, path, Some(&asked))
        .await?
        .body;
    if args.client.json {
        say!("{body:#}");
    } else {
        say!("{} to be tried once more", text(&body, "redelivering"));
    }
    Ok(())
}

fn shown(hooks: &[Value]) -> String {
    let dead = |hook: &Value| -> Vec<Value> {
        let letters = hook.get("deadLetters").and_then(Value::as_array);
        letters.cloned().unwrap_or_default()
    };
    let head = [
        "WEBHOOK",
        "CURSOR",
        "DELIVERED",
        "ATTEMPTS",
        "MISSED",
        "GIVEN UP",
        "ERROR",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for hook in hooks {
        let keys = ["name", "cursor", "delivered", "attempts", "missed"];
        let mut row: Vec<String> = keys.map(|key| text(hook, key)).to_vec();
        row.extend([dead(hook).len().to_string(), text(hook, "error")]);
        rows.push(row);
    }
    let mut out = table(&rows);
    for hook in hooks {
        for letter in dead(hook) {
            let event = letter.get("event").cloned().unwrap_or_default();
            out.push_str(&format!(
                "given up by {}: event {} {} after {} attempts: {}\n",
                text(hook, "name"),
                text(&letter, "cursor"),
                text(&event, "type"),
                text(&letter, "attempts"),
                printable(&text(&letter, "error")),
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_given_up_stands_below_its_webhook() {
        let hooks = [json!({
            "name": "billing", "url": "https://hooks.test/", "cursor": 9, "delivered": 7, "attempts": 0,
            "error": null, "missed": 0,
            "deadLetters": [{"cursor": 4, "event": {"type": "session.created"}, "error": "status 500", "attempts": 8}],
        })];
        assert_eq!(
            shown(&hooks),
            "WEBHOOK  CURSOR  DELIVERED  ATTEMPTS  MISSED  GIVEN UP  ERROR\n\
             billing  9       7          0         0       1         -\n\
             given up by billing: event 4 session.created after 8 attempts: status 500\n"
        );
    }
}
