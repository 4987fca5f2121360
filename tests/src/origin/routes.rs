//! What each path answers.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, TRAILER, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::sync::broadcast::Receiver;

use super::body::{Answered, Pattern, digest};
use super::{Event, State, git};
use crate::tasks::Tasks;

/// Why a request got no answer: its connection is cut then. One text is all a test ever reads of it.
pub(crate) struct Failure(pub(crate) String);

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(cause: E) -> Self {
        Self(cause.to_string())
    }
}

/// Whole bytes as a body.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Answered {
    Full::new(bytes.into()).boxed()
}

/// An answer with a status and a text.
pub(crate) fn plain(status: StatusCode, text: &str) -> Response<Answered> {
    let mut response = Response::new(whole(text.to_owned()));
    *response.status_mut() = status;
    response
}

pub(super) async fn answer(
    state: &Arc<State>,
    tasks: &Tasks,
    request: Request<Incoming>,
) -> Result<Response<Answered>, Failure> {
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/echo" => echo(request).await,
        "/upload" => upload(request).await,
        "/download" => Ok(Response::new(Pattern::of(bytes_asked(&request)).boxed())),
        "/chunked" => Ok(chunked(tasks)),
        "/sse" => Ok(events(tasks, state.events.subscribe())),
        "/upgrade" => Ok(upgrade(tasks, request)),
        "/refuse" => Ok(plain(StatusCode::EXPECTATION_FAILED, "not wanted")),
        "/hang" => std::future::pending().await,
        "/reset" => Err("cut on request".into()),
        _ if path.starts_with("/git/") => git::serve(&state.root, request).await,
        _ => Ok(file(state, &path).await),
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Answered>, Failure> {
    let fields: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let head = json!({
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "version": format!("{:?}", request.version()),
        "headers": fields,
    });
    let (bytes, sha256) = digest(request.into_body()).await?;
    let text = json!({"request": head, "bytes": bytes, "sha256": sha256}).to_string();
    let mut response = Response::new(whole(text));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

async fn upload(request: Request<Incoming>) -> Result<Response<Answered>, Failure> {
    let (bytes, sha256) = digest(request.into_body()).await?;
    Ok(plain(StatusCode::OK, &format!("{bytes} {sha256}\n")))
}

fn bytes_asked(request: &Request<Incoming>) -> u64 {
    let query = request.uri().query().unwrap_or_default();
    let asked = query.strip_prefix("bytes=").unwrap_or_default();
    asked.parse().unwrap_or_default()
}

/// Two chunks and a trailer section.
fn chunked(tasks: &Tasks) -> Response<Answered> {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
    tasks.spawn(async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", HeaderValue::from_static("of-the-trailer"));
        let _ = sender.send_data(Bytes::from_static(b"first,")).await;
        let _ = sender.send_data(Bytes::from_static(b"second")).await;
        let _ = sender.send_trailers(trailers).await;
    });
    let mut response = Response::new(body.boxed());
    let announced = HeaderValue::from_static("x-checksum");
    response.headers_mut().insert(TRAILER, announced);
    response
}

/// Events as the test sends them, until it sends the end.
fn events(tasks: &Tasks, mut events: Receiver<Event>) -> Response<Answered> {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(64);
    tasks.spawn(async move {
        while let Ok(Some(event)) = events.recv().await {
            let text = format!("data: {event}\n\n");
            if sender.send_data(Bytes::from(text)).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(body.boxed());
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Switches to a protocol of its own: every byte comes back, and so does the FIN.
fn upgrade(tasks: &Tasks, mut request: Request<Incoming>) -> Response<Answered> {
    if request
        .headers()
        .get(UPGRADE)
        .is_none_or(|name| name != "echo")
    {
        return plain(StatusCode::UPGRADE_REQUIRED, "only Upgrade: echo");
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tasks.spawn(async move {
        if let Ok(stream) = upgraded.await {
            let (mut reader, mut writer) = tokio::io::split(TokioIo::new(stream));
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
        }
    });
    let mut response = plain(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("echo"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response
}

/// A file below the origin's root: `/files/a/b` is `ROOT/a/b`; a directory lists as an index of links.
async fn file(state: &State, path: &str) -> Response<Answered> {
    let Some(relative) = path.strip_prefix("/files/") else {
        return plain(StatusCode::NOT_FOUND, "no such path");
    };
    let path = state.root.join(relative);
    if relative.split('/').any(|part| part == "..") || !path.exists() {
        return plain(StatusCode::NOT_FOUND, "no such file");
    }
    if path.is_dir() {
        return index(&path);
    }
    match tokio::fs::read(&path).await {
        Ok(content) => Response::new(whole(content)),
        Err(_) => plain(StatusCode::NOT_FOUND, "not a readable file"),
    }
}

/// A page of links, as package indexes have it (PEP 503).
fn index(directory: &Path) -> Response<Answered> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let links = entries.map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        format!("<a href=\"{name}\">{name}</a>\n")
    });
    let page = format!("<!doctype html>\n{}", links.collect::<String>());
    let mut response = Response::new(whole(page));
    let kind = HeaderValue::from_static("text/html");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
