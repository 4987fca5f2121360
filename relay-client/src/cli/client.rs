//! Everything that runs while a command of this client does: the connection, local listeners, exposed listeners, the proxy.

use std::{sync::Arc, time::Duration};

use sluicegate_relay::{
    backoff::Backoff,
    config::{Config, ProxyConfig},
    expose::expose,
    forward::forward,
    listen::{Listener, own_directory},
    proxy::{self, Notice, Proxy},
    session::{Credential, Session, SessionConfig, Status},
    status::{self, Board},
    tasks::Tasks,
    transport::Tls,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{options::tls, report::Report};

/// Streams that are open when the client is asked to end get this long.
const GRACE: Duration = Duration::from_secs(5);
/// The connection itself gets this long after its last stream.
pub(super) const FLUSH: Duration = Duration::from_secs(1);

/// What carries everything.
pub(super) fn session(
    config: &Config,
    tls: Tls,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Session {
    let config = SessionConfig {
        endpoint: config.endpoint.clone(),
        tls,
        token: Credential::new(&config.token, config.token_file.clone()),
        transport: config.transport,
        backoff: Backoff::default(),
    };
    Session::start(config, tasks, stop.child_token())
}

/// A client at work.
pub(super) struct Client {
    report: Report,
    session: Session,
    /// The way out's own.
    egress: Option<Credential>,
    listening: TaskTracker,
    streams: Tasks,
    /// The connection has a tracker of its own: it outlives the streams it carries.
    connection: TaskTracker,
    accepting: CancellationToken,
    stop: CancellationToken,
}

impl Client {
    /// Bind what is to be bound, then begin. Connecting goes on behind it, for ever.
    ///
    /// # Errors
    /// A listener or the trust store; nothing runs then.
    pub(super) async fn start(config: Config, report: Report) -> anyhow::Result<Self> {
        let tls = tls(&config)?;
        if let Some(directory) = &config.directory {
            own_directory(directory)?;
        }
        let mut listeners = Vec::new();
        for listen in &config.listen {
            listeners.push((
                Arc::<str>::from(listen.service.as_str()),
                Listener::bind(&listen.address).await?,
            ));
        }
        let proxy = match &config.proxy {
            Some(proxy) => Some(Listener::bind(&proxy.address).await?),
            None => None,
        };
        let status = match &config.status {
            Some(address) => Some(Listener::bind(address).await?),
            None => None,
        };
        let client = Self::connect(&config, tls, report);
        let egress = client.egress.clone();
        if let Some(listener) = status {
            client.tell_at(listener, &config)?;
        }
        for (service, listener) in listeners {
            client.forward(service, listener, config.any_uid)?;
        }
        if let Some((listener, token)) = proxy.zip(egress) {
            let address = listener.address()?.to_string().replace("tcp://", "http://");
            report.tell("proxy", &[("address", &address)]);
            let proxy = Proxy {
                session: client.session.clone(),
                token,
                any_uid: config.any_uid,
                notice: Notice::default(),
                tasks: client.streams.clone(),
            };
            client
                .listening
                .spawn(proxy::serve(listener, proxy, client.accepting.clone()));
        }
        for exposed in config.expose {
            let address = exposed.address.to_string();
            let told = [("listener", &*exposed.listener), ("address", &address)];
            report.tell("exposing", &told);
            client.listening.spawn(expose(
                exposed.listener.into(),
                exposed.address,
                client.session.clone(),
                client.streams.clone(),
                client.accepting.clone(),
            ));
        }
        Ok(client)
    }

    fn connect(config: &Config, tls: Tls, report: Report) -> Self {
        let (connection, stop) = (TaskTracker::new(), CancellationToken::new());
        let session = session(config, tls, &connection, &stop);
        Self {
            report,
            session,
            egress: config.proxy.as_ref().map(ProxyConfig::credential),
            listening: TaskTracker::new(),
            streams: Tasks::default(),
            connection,
            accepting: stop.child_token(),
            stop,
        }
    }

    fn tell_at(&self, listener: Listener, config: &Config) -> anyhow::Result<()> {
        let address = listener.address()?.to_string().replace("tcp://", "http://");
        self.report.tell("status", &[("address", &address)]);
        let names = |names: Vec<&str>| serde_json::Value::from(names);
        let board = Board {
            session: self.session.clone(),
            configured: serde_json::json!({
                "listen": names(config.listen.iter().map(|one| &*one.service).collect()),
                "expose": names(config.expose.iter().map(|one| &*one.listener).collect()),
                "proxy": config.proxy.is_some(),
            }),
        };
        let (tasks, stop) = (self.listening.clone(), self.accepting.clone());
        self.listening
            .spawn(status::serve(listener, board, config.any_uid, tasks, stop));
        Ok(())
    }

    fn forward(&self, service: Arc<str>, listener: Listener, any_uid: bool) -> anyhow::Result<()> {
        let address = listener.address()?.to_string();
        let told = [("service", &*service), ("address", &address)];
        self.report.tell("listening", &told);
        self.listening.spawn(forward(
            listener,
            service,
            self.session.clone(),
            any_uid,
            self.streams.clone(),
            self.accepting.clone(),
        ));
        Ok(())
    }

    /// What the connection is doing.
    pub(super) fn status(&self) -> tokio::sync::watch::Receiver<Status> {
        self.session.status()
    }

    /// Somebody says that there are other tokens.
    pub(super) fn reread(&self) {
        let relay = self.session.reread();
        let egress = self.egress.as_ref().is_some_and(Credential::reread);
        tracing::info!(relay, egress, "asked to look for other tokens");
    }

    /// End: no new streams, a while for those that are open, which are reset then, and then the connection.
    pub(super) async fn stop(self) {
        self.accepting.cancel();
        self.listening.close();
        self.listening.wait().await;
        let open = self.streams.count().to_string();
        self.report.tell("stopping", &[("open", &open)]);
        // A stream that stayed would keep its connection from saying its end.
        self.streams.end(GRACE).await;
        self.stop.cancel();
        drop(self.session);
        self.connection.close();
        // What the streams left in the connection's buffers still goes out.
        let _ = tokio::time::timeout(FLUSH, self.connection.wait()).await;
    }
}
