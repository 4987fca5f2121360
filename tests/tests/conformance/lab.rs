//! A gateway with its witnesses, shared by the rows of a section, one row at a time.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::AsyncFnOnce;
use std::sync::{Arc, LazyLock, Weak};

use e2e::gateway::NOTHING_EXCEPTED;
use e2e::h3_streams::Http3Streams;
use e2e::{Dns, Gateway, Http3, Settings, until};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;

use crate::sandbox::Sandbox;
use crate::table::Row;
use crate::tap::{Mode, Tap};

/// Rows run on threads of the test harness; what they share runs here.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
});

/// Deadlines short enough to wait for.
const LIMITS: &str = "  firstBytesTimeout: 1s\n  headTimeout: 1s\n  dialTimeout: 2s\n";

/// The other ways in.
const LISTENERS: &str = "  - {kind: socks, address: \"127.0.0.1:0\"}
  - {kind: transparent, address: \"127.0.0.1:0\", identify: header, proxyProtocol: {trusted: [\"127.0.0.1\"]}}
  - {kind: sni, address: \"127.0.0.1:0\", targetPort: API_PORT, identify: header, proxyProtocol: {trusted: [\"127.0.0.1\"]}}
  - {kind: plain, address: \"127.0.0.1:0\", proxyProtocol: {trusted: [\"127.0.0.1\"]}}
  - {kind: socks, address: \"127.0.0.1:0\", proxyProtocol: {trusted: [\"127.0.0.1\"]}}
";

/// The setting of the table: a gateway, two targets that may be reached, a DNS server, and who sees what.
pub(crate) struct Lab {
    /// Answers, and says what it was asked.
    pub(crate) dns: Dns,
    /// The gateway.
    pub(crate) gateway: Gateway,
    /// Behind `api.allowed.test` and `*.wild.test`.
    pub(crate) api: Tap,
    /// Behind `plain.allowed.test`.
    pub(crate) plain: Tap,
    /// May reach these three and nothing else.
    pub(crate) session: Sandbox,
    /// Refusals by SOCKS that a row has looked at, by their records' ids.
    told: Mutex<HashSet<String>>,
    http3: Mutex<Option<Arc<Http3Streams>>>,
}

/// How far the witnesses' logs had got.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    queries: usize,
    connections: usize,
    bytes: usize,
}

/// The settings every section begins with.
pub(crate) fn settings() -> Settings {
    Settings {
        limits: LIMITS.to_owned(),
        listeners: LISTENERS.to_owned(),
        runtime: NOTHING_EXCEPTED.to_owned(),
        ..Settings::default()
    }
}

/// Start a gateway. Between the choice of its ports and its bind another row's upstream may take one of them, and then
/// answer in its place: the harness gives up, and we choose again.
async fn gateway(settings: Settings) -> Gateway {
    let mut attempts = JoinSet::new();
    for _ in 0..3 {
        let settings = settings.clone();
        attempts.spawn(async move { Gateway::start(&settings).await });
        if let Some(Ok(gateway)) = attempts.join_next().await {
            return gateway;
        }
    }
    panic!("the gateway did not start, see above")
}

impl Lab {
    /// Start everything.
    pub(crate) async fn start(mut settings: Settings) -> Self {
        let dns = Dns::start().await;
        let names = ["api.allowed.test", "plain.allowed.test", "a.wild.test"];
        for name in names {
            dns.point(name);
        }
        if !settings.more.contains("dns:") {
            settings.dns = Some(dns.address);
        }
        settings.more = settings.more.replace("RESOLVER", &dns.address.to_string());
        let (api, plain) = (Tap::start(Mode::Http).await, Tap::start(Mode::Http).await);
        let port = api.port().to_string();
        settings.listeners = settings.listeners.replace("API_PORT", &port);
        let gateway = gateway(settings).await;
        let grant = json!({"egress": {
            "allowedHosts": [
                format!("api.allowed.test:{}", api.port()),
                format!("*.wild.test:{}", api.port()),
                format!("plain.allowed.test:{}", plain.port()),
            ],
            "allowedAddresses": ["127.0.0.0/8"],
        }});
        let session = Sandbox::create(&gateway, grant).await;
        Self {
            dns,
            gateway,
            api,
            plain,
            session,
            told: Mutex::default(),
            http3: Mutex::default(),
        }
    }

    /// A connection of HTTP/3, the same one for everybody while it lasts.
    pub(crate) async fn http3(&self) -> Arc<Http3Streams> {
        let mut slot = self.http3.lock().await;
        if let Some(open) = slot.as_ref().filter(|streams| streams.is_open()) {
            return Arc::clone(open);
        }
        let trusted = self.gateway.directory().join("trusted.pem");
        std::fs::write(&trusted, &self.session.trust).unwrap();
        let connection = Http3::dial(self.gateway.ports.public, &trusted).await;
        let streams = Arc::new(Http3Streams::over(connection));
        *slot = Some(Arc::clone(&streams));
        streams
    }

    /// A session of the row's own.
    pub(crate) async fn sandbox(&self, grant: Value) -> Sandbox {
        Sandbox::create(&self.gateway, grant).await
    }

    /// A session that may reach `entries`, loopback excepted from the ban on private addresses.
    pub(crate) async fn allowing(&self, entries: &[&str]) -> Sandbox {
        let egress = json!({"allowedHosts": entries, "allowedAddresses": ["127.0.0.0/8"]});
        self.sandbox(json!({"egress": egress})).await
    }

    /// `api.allowed.test:PORT`.
    pub(crate) fn api_target(&self) -> String {
        format!("api.allowed.test:{}", self.api.port())
    }

    /// `plain.allowed.test:PORT`.
    pub(crate) fn plain_target(&self) -> String {
        format!("plain.allowed.test:{}", self.plain.port())
    }

    /// Where the witnesses stand now.
    pub(crate) fn mark(&self) -> Mark {
        let visits = [self.api.visits(), self.plain.visits()].concat();
        Mark {
            queries: self.dns.queries().len(),
            connections: visits.len(),
            bytes: visits.iter().map(|visit| visit.bytes.len()).sum(),
        }
    }

    /// What DNS was asked since `mark`.
    pub(crate) fn asked_since(&self, mark: &Mark) -> Vec<(String, hickory_proto::rr::RecordType)> {
        self.dns.queries().split_off(mark.queries)
    }

    /// Asserts that since `mark` no name was asked for, nothing was dialled and no byte went up.
    pub(crate) fn nothing_since(&self, mark: &Mark, what: &str) {
        let now = self.mark();
        let asked = self.asked_since(mark);
        assert!(asked.is_empty(), "{what}: DNS was asked {asked:?}");
        assert_eq!(&now, mark, "{what}: something went up");
    }

    /// Asserts that since `mark` nothing was dialled and no byte went up, whatever DNS was asked.
    pub(crate) fn nothing_dialled_since(&self, mark: &Mark, what: &str) {
        let now = Mark {
            queries: mark.queries,
            ..self.mark()
        };
        assert_eq!(&now, mark, "{what}: something went up");
    }

    /// The record of the refusal by SOCKS that this end was told of. Ports come again: each record is one refusal's.
    pub(crate) async fn refusal_of(&self, downstream: SocketAddr) -> e2e::Record {
        let what = format!("the record of {downstream}");
        let own = downstream.to_string();
        let mut told = self.told.lock().await;
        let refused = |one: &e2e::Record| {
            let kind = (one.text("front"), one.text("outcome")) == ("socks", "refused");
            kind && one.text("downstream") == own && !told.contains(one.text("id"))
        };
        let record = self.gateway.record(&what, refused).await;
        told.insert(record.text("id").to_owned());
        record
    }

    /// The access record with this id.
    pub(crate) async fn record(&self, id: &str) -> e2e::Record {
        let what = format!("the record {id}");
        let gateway = &self.gateway;
        gateway.record(&what, |one| one.text("id") == id).await
    }
}

/// Labs that live as long as rows use any of them: then their gateways are gone too, which no static would see to.
pub(crate) struct Shared {
    pool: Mutex<Weak<Pool>>,
    settings: fn() -> Settings,
}

/// Two: rows wait more than they work. Each is started by the first row that finds no other free.
#[derive(Default)]
struct Pool([Mutex<Option<Lab>>; 2]);

impl Pool {
    async fn free(&self) -> MutexGuard<'_, Option<Lab>> {
        let [one, other] = &self.0;
        tokio::select! {
            biased;
            lab = one.lock() => lab,
            lab = other.lock() => lab,
        }
    }
}

impl Shared {
    /// Labs with these settings.
    pub(crate) const fn new(settings: fn() -> Settings) -> Self {
        Self {
            pool: Mutex::const_new(Weak::new()),
            settings,
        }
    }

    /// Run one row of the table. No other row uses its lab meanwhile, so the witnesses speak of this row only.
    pub(crate) fn run(&self, number: u16, test: impl AsyncFnOnce(&Lab, &mut Row)) {
        let mut row = Row::new(number);
        RUNTIME.block_on(async {
            let pool = self.pool().await;
            let mut free = pool.free().await;
            if free.is_none() {
                *free = Some(Lab::start((self.settings)()).await);
            }
            test(free.as_ref().unwrap(), &mut row).await;
        });
    }

    async fn pool(&self) -> Arc<Pool> {
        let mut shared = self.pool.lock().await;
        if let Some(pool) = shared.upgrade() {
            return pool;
        }
        let pool = Arc::new(Pool::default());
        *shared = Arc::downgrade(&pool);
        pool
    }
}

/// Run a row that starts what it needs itself.
pub(crate) fn alone(number: u16, test: impl AsyncFnOnce(&mut Row)) {
    let mut row = Row::new(number);
    RUNTIME.block_on(async { test(&mut row).await });
}

/// Run a test of no row.
pub(crate) fn apart(test: impl Future<Output = ()>) {
    RUNTIME.block_on(test);
}

/// Waits until connections to `address` are refused.
pub(crate) async fn is_closed(address: SocketAddr) {
    let refused = || std::net::TcpStream::connect(address).is_err().then_some(());
    until("the listener to be gone", refused).await;
}
