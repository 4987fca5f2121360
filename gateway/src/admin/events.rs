//! Events as they happen (server-sent events): lifecycle, resumable by cursor, and access records, live only.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Extension,
    body::Body,
    extract::{Query, State as Extract},
    response::Response,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use serde_json::{Value, json};
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc, watch,
    },
    time::{Instant, sleep_until},
};

use super::{Problem, State};
use crate::{
    auth::{AdminCredentials, Principal, TokenHash},
    session::{Registry, RegistryError},
    store::StoredEvent,
};

/// Messages under way to a reader.
const QUEUE: usize = 64;
/// Events per look into the store.
const PAGE: usize = 256;
/// A comment this often keeps middleboxes and readers from giving up.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// `GET events?after=CURSOR&follow=true|false`, or `Last-Event-ID`. Without a cursor: what happens from now on, or
/// with `follow=false` everything stored.
pub(super) async fn stream(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(token): Extension<TokenHash>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let follow = match query.get("follow").map(String::as_str) {
        None | Some("true") => true,
        Some("false") => false,
        Some(_) => return Err(malformed("follow is true or false")),
    };
    let last_id = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        // A browser that was given none yet may send it empty.
        .filter(|text| !text.is_empty());
    let after = match last_id.or(query.get("after").map(String::as_str)) {
        None if follow => None,
        None => Some(0),
        Some(text) => Some(
            text.parse()
                .map_err(|_| malformed("the cursor is a whole number"))?,
        ),
    };
    if after.is_some() {
        state.registry.check_readable()?;
    }
    let (send, receive) = mpsc::channel(QUEUE);
    let mut changes = state.credentials.changes();
    // It was judged a moment ago.
    changes.mark_changed();
    // Subscribed before the store is read, so that nothing falls between.
    let feed = Feed {
        lifecycle: state.registry.subscribe(),
        access: state.telemetry.access().subscribe(),
        registry: state.registry.clone(),
        send,
        due: Instant::now() + KEEPALIVE,
        changes,
        credentials: state.credentials.clone(),
        token,
        view: View {
            principal,
            namespace: query.get("namespace").cloned(),
        },
    };
    // Looked up before there is an answer: what happens behind that is told.
    let now = state.registry.newest_event();
    state.tasks.spawn_service(async move {
        let send = feed.send.clone();
        match feed.run(after, now, follow).await {
            // A reader that went away is the normal end.
            Ok(()) | Err(Stopped::Gone) => {}
            Err(Stopped::Store(error)) => {
                tracing::warn!(%error, "a feed of events breaks off");
                // Nor is it told where it has gone meanwhile.
                let _ = send.send(Err(error)).await;
            }
        }
    });
    let mut response = Response::new(Body::new(Messages(receive)));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn malformed(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed-query", detail)
}

struct Feed {
    registry: Arc<Registry>,
    lifecycle: broadcast::Receiver<(u64, Arc<str>)>,
    access: broadcast::Receiver<Arc<str>>,
    send: mpsc::Sender<Result<Bytes, RegistryError>>,
    /// When the reader is to hear something again: what others are told is no sign of life to this one.
    due: Instant,
    credentials: Arc<AdminCredentials>,
    changes: watch::Receiver<()>,
    /// By which its reader came.
    token: TokenHash,
    view: View,
}

/// What of the stream its reader sees.
struct View {
    principal: Arc<Principal>,
    namespace: Option<String>,
}

impl View {
    /// The namespaces whose history it is; `None` = everybody's.
    fn namespaces(&self) -> Option<Vec<String>> {
        match (&self.namespace, &self.principal.namespaces) {
            (Some(one), _) => Some(vec![one.clone()]),
            (None, Some(some)) => Some(some.to_vec()),
            (None, None) => None,
        }
    }

    fn shows(&self, body: &str) -> bool {
        if !self.principal.is_bounded() && self.namespace.is_none() {
            return true;
        }
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        // What is of a namespace and of no session is for whoever sees all of that one.
        let whose = body.get("session").unwrap_or(&body);
        let text = |key| whose.get(key).and_then(Value::as_str);
        // An access record does not say whose session it was: an owner's credential sees lifecycle events only.
        text("namespace").is_some_and(|own| {
            self.principal.sees(own) && self.namespace.as_deref().is_none_or(|asked| asked == own)
        }) && self.principal.owns(text("owner"))
    }
}

/// Why a feed ends before its time.
enum Stopped {
    /// The reader has gone, or may read no more.
    Gone,
    /// The store cannot be read: what was told is not all there is, and must not look so.
    Store(RegistryError),
}

impl Feed {
    /// `now` is the last event before this was asked for.
    async fn run(mut self, after: Option<u64>, now: u64, follow: bool) -> Result<(), Stopped> {
        let mut last = match after {
            Some(after) => self.from(after).await?,
            None => now,
        };
        if !follow {
            return Ok(());
        }
        // An id without data is no message, and what its reader comes back with (WHATWG HTML §9.2.6): who is cut off before
        // anything happens goes on from here.
        self.put(format!(": ready\nid: {last}\n\n")).await?;
        loop {
            tokio::select! {
                biased;
                // What is withdrawn reads no more; what means something else now is asked for anew.
                Ok(()) = self.changes.changed() => if !self.is_known() {
                    return Ok(());
                },
                () = sleep_until(self.due) => self.put(": alive\n\n".into()).await?,
                event = self.lifecycle.recv() => match event {
                    Ok((cursor, body)) if cursor > last => {
                        last = cursor;
                        if !self.view.shows(&body) {
                            continue;
                        }
                        self.put(message("session", Some(cursor), &body)).await?;
                    }
                    Ok(_) => {}
                    // The store has what the channel dropped.
                    Err(RecvError::Lagged(_)) => last = self.replay(last).await?,
                    Err(RecvError::Closed) => return Ok(()),
                },
                record = self.access.recv() => match record {
                    Ok(body) if !self.view.shows(&body) => {}
                    Ok(body) => self.put(message("access", None, &body)).await?,
                    Err(RecvError::Lagged(missed)) => {
                        self.put(lagged("access", missed)).await?;
                    }
                    Err(RecvError::Closed) => return Ok(()),
                },
                () = self.send.closed() => return Err(Stopped::Gone),
            }
        }
    }

    /// Everything stored after a reader's own cursor. One that was never given comes from another store: its reader is
    /// told so, and given all there is.
    async fn from(&mut self, after: u64) -> Result<u64, Stopped> {
        let Some(before) = after.checked_sub(1) else {
            // From the beginning, whatever that is by now: who has read nothing yet has lost nothing.
            let oldest = self.stored(0, 1).await?.first().map_or(0, |e| e.cursor);
            return self.tell(oldest.saturating_sub(1)).await;
        };
        if !self.stored(before, 1).await?.is_empty() {
            return self.replay(after).await;
        }
        let data = json!({ "type": "events.reset", "after": after });
        self.put(message("reset", None, &data.to_string())).await?;
        self.replay(0).await
    }

    async fn stored(&self, after: u64, most: usize) -> Result<Vec<StoredEvent>, Stopped> {
        let events = self.registry.events_after(after, most).await;
        events.map_err(Stopped::Store)
    }

    /// Everything stored after `last`, which was; returns the new last cursor.
    async fn replay(&mut self, last: u64) -> Result<u64, Stopped> {
        let own = self.view.namespaces();
        // What others have lost is nothing to whoever sees a part.
        let missed = self.lost(own.as_deref().unwrap_or_default(), last).await?;
        if missed > 0 {
            self.put(lagged("session", missed)).await?;
        }
        self.tell(last).await
    }

    /// Everything stored after `last`, and for whoever sees all of it what is missing in between; returns the new last cursor.
    async fn tell(&mut self, mut last: u64) -> Result<u64, Stopped> {
        let own = self.view.namespaces();
        loop {
            let page = self.stored(last, PAGE).await?;
            let full = page.len() == PAGE;
            for event in page {
                // Cursors rise by one: what is not there was dropped.
                let missed = event.cursor.saturating_sub(last.saturating_add(1));
                if missed > 0 && own.is_none() {
                    self.put(lagged("session", missed)).await?;
                }
                last = event.cursor;
                let body = String::from_utf8_lossy(&event.body);
                if !self.view.shows(&body) {
                    continue;
                }
                self.put(message("session", Some(event.cursor), &body))
                    .await?;
            }
            if !full {
                return Ok(last);
            }
        }
    }

    /// How many events of these namespaces were dropped after `last`, at most.
    async fn lost(&self, own: &[String], last: u64) -> Result<u64, Stopped> {
        let mut lost = 0_u64;
        for namespace in own {
            let dropped = self.registry.events_dropped(namespace.clone()).await;
            let dropped = dropped.map_err(Stopped::Store)?;
            let since = dropped.last.saturating_sub(last);
            lost = lost.saturating_add(dropped.events.min(since));
        }
        Ok(lost)
    }

    /// Does its reader's token still mean what it meant?
    fn is_known(&self) -> bool {
        let now = self.credentials.identify(&self.token);
        now.as_ref() == Some(&self.view.principal)
    }

    /// Nothing more goes to a reader that is known no longer, however long it took to take what came before. It is looked up
    /// where credentials have changed only.
    async fn put(&mut self, text: String) -> Result<(), Stopped> {
        let place = self.send.reserve().await.map_err(|_| Stopped::Gone)?;
        if self.changes.has_changed().unwrap_or(true) {
            self.changes.mark_unchanged();
            if !self.is_known() {
                return Err(Stopped::Gone);
            }
        }
        place.send(Ok(text.into()));
        self.due = Instant::now() + KEEPALIVE;
        Ok(())
    }
}

/// So many messages of a kind will not come any more.
fn lagged(kind: &str, missed: u64) -> String {
    let data = json!({ "type": "events.lagged", "kind": kind, "missed": missed });
    message("lagged", None, &data.to_string())
}

/// One message. Our JSON holds no line end, so one `data` line is enough.
fn message(event: &str, id: Option<u64>, data: &str) -> String {
    match id {
        Some(id) => format!("event: {event}\nid: {id}\ndata: {data}\n\n"),
        None => format!("event: {event}\ndata: {data}\n\n"),
    }
}

/// The queue as a body. One that breaks off is cut, so that nobody takes it for whole.
struct Messages(mpsc::Receiver<Result<Bytes, RegistryError>>);

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = RegistryError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RegistryError>>> {
        self.0
            .poll_recv(cx)
            .map(|next| next.map(|bytes| bytes.map(Frame::data)))
    }
}
