//! Where it is played: an origin, a session and a connection to the public listener.

use e2e::{Ask, Http3, RawOrigin, Session, World};
use serde_json::json;
use tokio::net::TcpStream;

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) origin: RawOrigin,
    pub(crate) target: String,
    pub(crate) session: Session,
    pub(crate) client: Http3,
}

impl Stage {
    pub(crate) async fn start() -> Self {
        let world = World::start().await;
        let (origin, target) = world.raw_origin().await;
        let (api, plain) = (world.api(), world.plain());
        let ask = Ask {
            allow: &[&target, &api, &plain],
            ..Ask::default()
        };
        let session = world.session_for(ask).await;
        let client = Http3::connect(&world, &session).await;
        Self {
            world,
            origin,
            target,
            session,
            client,
        }
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.session.handle())
    }

    /// The client sends from this address from here on.
    pub(crate) async fn go_on_from(&mut self, address: &str) {
        let command = json!({"op": "move", "address": address});
        self.client.tell(command).await;
        self.client
            .event("another address", |e| e["event"] == "moved")
            .await;
    }

    /// A CONNECT, not yet answered.
    pub(crate) async fn connect(&mut self, target: &str) -> u64 {
        let bearer = self.bearer();
        let fields = [
            (":method", "CONNECT"),
            (":authority", target),
            ("proxy-authorization", &bearer),
        ];
        self.client.request(&fields, false).await
    }

    /// A tunnel to the raw origin, and the origin's end.
    pub(crate) async fn pair(&mut self) -> (u64, TcpStream) {
        let target = self.target.clone();
        let stream = self.connect(&target).await;
        let head = self.client.head(stream).await;
        assert_eq!(head.status, 200, "{head:?}");
        (stream, self.origin.accept().await)
    }
}

pub(crate) fn noise(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 31 % 251) as u8).collect()
}
