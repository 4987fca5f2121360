//! What else is open: whichever way it came in, it is reached by the same reload. Calls of the relay are in `clients_calls.rs`.

use e2e::gateway::LOOPBACK_PROVIDER;
use e2e::h3_streams::Http3Streams;
use e2e::raw::drain;
use e2e::{
    Ask, Ca, Dns, Forwarder, Gateway, Http3, Origin, RawOrigin, Session, Settings, Socks, Wire,
    capsules, socks, until,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{OTHER_WAY, begun, chained, goes_on, is_cut, reload};

/// What a reload makes a proxy's that went directly.
const GOES: &str = "goes.allowed.test";

/// What goes directly before and after.
const STAYS: &str = "stays.allowed.test";

/// A gateway without a proxy, and the proxy that it is told to ask for all but one name.
struct Stage {
    gateway: Gateway,
    session: Session,
    dns: Dns,
    proxy: Forwarder,
    listeners: String,
    port: u16,
}

impl Stage {
    /// With these listeners besides, and both names at this port.
    async fn start(ca: &Ca, listeners: &str, port: u16) -> Self {
        let (dns, proxy) = (Dns::start().await, Forwarder::start().await);
        for name in [GOES, STAYS] {
            dns.point(name);
        }
        let gateway = Gateway::start(&settings(&dns, listeners, None)).await;
        let (goes, stays) = (format!("{GOES}:{port}"), format!("{STAYS}:{port}"));
        let ask = Ask {
            allow: &[&goes, &stays],
            // By it a connection that says nothing of a session has one.
            more: &["--source", "127.0.0.1"],
            ..Ask::default()
        };
        let session = Session::create(&gateway, ca, ask).await;
        Self {
            gateway,
            session,
            dns,
            proxy,
            listeners: listeners.to_owned(),
            port,
        }
    }

    fn target(&self, name: &str) -> String {
        format!("{name}:{}", self.port)
    }

    async fn reload(&self) {
        let lines = format!(
            "url: \"http://{}\", bypass: [\"{STAYS}:*\"]",
            self.proxy.address
        );
        let settings = settings(&self.dns, &self.listeners, Some(&lines));
        reload(&self.gateway, &settings).await;
    }

    /// The proxy has been asked for so many tunnels, and for nothing else.
    fn asked(&self, times: usize) {
        let origin = format!("127.0.0.1:{}", self.port);
        assert_eq!(self.proxy.asked(), vec![origin; times]);
    }

    /// Of two tunnels that have carried bytes the reload cuts the one that it leaves no way, and the proxy carries the next one there.
    async fn judges<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        origin: &RawOrigin,
        open: impl AsyncFn(&str) -> Wire<S>,
    ) {
        let target = self.target(GOES);
        let mut goes = begun(open(&target).await, origin).await;
        let mut stays = begun(open(&self.target(STAYS)).await, origin).await;
        self.reload().await;
        is_cut(&self.gateway, &mut goes.0, &target, OTHER_WAY).await;
        drain(&mut goes.1.stream).await;
        goes_on(&mut stays).await;
        self.asked(0);
        let mut again = begun(open(&target).await, origin).await;
        goes_on(&mut again).await;
        self.asked(1);
    }
}

/// Whoever waits in these tests waits for a reload, which a slow machine may be long about.
fn settings(dns: &Dns, listeners: &str, proxy: Option<&str>) -> Settings {
    Settings {
        listeners: listeners.to_owned(),
        limits: "  dialTimeout: 60s\n  headTimeout: 10m\n  firstBytesTimeout: 10m\n".to_owned(),
        ..chained(dns.address, proxy)
    }
}

/// All on one connection, which was there before.
#[tokio::test]
async fn streams_of_http3() {
    let origin = RawOrigin::start().await;
    let stage = Stage::start(&Ca::create(), "", origin.address.port()).await;
    let public = stage.gateway.ports.public;
    let client = Http3Streams::over(Http3::dial(public, &stage.session.bundle()).await);
    let bearer = format!("Bearer {}", stage.session.handle());
    let open = async |target: &str| {
        let fields = [
            (":method", "CONNECT"),
            (":authority", target),
            ("proxy-authorization", &bearer),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut exchange = client.ask(&fields, false).await;
        let status = exchange.head().await.map(|head| head.status);
        assert_eq!(status, Some(200), "{target}");
        exchange.tunnel()
    };
    stage.judges(&origin, open).await;
}

#[tokio::test]
async fn tunnels_in_capsules() {
    let origin = RawOrigin::start().await;
    let stage = Stage::start(&Ca::create(), "", origin.address.port()).await;
    let session = &stage.session;
    let open = async |target: &str| {
        let mut wire = session.dial().await;
        let request = capsules::egress(target, session.handle());
        capsules::switch(&mut wire, &request).await;
        capsules::inside(wire)
    };
    stage.judges(&origin, open).await;
}

/// The record of one says what of its service is not as it was.
#[tokio::test]
async fn streams_to_services() {
    let (one, other) = (RawOrigin::start().await, RawOrigin::start().await);
    let at = |name: &str, origin: &RawOrigin| {
        format!(
            "{name}: {{url: \"tcp://{}\", health: none}}",
            origin.address
        )
    };
    let settings = |services: [String; 2]| {
        let services = services.join(", ");
        Settings {
            runtime: format!("{LOOPBACK_PROVIDER}      services: {{{services}}}\n"),
            more: "probe: {interval: 0}\n".to_owned(),
            ..Settings::default()
        }
    };
    let before = settings([at("stays", &one), at("goes", &one)]);
    let elsewhere = settings([at("stays", &one), at("goes", &other)]);
    let without = settings([at("stays", &one), at("comes", &other)]);
    let gateway = Gateway::start(&before).await;
    let session = Session::create(&gateway, &Ca::create(), Ask::default()).await;
    let open = async |name: &str| {
        let mut wire = Wire::dial(gateway.ports.plain).await;
        let token = session.variable("SLUICEGATE_RELAY_TOKEN");
        let request = capsules::upgrade(&format!("/relay/v1/{name}"), token);
        capsules::switch(&mut wire, &request).await;
        capsules::inside(wire)
    };
    let mut stays = begun(open("stays").await, &one).await;
    for (now, at, changed) in [
        (&elsewhere, &one, "its service has another url now"),
        (
            &without,
            &other,
            "its service would be refused now: service_not_allowed",
        ),
    ] {
        let mut goes = begun(open("goes").await, at).await;
        reload(&gateway, now).await;
        goes.0.cut().await;
        drain(&mut goes.1.stream).await;
        let cut = |record: &e2e::Record| {
            record.text("service") == "goes" && record.text("detail") == changed
        };
        let record = gateway.record("the cut stream's record", cut).await;
        assert_eq!(
            [
                record.text("kind"),
                record.text("outcome"),
                record.text("reason")
            ],
            ["stream", "cut", "policy_changed"],
            "{record:?}"
        );
        goes_on(&mut stays).await;
    }
}

#[tokio::test]
async fn tunnels_of_socks() {
    let origin = RawOrigin::start().await;
    let listener = "  - {kind: socks, address: \"127.0.0.1:0\"}\n";
    let stage = Stage::start(&Ca::create(), listener, origin.address.port()).await;
    let listener = stage.gateway.listener("socks").await;
    let handle = stage.session.handle();
    let mut waits = Socks::dial(listener, handle).await;
    assert_eq!(waits.login().await, 0);
    let open = async |target: &str| {
        let mut client = Socks::dial(listener, handle).await;
        assert_eq!(client.ask(target).await, 0, "{target}");
        client.wire
    };
    stage.judges(&origin, open).await;
    // Logged in before, it asks now.
    let request = socks::request(stage.target(GOES).as_bytes()).unwrap();
    assert_eq!(waits.request(&request).await, 0);
    goes_on(&mut begun(waits.wire, &origin).await).await;
    stage.asked(2);
}

/// TLS as it comes, by a listener that tells by its SNI where it is to go.
#[tokio::test]
async fn connections_that_know_of_no_proxy() {
    let (root, ca) = (tempfile::tempdir().unwrap(), Ca::create());
    let origin = Origin::https(root.path().to_owned(), &ca, &[GOES, STAYS]).await;
    let port = origin.port();
    let listener = format!(
        "  - {{kind: sni, address: \"127.0.0.1:0\", targetPort: {port}, identify: source}}\n"
    );
    let stage = Stage::start(&ca, &listener, port).await;
    let listener = stage.gateway.listener("sni").await;
    let open = async |wire: Wire, name: &str| {
        let mut tls = wire.tls(ca.client(&[]), name).await;
        is_served(&mut tls, name).await;
        tls
    };
    let mut goes = open(Wire::dial(listener).await, GOES).await;
    let mut stays = open(Wire::dial(listener).await, STAYS).await;
    let waits = Wire::dial(listener).await;
    until("the gateway's end of what waits", || {
        stage.gateway.accepted(waits.local()).then_some(())
    })
    .await;
    stage.reload().await;
    is_cut(&stage.gateway, &mut goes, &stage.target(GOES), OTHER_WAY).await;
    is_served(&mut stays, STAYS).await;
    stage.asked(0);
    // Accepted before, it says only now where it is to go.
    open(waits, GOES).await;
    stage.asked(1);
}

async fn is_served<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, name: &str) {
    let request = format!("GET /echo HTTP/1.1\r\nHost: {name}\r\n\r\n");
    wire.send(request).await;
    assert_eq!(wire.reply().await.status(), 200, "{name}");
}
