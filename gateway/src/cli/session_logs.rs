//! `session logs` and `session watch`: what a runtime said, and what happens to one session.

use clap::Args;
use http::Method;
use serde_json::Value;

use super::{
    client::{Client, ClientArgs},
    events,
    failure::Failure,
    output::{printable, text},
    session::{Which, session_path},
};

/// Seconds one request waits for the next record.
const WAIT: u64 = 30;

/// `session logs`.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    which: Which,
    /// Go on as records come.
    #[arg(long, short)]
    follow: bool,
    /// Begin after this record.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u64,
    /// End after so many records.
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

pub(super) async fn logs(args: LogsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let path = session_path(&client, &args.which, "/logs").await?;
    let (mut after, mut left) = (args.after, args.limit.unwrap_or(usize::MAX));
    let wait = if args.follow { WAIT } else { 0 };
    let mut begun = false;
    while left > 0 {
        let limit = left.min(1000);
        let asked = format!("{path}&after={after}&limit={limit}&wait={wait}");
        let page = client.call(Method::GET, &asked, None).await?.body;
        let number = |key: &str| page.get(key).and_then(Value::as_u64).unwrap_or_default();
        if !begun && after + 1 < number("first") {
            let missed = number("first") - after - 1;
            note!("{missed} older records were dropped");
        }
        begun = true;
        let records = page.get("records").and_then(Value::as_array);
        let records = records.map(Vec::as_slice).unwrap_or_default();
        for record in records {
            show(record, args.client.json);
        }
        if records.is_empty() && !args.follow {
            break;
        }
        left = left.saturating_sub(records.len());
        after = number("next");
    }
    Ok(())
}

fn show(record: &Value, json: bool) {
    if json {
        say!("{record}");
        return;
    }
    let said = record.get("text").and_then(Value::as_str);
    say!(
        "{} {:<7} {}",
        text(record, "time"),
        text(record, "stream"),
        printable(said.unwrap_or_default().trim_end_matches('\n')),
    );
}

/// `session watch`.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    which: Which,
}

/// Every event and access record of one session from now on, until its reader has enough.
pub(super) async fn watch(args: WatchArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let (provider, namespace) = super::session::find(&client, &args.which).await?;
    let id = args.which.id;
    let is_own = move |body: &Value| {
        let of = |key: &str| {
            body.pointer(&format!("/session/{key}"))
                .and_then(Value::as_str)
        };
        of("id") == Some(id.as_str())
            && of("provider") == Some(provider.as_str())
            && of("namespace") == Some(namespace.as_str())
    };
    let stream = events::Stream {
        follow: true,
        after: None,
    };
    stream.show(&client, args.client.json, is_own).await
}
