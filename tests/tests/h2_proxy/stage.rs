//! Where it is played: an origin, a session and a connection to the public listener.

use std::time::Duration;

use bytes::Bytes;
use e2e::{Ask, RawOrigin, Session, Settings, Tasks, Wire, World, within};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::net::TcpStream;

/// A raw origin, a session that may reach it and the two usual ones, and an HTTP/2 connection to the public listener.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) origin: RawOrigin,
    pub(crate) target: String,
    pub(crate) session: Session,
    pub(crate) client: Client,
}

/// One HTTP/2 connection.
pub(crate) struct Client {
    pub(crate) requests: SendRequest<Bytes>,
    pub(crate) tasks: Tasks,
}

/// An answer and its body, read to the end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) fields: HeaderMap,
    pub(crate) body: serde_json::Value,
}

impl Client {
    pub(crate) async fn connect(world: &World, session: &Session) -> Self {
        Self::connect_with(world, session, &h2::client::Builder::new()).await
    }

    pub(crate) async fn connect_with(
        world: &World,
        session: &Session,
        builder: &h2::client::Builder,
    ) -> Self {
        let wire = Wire::dial(world.gateway.ports.public).await;
        let tls = wire.tls(session.gateway_tls(&[b"h2"]), "127.0.0.1").await;
        let (requests, driver) = builder.handshake(tls.stream).await.unwrap();
        let tasks = Tasks::default();
        tasks.spawn(async move { drop(driver.await) });
        Self { requests, tasks }
    }

    /// Sends the request; its answer is not awaited.
    pub(crate) async fn send(
        &self,
        request: Request<()>,
        end: bool,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let ready = within("a place on the connection", self.requests.clone().ready());
        ready.await.unwrap().send_request(request, end).unwrap()
    }

    /// Completes when the gateway has asked it to end.
    pub(crate) async fn ended(&self) {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while self.requests.clone().ready().await.is_ok() {
            tick.tick().await;
        }
    }

    /// A request that is refused.
    pub(crate) async fn refused(&self, request: Request<()>) -> Answer {
        let (response, _send) = self.send(request, false).await;
        let (head, body) = within("an answer", response).await.unwrap().into_parts();
        let body = read(body).await.unwrap();
        Answer {
            status: head.status,
            fields: head.headers,
            body: serde_json::from_slice(&body).unwrap(),
        }
    }

    /// A tunnel that opens.
    pub(crate) async fn tunnel(&self, request: Request<()>) -> (SendStream<Bytes>, RecvStream) {
        let (response, send) = self.send(request, false).await;
        let response = within("an answer", response).await.unwrap();
        assert_eq!(response.status(), 200);
        (send, response.into_body())
    }
}

/// Everything until END_STREAM.
pub(crate) async fn read(mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = within("DATA", body.data()).await {
        let data = data?;
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

impl Stage {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let world = World::with(settings).await;
        let (origin, target) = world.raw_origin().await;
        let (api, plain) = (world.api(), world.plain());
        let ask = Ask {
            allow: &[&target, &api, &plain],
            ..Ask::default()
        };
        let session = world.session_for(ask).await;
        let client = Client::connect(&world, &session).await;
        Self {
            world,
            origin,
            target,
            session,
            client,
        }
    }

    pub(crate) fn classic(&self, target: &str) -> Request<()> {
        classic(&self.session, target)
    }

    /// A tunnel to the raw origin, and the origin's end.
    pub(crate) async fn pair(&self) -> (SendStream<Bytes>, RecvStream, TcpStream) {
        let (send, receive) = self.client.tunnel(self.classic(&self.target)).await;
        (send, receive, self.origin.accept().await)
    }
}

/// A CONNECT of this session's.
pub(crate) fn classic(session: &Session, target: &str) -> Request<()> {
    Request::builder()
        .method(Method::CONNECT)
        .uri(target)
        .header(
            "proxy-authorization",
            format!("Bearer {}", session.handle()),
        )
        .body(())
        .unwrap()
}

pub(crate) fn noise(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 31 % 251) as u8).collect()
}
