//! What runs in a sandbox: clients that know the env bundle and the origin's CA, and nothing else of the gateway.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use data_encoding::BASE64;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use sluicegate_certs::{TrustBundle, tls};
use sluicegate_relay::{
    backoff::Backoff,
    config::Settings,
    forward::forward,
    listen::{Address, Listener},
    session::{Session, SessionConfig},
    tasks::Tasks,
    transport::Tls,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::cli::output::variables;

/// A tunnel: what CONNECT opened.
pub(super) type Tunnel = TokioIo<Upgraded>;

/// The gateway's no.
#[derive(Debug)]
pub(super) struct Refusal {
    /// HTTP status.
    pub(super) status: StatusCode,
    /// The reason token.
    pub(super) reason: String,
    /// What would change it.
    pub(super) hint: Option<String>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.reason)
    }
}

/// One sandbox, with the relay's client as its sidecar.
pub(super) struct Sandbox {
    /// The env bundle.
    pub(super) env: BTreeMap<String, String>,
    /// Where the sidecar brings the line service in.
    pub(super) echo: SocketAddr,
    connections: JoinSet<()>,
    _sidecar: DropGuard,
}

impl Sandbox {
    /// Take a session's bundle and start the sidecar.
    pub(super) async fn enter(bundle: &Value, directory: &Path) -> anyhow::Result<Self> {
        let env: BTreeMap<_, _> = variables(bundle).into_iter().collect();
        let stop = CancellationToken::new();
        let echo = sidecar(&env, directory, stop.clone()).await?;
        Ok(Self {
            env,
            echo,
            connections: JoinSet::new(),
            _sidecar: stop.drop_guard(),
        })
    }

    fn variable(&self, name: &str) -> anyhow::Result<&str> {
        let value = self.env.get(name).map(String::as_str);
        value.with_context(|| format!("the env bundle has no {name}"))
    }

    /// Address and credential of the proxy, from its URL.
    fn proxy(&self) -> anyhow::Result<(String, String)> {
        let uri: Uri = self.variable("HTTPS_PROXY")?.parse()?;
        let authority = uri.authority().context("a proxy URL without authority")?;
        let (userinfo, place) = authority
            .as_str()
            .rsplit_once('@')
            .context("a proxy URL without credential")?;
        Ok((
            place.to_owned(),
            format!("Basic {}", BASE64.encode(userinfo.as_bytes())),
        ))
    }

    async fn exchange<IO>(
        &mut self,
        io: IO,
        request: Request<Empty<Bytes>>,
    ) -> anyhow::Result<Response<Incoming>>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        self.connections.spawn(async move {
            // What goes wrong here shows at the request.
            let _ = connection.with_upgrades().await;
        });
        Ok(sender.send_request(request).await?)
    }

    /// CONNECT to `target`.
    pub(super) async fn connect(
        &mut self,
        target: &str,
    ) -> anyhow::Result<Result<Tunnel, Refusal>> {
        let (place, credential) = self.proxy()?;
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(target)
            .header(header::HOST, target)
            .header(header::PROXY_AUTHORIZATION, credential)
            .body(Empty::new())?;
        let response = self
            .exchange(TcpStream::connect(place).await?, request)
            .await?;
        if response.status().is_success() {
            return Ok(Ok(TokioIo::new(hyper::upgrade::on(response).await?)));
        }
        Ok(Err(refusal(response).await?))
    }

    /// TLS to `name` in a tunnel to `target`.
    pub(super) async fn secure(
        &mut self,
        target: &str,
        name: &str,
        tls: &Arc<rustls::ClientConfig>,
    ) -> anyhow::Result<TlsStream<Tunnel>> {
        let tunnel = self.connect(target).await?;
        let tunnel = tunnel.map_err(|refusal| anyhow!("{refusal}"))?;
        let name = ServerName::try_from(name.to_owned())?;
        Ok(TlsConnector::from(tls.clone())
            .connect(name, tunnel)
            .await?)
    }

    /// GET over HTTPS, in a tunnel.
    pub(super) async fn get_secure(
        &mut self,
        target: &str,
        path: &str,
        tls: &Arc<rustls::ClientConfig>,
    ) -> anyhow::Result<Response<Incoming>> {
        let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
        let stream = self.secure(target, host, tls).await?;
        let request = Request::get(path)
            .header(header::HOST, target)
            .body(Empty::new())?;
        self.exchange(stream, request).await
    }

    /// GET in absolute-form, over plain HTTP.
    pub(super) async fn get_plain(
        &mut self,
        target: &str,
        path: &str,
    ) -> anyhow::Result<Response<Incoming>> {
        let (place, credential) = self.proxy()?;
        let request = Request::get(format!("http://{target}{path}"))
            .header(header::HOST, target)
            .header(header::PROXY_AUTHORIZATION, credential)
            .body(Empty::new())?;
        self.exchange(TcpStream::connect(place).await?, request)
            .await
    }

    /// A gRPC client of the health service, dialling the gateway's public listener with TLS.
    pub(super) async fn health(&self) -> anyhow::Result<HealthClient<Channel>> {
        let socket = self.variable("GESTALT_HEALTH_SOCKET")?;
        let place = socket
            .strip_prefix("tls://")
            .context("the relay is not on TLS")?
            .to_owned();
        let host = place
            .rsplit_once(':')
            .map_or(place.as_str(), |(host, _)| host);
        let name = ServerName::try_from(host.to_owned())?;
        let roots = std::fs::read(self.variable("SLUICEGATE_CA_FILE")?)?;
        let config = tls::client(&TrustBundle::empty().with_pem(&roots)?, &[b"h2"], None)?;
        let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{place}"))?;
        let connector = tower::service_fn(move |_: Uri| {
            let (place, name, config) = (place.clone(), name.clone(), config.clone());
            async move {
                let stream = TcpStream::connect(place).await?;
                stream.set_nodelay(true)?;
                let stream = TlsConnector::from(config).connect(name, stream).await?;
                std::io::Result::Ok(TokioIo::new(stream))
            }
        });
        Ok(HealthClient::new(
            endpoint.connect_with_connector(connector).await?,
        ))
    }

    /// A call to the health service, with the relay token as SDKs send it.
    pub(super) fn health_request(&self) -> anyhow::Result<tonic::Request<HealthCheckRequest>> {
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        let token = self.variable("GESTALT_HEALTH_TOKEN")?.parse()?;
        request
            .metadata_mut()
            .insert("x-gestalt-host-service-relay-token", token);
        Ok(request)
    }
}

/// Reads a refusal's body.
async fn refusal(response: Response<Incoming>) -> anyhow::Result<Refusal> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let body: Value = serde_json::from_slice(&body).context("a refusal that is not JSON")?;
    let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
    Ok(Refusal {
        status,
        reason: text("reason").unwrap_or_default(),
        hint: text("hint"),
    })
}

/// What `sluicegate-relay up --listen echo=tcp://127.0.0.1:0` does.
async fn sidecar(
    env: &BTreeMap<String, String>,
    directory: &Path,
    stop: CancellationToken,
) -> anyhow::Result<SocketAddr> {
    let flags = Settings {
        listen: vec!["echo=tcp://127.0.0.1:0".into()],
        ..Settings::default()
    };
    let config = flags
        .over(Settings::from_env(|name| env.get(name).cloned()))
        .settle(directory)?;
    let roots = std::fs::read(config.ca_file.as_deref().context("no CA in the bundle")?)?;
    let trust = TrustBundle::empty().with_pem(&roots)?;
    let tasks = TaskTracker::new();
    let session_config = SessionConfig {
        endpoint: config.endpoint,
        tls: Tls::new(&trust)?,
        token: config.token.as_str().into(),
        transport: config.transport,
        backoff: Backoff::default(),
    };
    let session = Session::start(session_config, &tasks, stop.child_token());
    let mut found = None;
    for listen in config.listen {
        let listener = Listener::bind(&listen.address).await?;
        if let Address::Tcp(address) = listener.address()? {
            found = Some(address);
        }
        let service = listen.service.into();
        tasks.spawn(forward(
            listener,
            service,
            session.clone(),
            config.any_uid,
            Tasks::default(),
            stop.child_token(),
        ));
    }
    found.context("the sidecar does not listen")
}
