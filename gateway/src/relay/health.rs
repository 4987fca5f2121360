//! Asking a host service whether it is well, in its own words.

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, Request, Version, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sluicegate_policy::{Health, Host, ServicePermit, ServiceUrl};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

use super::{Services, services::Io};

/// `grpc.health.v1.HealthCheckResponse.ServingStatus`: the names of its values.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
/// An answer of the health service is a few bytes.
const MAX_MESSAGE: usize = 4096;

impl Services {
    /// Is the service well? By its `health`.
    ///
    /// # Errors
    /// Why not, for the operator.
    pub async fn health(&self, permit: &ServicePermit) -> Result<(), String> {
        let health = &permit.service().health;
        if *health == Health::None {
            return Ok(());
        }
        let http2 = matches!(health, Health::Grpc(_));
        let (connected, _) = self
            .connect(permit, None, http2)
            .await
            .map_err(|failure| failure.detail)?;
        let io = connected.io();
        let authority = authority(permit.url());
        match health {
            Health::Connect | Health::None => Ok(()),
            Health::Redis => redis(io).await,
            Health::Postgres => postgres(io).await,
            Health::Http(path) => get(io, path, &authority).await,
            Health::Grpc(service) => grpc(io, service, &authority).await,
        }
    }
}

fn authority(url: &ServiceUrl) -> String {
    match url {
        ServiceUrl::Unix(_) => "localhost".to_owned(),
        ServiceUrl::Tcp(ip, port) => format!("{}:{port}", Host::Ip(*ip)),
        ServiceUrl::Tls { host, port } => format!("{host}:{port}"),
    }
}

/// `PING`; that it asks for a password is an answer too.
async fn redis(mut io: Box<dyn Io>) -> Result<(), String> {
    io.write_all(b"*1\r\n$4\r\nPING\r\n").await.map_err(text)?;
    io.flush().await.map_err(text)?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n") && answer.len() < 256 {
        answer.push(io.read_u8().await.map_err(text)?);
    }
    let answer = String::from_utf8_lossy(&answer).trim_end().to_owned();
    if answer == "+PONG" || answer.starts_with("-NOAUTH") {
        Ok(())
    } else {
        Err(format!("PING was answered {answer:?}"))
    }
}

/// SSLRequest (PostgreSQL protocol 3.0, "SSL Session Encryption"): `S` or `N`.
async fn postgres(mut io: Box<dyn Io>) -> Result<(), String> {
    io.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])
        .await
        .map_err(text)?;
    io.flush().await.map_err(text)?;
    match io.read_u8().await.map_err(text)? {
        b'S' | b'N' => Ok(()),
        other => Err(format!("an SSLRequest was answered 0x{other:02x}")),
    }
}

async fn get(io: Box<dyn Io>, path: &str, authority: &str) -> Result<(), String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(text)?;
    // Ends with this function.
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // What goes wrong here shows at the request.
        let _ = connection.await;
    });
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, "sluicegate-probe")
        .body(Empty::<Bytes>::new())
        .map_err(text)?;
    let answer = sender.send_request(request).await.map_err(text)?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(format!("GET {path} was answered {}", answer.status()))
    }
}

/// `grpc.health.v1.Health/Check`.
async fn grpc(io: Box<dyn Io>, service: &str, authority: &str) -> Result<(), String> {
    let (mut requests, connection) = h2::client::handshake(io).await.map_err(text)?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        let _ = connection.await;
    });
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(())
        .map_err(text)?;
    let (response, mut send) = requests.send_request(request, false).map_err(text)?;
    send.send_data(check_request(service), true).map_err(text)?;
    let response = response.await.map_err(text)?;
    if !response.status().is_success() {
        return Err(format!("the health service answered {}", response.status()));
    }
    let headers = response.headers().clone();
    let mut body = response.into_body();
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(text)?;
        let _ = body.flow_control().release_capacity(data.len());
        message.extend_from_slice(&data);
        if message.len() > MAX_MESSAGE {
            return Err("the health service's answer is too long".to_owned());
        }
    }
    let trailers = body.trailers().await.map_err(text)?.unwrap_or(headers);
    let code = trailers
        .get("grpc-status")
        .and_then(|value| value.to_str().ok())
        .unwrap_or("missing");
    if code != "0" {
        return Err(format!("the health check ended with grpc-status {code}"));
    }
    match serving_status(&message) {
        1 => Ok(()),
        other => Err(format!(
            "the health service says {}",
            STATUSES.get(other).unwrap_or(&"something else")
        )),
    }
}

/// One uncompressed message `{service = 1}`; the field is left out where it is empty (proto3).
fn check_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put(message);
    framed.freeze()
}

/// Field 1 of the answer, a small enumeration; absent = 0, UNKNOWN.
fn serving_status(framed: &[u8]) -> usize {
    match framed.get(5..) {
        Some([0x08, status, ..]) => usize::from(*status),
        Some(_) | None => 0,
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
