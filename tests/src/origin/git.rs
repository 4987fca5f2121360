//! git's smart HTTP backend as CGI (RFC 3875): the server side is git itself.

use std::path::Path;
use std::process::Stdio;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::body::Answered;
use super::routes::{Failure, whole};

/// Runs `git http-backend` over the repositories in `root` for a path `/git/REPOSITORY/…`.
pub(super) async fn serve(
    root: &Path,
    request: Request<Incoming>,
) -> Result<Response<Answered>, Failure> {
    let field = |name: HeaderName| {
        let value = request.headers().get(name).map(HeaderValue::to_str);
        value.and_then(Result::ok).unwrap_or_default().to_owned()
    };
    let path = request.uri().path().trim_start_matches("/git");
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", request.uri().query().unwrap_or_default())
        .env("REQUEST_METHOD", request.method().as_str())
        .env("CONTENT_TYPE", field(CONTENT_TYPE))
        .env("HTTP_CONTENT_ENCODING", field(CONTENT_ENCODING))
        .env(
            "GIT_PROTOCOL",
            field(HeaderName::from_static("git-protocol")),
        )
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let body = request.into_body().collect().await?.to_bytes();
    let mut child = command
        .env("CONTENT_LENGTH", body.len().to_string())
        .spawn()?;
    let mut input = child.stdin.take().ok_or("git has no standard input")?;
    // Written beside the wait: a backend that answers while it reads must not block on a full pipe.
    let write = async {
        let written = input.write_all(&body).await;
        drop(input);
        written
    };
    let (written, output) = tokio::join!(write, child.wait_with_output());
    written?;
    answer(&output?.stdout)
}

fn answer(output: &[u8]) -> Result<Response<Answered>, Failure> {
    let end = output.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = output.split_at(end.ok_or("git answered without a head")? + 4);
    let mut response = Response::new(whole(body.to_vec()));
    for line in std::str::from_utf8(head)?
        .lines()
        .filter(|line| !line.is_empty())
    {
        let (name, value) = line.split_once(':').ok_or("a field without a colon")?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().unwrap_or_default();
            *response.status_mut() = StatusCode::from_bytes(code.as_bytes())?;
        } else {
            let name = HeaderName::from_bytes(name.as_bytes())?;
            response
                .headers_mut()
                .insert(name, HeaderValue::from_str(value)?);
        }
    }
    Ok(response)
}
