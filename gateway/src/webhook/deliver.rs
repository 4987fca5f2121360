//! One webhook's task: the next event, attempts with backoff, then the one after it.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use sluicegate_policy::{Grant, Target, decide};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Board, signature};
use crate::{
    auth::AdminToken,
    clock::unix_seconds,
    drain::{DrainWatch, Stage},
    egress::Egress,
    session::{Registry, RegistryError},
    store::StoredEvent,
};

/// Events per look into the store.
const PAGE: usize = 64;
/// One attempt, from name resolution to the answer's head.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Between two attempts: doubled from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(300));
/// How long to wait where the store does not answer.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// An answer's body is read up to this, so that its sender is not reset; it means nothing.
const MAX_ANSWER: usize = 64 * 1024;

/// One webhook.
#[derive(Clone)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// The URL as configured: part of what is signed.
    pub url: String,
    /// Host and port of it.
    pub target: Target,
    /// Path and query of it.
    pub path: String,
    /// `https`: the trust its certificate is judged by.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Signs, and is read again for each delivery: whoever rotates it does not have to say so.
    pub secret_file: PathBuf,
    /// Types of events wanted; `session.*` stands for all of sessions, none at all for every type.
    pub events: Vec<String>,
    /// Attempts before an event is given up.
    pub attempts: u32,
    /// What this webhook may connect to: its own target, and private addresses only as excepted.
    pub grant: Arc<Grant>,
}

/// The egress in force, whatever reloads do.
pub type Reach = Arc<dyn Fn() -> Arc<crate::front::Context> + Send + Sync>;

impl Hook {
    fn wants(&self, kind: &str) -> bool {
        self.events.is_empty()
            || self.events.iter().any(|wanted| {
                wanted == kind
                    || wanted
                        .strip_suffix('*')
                        .is_some_and(|prefix| kind.starts_with(prefix))
            })
    }

    /// One attempt: anything but a 2xx is a failure, and redirects are not followed.
    async fn attempt(&self, egress: &Egress, cursor: u64, event: &Value) -> Result<(), String> {
        let mut body = event.clone();
        if let Some(fields) = body.as_object_mut() {
            fields.insert("cursor".into(), cursor.into());
        }
        let (body, seconds) = (body.to_string(), unix_seconds(SystemTime::now()));
        let secret = AdminToken::load(&self.secret_file).map_err(|error| error.to_string())?;
        let secret = secret.ok_or_else(|| format!("there is no {}", self.secret_file.display()))?;
        let signed = signature(secret.secret(), seconds, &self.url, &body);
        let request = Request::post(&self.path)
            .header(header::HOST, self.target.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "sluicegate")
            .header("sluicegate-webhook", &self.name)
            .header("sluicegate-event", cursor)
            .header("sluicegate-timestamp", seconds)
            .header("sluicegate-signature", signed.ok_or("cannot sign")?)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let permit = decide(&self.grant, &self.target).map_err(|refusal| refused(&refusal))?;
        let stream = egress.dial(&self.grant, &permit).await?;
        match &self.tls {
            None => exchange(stream, request).await,
            Some(config) => {
                let name = ServerName::try_from(self.target.host().to_string());
                let name = name.map_err(|error| error.to_string())?;
                let connector = tokio_rustls::TlsConnector::from(config.clone());
                let stream = connector.connect(name, stream).await;
                exchange(stream.map_err(|error| error.to_string())?, request).await
            }
        }
    }
}

fn refused(refusal: &sluicegate_policy::Refusal) -> String {
    format!("refused: {}", refusal.denial.reason())
}

async fn exchange<IO>(io: IO, request: Request<Full<Bytes>>) -> Result<(), String>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(text)?;
    let asking = async {
        let answer = sender.send_request(request).await.map_err(text)?;
        let status = answer.status();
        // Whatever it says: the status is the acknowledgement.
        let _ = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("answered {status}"))
        }
    };
    tokio::pin!(asking, connection);
    tokio::select! {
        answered = &mut asking => answered,
        // A receiver may close behind its answer, which is then there to be read; without one the asking fails too.
        _ = &mut connection => asking.await,
    }
}

/// Deliver until the drain is over.
pub async fn run(
    hook: Hook,
    registry: Arc<Registry>,
    reach: Reach,
    board: Arc<Board>,
    mut drain: DrainWatch,
) {
    board.update(&hook.name, |state| state.url.clone_from(&hook.url));
    tokio::select! {
        () = deliver(&hook, &registry, &reach, &board) => {}
        () = drain.reached(Stage::Forced) => {}
    }
}

async fn deliver(hook: &Hook, registry: &Arc<Registry>, reach: &Reach, board: &Board) {
    // Subscribed before the store is read, so that nothing falls between.
    let mut news = registry.subscribe();
    let mut cursor = loop {
        match registry.webhook_cursor(hook.name.clone()).await {
            Ok(cursor) => break cursor,
            Err(error) => pause(hook, &error).await,
        }
    };
    let mut bell = board.bell();
    loop {
        board.update(&hook.name, |state| state.cursor = cursor);
        let page = match registry.events_after(cursor, PAGE).await {
            Ok(page) => page,
            Err(error) => {
                pause(hook, &error).await;
                continue;
            }
        };
        let Some(last) = page.last().map(|event| event.cursor) else {
            if redeliver(hook, registry, reach, board).await {
                continue;
            }
            tokio::select! {
                // Lagging is no loss: the store has it.
                _ = news.recv() => {}
                // Whoever asks lives as long as we do.
                _ = bell.changed() => {}
            }
            continue;
        };
        let mut wanted = false;
        for event in &page {
            let missed = event.cursor.saturating_sub(cursor.saturating_add(1));
            if missed > 0 {
                tracing::warn!(webhook = %hook.name, missed, "events were no longer stored when their turn came");
                reach().telemetry.metrics().webhook_missed(missed);
                board.update(&hook.name, |state| state.missed += missed);
            }
            cursor = event.cursor;
            let Some(dead) = one(hook, reach, board, event).await else {
                continue;
            };
            settle(hook, registry, cursor, dead).await;
            board.update(&hook.name, |state| state.cursor = cursor);
            redeliver(hook, registry, reach, board).await;
            wanted = true;
        }
        if !wanted {
            redeliver(hook, registry, reach, board).await;
        }
        // What was not wanted is behind us too.
        settle(hook, registry, last, None).await;
    }
}

/// Bring one event to its end: `None` where it is not wanted, else what is kept of it where it was given up.
async fn one(
    hook: &Hook,
    reach: &Reach,
    board: &Board,
    event: &StoredEvent,
) -> Option<Option<Vec<u8>>> {
    let body: Value = serde_json::from_slice(&event.body).unwrap_or_default();
    let kind = body.get("type").and_then(Value::as_str).unwrap_or_default();
    if !hook.wants(kind) {
        return None;
    }
    let (mut wait, longest) = BACKOFF;
    for attempt in 1..=hook.attempts {
        let Err(Failure { error, .. }) = once(hook, reach, event.cursor, &body).await else {
            board.update(&hook.name, |state| {
                state.delivered += 1;
                (state.attempts, state.error) = (0, None);
            });
            return Some(None);
        };
        tracing::warn!(webhook = %hook.name, event = event.cursor, attempt, error, "a delivery failed");
        board.update(&hook.name, |state| {
            (state.attempts, state.error) = (attempt, Some(error.clone()));
        });
        if attempt < hook.attempts {
            // Half of it by chance: those who failed together do not come again together.
            let jitter = getrandom::u32().unwrap_or_default() % 512;
            tokio::time::sleep(wait / 2 + wait * jitter / 1024).await;
            wait = (wait * 2).min(longest);
        }
    }
    reach().telemetry.metrics().webhook("given_up");
    let error = "given up";
    tracing::error!(webhook = %hook.name, event = event.cursor, error, "kept among the dead letters");
    let mut why = None;
    board.update(&hook.name, |state| {
        why.clone_from(&state.error);
        state.attempts = 0;
    });
    Some(Some(letter(
        &body,
        why.as_deref(),
        u64::from(hook.attempts),
    )))
}

/// Why an attempt failed.
struct Failure {
    error: String,
    /// It took all of its time.
    late: bool,
}

/// One attempt within its time.
async fn once(hook: &Hook, reach: &Reach, cursor: u64, event: &Value) -> Result<(), Failure> {
    let context = reach();
    let trying = hook.attempt(&context.egress, cursor, event);
    let failed = |error, late| Failure { error, late };
    let tried = match tokio::time::timeout(ATTEMPT, trying).await {
        Ok(tried) => tried.map_err(|error| failed(error, false)),
        Err(_) => Err(failed(format!("no answer within {ATTEMPT:?}"), true)),
    };
    let outcome = if tried.is_ok() { "delivered" } else { "failed" };
    context.telemetry.metrics().webhook(outcome);
    tried
}

/// What is kept of an event that was given up.
fn letter(event: &Value, error: Option<&str>, attempts: u64) -> Vec<u8> {
    let letter = json!({ "event": event, "error": error, "attempts": attempts });
    letter.to_string().into_bytes()
}

/// Try one that was given up once more, where somebody asked for it: what still fails stays among the dead letters. False: there is
/// none. One at a time, so that no event waits for more than one of them.
async fn redeliver(hook: &Hook, registry: &Arc<Registry>, reach: &Reach, board: &Board) -> bool {
    let Some(cursor) = board.next_asked(&hook.name) else {
        return false;
    };
    let letters = loop {
        match registry.webhook_dead(hook.name.clone()).await {
            Ok(letters) => break letters,
            Err(error) => pause(hook, &error).await,
        }
    };
    let Some(dead) = letters.into_iter().find(|dead| dead.cursor == cursor) else {
        board.tried(&hook.name, cursor);
        return true;
    };
    let tried = once(hook, reach, cursor, &dead.event).await;
    // Before the letter shows how it went: who then asks for one more attempt is to have it.
    board.tried(&hook.name, cursor);
    // Whoever does not answer does not answer the next one either, and each would hold up the events for as long.
    let late = tried.as_ref().is_err_and(|failure| failure.late);
    let others = if late {
        board.forget_asked(&hook.name)
    } else {
        0
    };
    if others > 0 {
        tracing::warn!(webhook = %hook.name, others, "no answer: the other dead letters are not tried");
    }
    let left = match tried {
        Ok(()) => {
            board.update(&hook.name, |state| state.delivered += 1);
            None
        }
        Err(Failure { error, .. }) => {
            tracing::warn!(webhook = %hook.name, event = cursor, error, "a dead letter stays one");
            let attempts = dead.attempts.saturating_add(1);
            Some(letter(&dead.event, Some(&error), attempts))
        }
    };
    while let Err(error) = registry
        .webhook_letter(hook.name.clone(), cursor, left.clone())
        .await
    {
        pause(hook, &error).await;
    }
    true
}

/// Make the end of an event durable.
async fn settle(hook: &Hook, registry: &Arc<Registry>, cursor: u64, dead: Option<Vec<u8>>) {
    while let Err(error) = registry
        .webhook_settle(hook.name.clone(), cursor, dead.clone())
        .await
    {
        pause(hook, &error).await;
    }
}

async fn pause(hook: &Hook, error: &RegistryError) {
    tracing::warn!(webhook = %hook.name, %error, "the store does not answer");
    tokio::time::sleep(STORE_PAUSE).await;
}
