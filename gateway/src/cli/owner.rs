//! `owner …`: what owners use of what they may.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::{
    client::{Client, ClientArgs},
    failure::{Failure, USAGE},
    output::{table, text},
};
use crate::session::is_session_id;

/// `owner …`.
#[derive(Debug, Subcommand)]
pub(super) enum OwnerCommand {
    /// Every owner that has a session, and what is in use.
    List(ListArgs),
    /// What one owner uses.
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Of this namespace only.
    #[arg(long)]
    namespace: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The owner.
    owner: String,
    /// The owner's namespace; the credential's own, or `default`, where absent.
    #[arg(long)]
    namespace: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(command: OwnerCommand) -> Result<(), Failure> {
    let (args, namespace, owner) = match &command {
        OwnerCommand::List(list) => (&list.client, &list.namespace, None),
        OwnerCommand::Show(show) => (&show.client, &show.namespace, Some(&show.owner)),
    };
    for name in namespace.iter().chain(owner) {
        if !is_session_id(name) {
            let message = format!("{name:?} is no name of a namespace or an owner");
            return Err(Failure::new(USAGE, message));
        }
    }
    let client = Client::new(args)?;
    let owners = match owner {
        Some(owner) => vec![one(&client, namespace.as_deref(), owner).await?],
        None => all(&client, namespace.as_deref()).await?,
    };
    if args.json {
        match owners.as_slice() {
            [only] if owner.is_some() => say!("{only:#}"),
            all => say!("{:#}", Value::from(all)),
        }
    } else {
        say_whole!("{}", shown(&owners));
    }
    Ok(())
}

async fn one(client: &Client, namespace: Option<&str>, owner: &str) -> Result<Value, Failure> {
    let query = namespace.map_or_else(String::new, |name| format!("?namespace={name}"));
    let path = format!("/admin/api/v1/owners/{owner}{query}");
    let body = client.call(Method::GET, &path, None).await?.body;
    Ok(body.get("owner").cloned().unwrap_or_default())
}

/// Page after page.
async fn all(client: &Client, namespace: Option<&str>) -> Result<Vec<Value>, Failure> {
    let (mut owners, mut after) = (Vec::new(), String::new());
    loop {
        let scope = namespace.map_or_else(String::new, |name| format!("&namespace={name}"));
        let path = format!("/admin/api/v1/owners?limit=1000{scope}{after}");
        let body = client.call(Method::GET, &path, None).await?.body;
        let page = body.get("owners").and_then(Value::as_array);
        owners.extend(page.into_iter().flatten().cloned());
        match body.get("next").and_then(Value::as_str) {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(owners),
        }
    }
}

fn shown(owners: &[Value]) -> String {
    let head = [
        "NAMESPACE",
        "OWNER",
        "SESSIONS",
        "RECORDS",
        "LOGS",
        "TUNNELS",
        "BYTES",
        "LAST ACTIVITY",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for owner in owners {
        let used = |key: &str| {
            let part = owner.get(key).cloned().unwrap_or_default();
            format!("{} of {}", text(&part, "inUse"), text(&part, "limit"))
        };
        rows.push(vec![
            text(owner, "namespace"),
            text(owner, "owner"),
            used("sessions"),
            used("records"),
            used("logs"),
            used("tunnels"),
            used("bytes"),
            text(owner, "lastActivity"),
        ]);
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_in_use_stands_beside_its_limit() {
        let owners = [json!({
            "namespace": "team", "owner": "ann",
            "sessions": {"inUse": 2, "limit": 5, "states": {"running": 2}},
            "records": {"inUse": 5, "limit": 9}, "logs": {"inUse": 80, "limit": null},
            "tunnels": {"inUse": 0, "limit": null}, "bytes": {"inUse": 70, "limit": 1000},
            "lastActivity": null,
        })];
        assert_eq!(
            shown(&owners),
            "NAMESPACE  OWNER  SESSIONS  RECORDS  LOGS     TUNNELS  BYTES       LAST ACTIVITY\n\
             team       ann    2 of 5    5 of 9   80 of -  0 of -   70 of 1000  -\n"
        );
    }
}
