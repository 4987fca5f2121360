//! The usual setting of a test: DNS, an authority, two origins, a gateway and one session.

use tempfile::TempDir;

use crate::ca::Ca;
use crate::dns::Dns;
use crate::gateway::{Gateway, Settings};
use crate::origin::Origin;
use crate::raw::RawOrigin;
use crate::session::{Ask, Session};

/// `api.allowed.test` over TLS and `plain.allowed.test` over HTTP, both on loopback behind the gateway.
pub struct World {
    /// The resolver.
    pub dns: Dns,
    /// Who signs the origins.
    pub ca: Ca,
    /// `api.allowed.test`.
    pub https: Origin,
    /// `plain.allowed.test`.
    pub http: Origin,
    /// The gateway.
    pub gateway: Gateway,
    root: TempDir,
}

impl World {
    /// With the default settings.
    pub async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    /// With settings of the test's own; the resolver is filled in.
    pub async fn with(mut settings: Settings) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (dns, ca) = (Dns::start().await, Ca::create());
        for name in ["api.allowed.test", "plain.allowed.test"] {
            dns.point(name);
        }
        let names = ["api.allowed.test", "*.wild.test"];
        let https = Origin::https(root.path().to_owned(), &ca, &names).await;
        let http = Origin::http(root.path().to_owned()).await;
        settings.dns = Some(dns.address);
        let gateway = Gateway::start(&settings).await;
        Self {
            dns,
            ca,
            https,
            http,
            gateway,
            root,
        }
    }

    /// The directory both origins serve below `/files/` and `/git/`.
    pub fn root(&self) -> &std::path::Path {
        self.root.path()
    }

    /// `api.allowed.test:PORT`.
    pub fn api(&self) -> String {
        format!("api.allowed.test:{}", self.https.port())
    }

    /// `plain.allowed.test:PORT`.
    pub fn plain(&self) -> String {
        format!("plain.allowed.test:{}", self.http.port())
    }

    /// A session that may reach both origins and nothing else.
    pub async fn session(&self) -> Session {
        let (api, plain) = (self.api(), self.plain());
        self.session_for(Ask {
            allow: &[&api, &plain],
            ..Ask::default()
        })
        .await
    }

    /// A session of the test's own making.
    pub async fn session_for(&self, ask: Ask<'_>) -> Session {
        Session::create(&self.gateway, &self.ca, ask).await
    }

    /// A world with a raw origin behind `raw.allowed.test`, a session that may reach it, and its target.
    pub async fn with_raw() -> (Self, RawOrigin, Session, String) {
        let world = Self::start().await;
        let (origin, target) = world.raw_origin().await;
        let allow = [target.as_str()];
        let ask = Ask {
            allow: &allow,
            ..Ask::default()
        };
        let session = world.session_for(ask).await;
        (world, origin, session, target)
    }

    /// A raw origin behind `raw.allowed.test`, and its target.
    pub async fn raw_origin(&self) -> (RawOrigin, String) {
        let origin = RawOrigin::start().await;
        self.dns.point("raw.allowed.test");
        let target = format!("raw.allowed.test:{}", origin.address.port());
        (origin, target)
    }
}
