//! A client of the admin API: HTTP/1.1 over the unix socket in the state directory, or over TCP and TLS.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use sluicegate_certs::{Identity, TrustBundle, tls};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinSet,
};

use super::failure::{FAILED, Failure, REFUSED, UNREACHABLE, USAGE};
use crate::{auth::AdminToken, config::StateDir, secret::Secret};

/// Where the gateway is.
#[derive(Clone, Debug, Default, Args)]
pub struct ClientArgs {
    /// The gateway's state directory; its socket and token are found there.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// The management listener, instead of the socket.
    #[arg(long, value_name = "URL", env = "SLUICEGATE_ADMIN_URL")]
    pub admin_url: Option<String>,
    /// The file that holds the admin token.
    #[arg(long, value_name = "FILE", env = "SLUICEGATE_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// PEM file of the CA that an https:// management listener is trusted by, besides the system's.
    #[arg(long, value_name = "FILE")]
    pub admin_ca_file: Option<PathBuf>,
    /// PEM chain to show a management listener that asks for a client's certificate.
    #[arg(long, value_name = "FILE", requires = "admin_key_file")]
    pub admin_certificate_file: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "admin_certificate_file")]
    pub admin_key_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

impl ClientArgs {
    /// The state directory by flag or environment. It need not exist.
    pub(super) fn state_path(&self) -> Result<PathBuf, Failure> {
        StateDir::locate(self.state_dir.as_deref(), |name| std::env::var_os(name))
            .map_err(|error| Failure::new(USAGE, error.to_string()))
    }
}

enum Door {
    Unix(PathBuf),
    Http {
        tls: bool,
        host: String,
        port: u16,
        ca_file: Option<PathBuf>,
        own: Option<(PathBuf, PathBuf)>,
    },
}

/// A client of one gateway.
pub(super) struct Client {
    door: Door,
    token: Secret,
}

/// An answer that was not an error.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Client {
    pub(super) fn new(args: &ClientArgs) -> Result<Self, Failure> {
        let door = match &args.admin_url {
            Some(url) => http_door(url, args)?,
            None => {
                let socket = args.state_path()?.join("admin.sock");
                if !socket.exists() {
                    return Err(unreachable(
                        &socket.display().to_string(),
                        "there is no such socket",
                    ));
                }
                Door::Unix(socket)
            }
        };
        let path = match &args.admin_token_file {
            Some(path) => path.clone(),
            None => args.state_path()?.join("admin.token"),
        };
        Ok(Self {
            door,
            token: token(&path)?,
        })
    }

    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, Failure> {
        let mut driver = JoinSet::new();
        let response = self.send(&mut driver, method, path, body).await?;
        let status = response.status();
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(|error| broken(&error))?
            .to_bytes();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            Ok(Reply { status, body })
        } else {
            Err(refused(status, &body))
        }
    }

    /// An answer that goes on; the connection lives in `driver`.
    pub(super) async fn open(
        &self,
        driver: &mut JoinSet<()>,
        path: &str,
    ) -> Result<Incoming, Failure> {
        let response = self.send(driver, Method::GET, path, None).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(|error| broken(&error))?
            .to_bytes();
        Err(refused(
            status,
            &serde_json::from_slice(&bytes).unwrap_or_default(),
        ))
    }

    async fn send(
        &self,
        driver: &mut JoinSet<()>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Failure> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let host = match &self.door {
            Door::Unix(_) => "localhost".to_owned(),
            Door::Http { host, port, .. } => format!("{host}:{port}"),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(
                header::AUTHORIZATION,
                format!("Bearer {}", self.token.reveal()),
            )
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failure::new(USAGE, format!("cannot ask for {path:?}: {error}")))?;
        match &self.door {
            Door::Unix(socket) => {
                let stream = UnixStream::connect(socket).await;
                let stream = stream.map_err(|error| {
                    unreachable(&socket.display().to_string(), &error.to_string())
                })?;
                exchange(driver, stream, request).await
            }
            Door::Http {
                tls,
                host,
                port,
                ca_file,
                own,
            } => {
                let place = format!("{host}:{port}");
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                let stream = TcpStream::connect((bare, *port)).await;
                let stream = stream.map_err(|error| unreachable(&place, &error.to_string()))?;
                if *tls {
                    let stream = secure(stream, bare, ca_file.as_deref(), own.as_ref()).await;
                    exchange(
                        driver,
                        stream.map_err(|why| unreachable(&place, &why))?,
                        request,
                    )
                    .await
                } else {
                    exchange(driver, stream, request).await
                }
            }
        }
    }
}

async fn exchange<IO>(
    driver: &mut JoinSet<()>,
    io: IO,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Failure>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(io))
        .await
        .map_err(|error| broken(&error))?;
    driver.spawn(async move {
        // What goes wrong here shows at the request.
        let _ = connection.await;
    });
    sender
        .send_request(request)
        .await
        .map_err(|error| broken(&error))
}

async fn secure(
    stream: TcpStream,
    host: &str,
    ca_file: Option<&Path>,
    own: Option<&(PathBuf, PathBuf)>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let mut trust = TrustBundle::system().map_err(|error| error.to_string())?;
    if let Some(path) = ca_file {
        let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        trust = trust.with_pem(&pem).map_err(|error| error.to_string())?;
    }
    let identity = own
        .map(|(certificate, key)| Identity::load(certificate, key))
        .transpose()
        .map_err(|error| error.to_string())?;
    let config = tls::client(&trust, &[b"http/1.1"], identity.as_ref())
        .map_err(|error| error.to_string())?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    tokio_rustls::TlsConnector::from(Arc::clone(&config))
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())
}

fn http_door(url: &str, args: &ClientArgs) -> Result<Door, Failure> {
    let parsed = crate::session::PublicUrl::parse(url).ok_or_else(|| {
        Failure::new(
            USAGE,
            format!("--admin-url {url:?}: expected http(s)://HOST:PORT"),
        )
    })?;
    Ok(Door::Http {
        tls: parsed.tls,
        host: parsed.host,
        port: parsed.port,
        ca_file: args.admin_ca_file.clone(),
        own: args
            .admin_certificate_file
            .clone()
            .zip(args.admin_key_file.clone()),
    })
}

fn token(path: &Path) -> Result<Secret, Failure> {
    match AdminToken::load(path) {
        Ok(Some(token)) => Ok(token.secret().clone()),
        Ok(None) => {
            let message = format!(
                "there is no admin token at {}: is this the gateway's state directory? (--state-dir, --admin-token-file)",
                path.display()
            );
            Err(Failure::new(UNREACHABLE, message))
        }
        Err(error) => Err(Failure::new(
            FAILED,
            format!("{:#}", anyhow::Error::from(error)),
        )),
    }
}

fn unreachable(place: &str, why: &str) -> Failure {
    let message = format!(
        "cannot reach the gateway at {place}: {why}\n\
         Is it running? Start it with: sluicegate serve (and the same --state-dir), or name it by --admin-url"
    );
    Failure::new(UNREACHABLE, message)
}

fn broken(error: &hyper::Error) -> Failure {
    Failure::new(
        UNREACHABLE,
        format!("the gateway closed the connection before it answered: {error}"),
    )
}

/// A problem document as a message, and its exit code.
fn refused(status: StatusCode, body: &Value) -> Failure {
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    let mut message = text("detail").unwrap_or("the gateway refused").to_owned();
    if let Some(state) = text("state") {
        message.push_str(&format!(" (state: {state})"));
    }
    let errors = body.get("errors").and_then(Value::as_array);
    if errors.is_some_and(|errors| !errors.is_empty()) {
        // Positions are of the body this command wrote: paths tell more.
        "the request cannot be had:".clone_into(&mut message);
    }
    for error in errors.into_iter().flatten() {
        let part = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
        let hint = if part("hint").is_empty() {
            String::new()
        } else {
            format!(" ({})", part("hint"))
        };
        message.push_str(&format!("\n  {}: {}{hint}", part("path"), part("message")));
    }
    if message == "the gateway refused" {
        message = format!("the gateway answered {status}");
    }
    let code = match status.as_u16() {
        400 | 413 | 422 => USAGE,
        401 | 403 | 404 | 405 | 409 | 412 | 429 => REFUSED,
        _ => FAILED,
    };
    Failure::new(code, message)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )]
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_become_exit_codes() {
        let code =
            |status: u16| refused(StatusCode::from_u16(status).unwrap(), &Value::Null).code();
        assert_eq!([code(400), code(422)], [USAGE; 2]);
        assert_eq!(
            [code(401), code(403), code(404), code(409), code(429)],
            [REFUSED; 5]
        );
        assert_eq!([code(500), code(503)], [FAILED; 2]);
    }

    #[test]
    fn every_fault_is_told() {
        let body = json!({ "detail": "2 faults, see errors", "errors": [
            { "path": "egress.allowedHosts[0]", "message": "too broad", "hint": "name the domain" },
            { "path": "ttl", "message": "expected a duration", "hint": null },
        ]});
        let text = refused(StatusCode::UNPROCESSABLE_ENTITY, &body).to_string();
        assert!(
            text.contains("egress.allowedHosts[0]: too broad (name the domain)"),
            "{text}"
        );
        assert!(text.contains("ttl: expected a duration"), "{text}");
    }

    #[test]
    fn a_gateway_that_is_not_there_is_code_3() {
        let dir = tempfile::tempdir().unwrap();
        let args = ClientArgs {
            state_dir: Some(dir.path().into()),
            ..ClientArgs::default()
        };
        let failure = Client::new(&args).err().unwrap();
        assert_eq!(failure.code(), UNREACHABLE);
        assert!(failure.to_string().contains("sluicegate serve"));
    }
}
