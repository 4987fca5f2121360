//! nginx, HAProxy, Node and Python's `http.server` as they come, for two hosts each, with a log of what they served: for whom, and whether
//! a gateway had a hand in it.

use std::net::SocketAddr;

use e2e::program::{Program, clients};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::started::{Started, lines, loopback, user_of_nginx};

/// The other host, which no session of these tests may reach.
pub(crate) const OTHER: &str = "evil.test";

/// A running server.
pub(crate) struct Witness {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    started: Started,
}

/// A request that was served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    /// It has the mark of a gateway (RFC 9110 §7.6.3).
    pub(crate) judged: bool,
    pub(crate) host: String,
    pub(crate) path: String,
}

impl Witness {
    pub(crate) async fn nginx() -> Self {
        let started = Started::nginx(|root, address| {
            let shown = root.display();
            format!(
                "daemon off; master_process off; pid {shown}/pid; error_log {shown}/error.log; {user}\n\
                 events {{ worker_connections 1024; }}\n\
                 http {{ map $http_via $by {{ default gateway; '' nobody; }}\n\
                 log_format seen 'seen $status $by $host $request_uri'; access_log {shown}/seen seen;\n\
                 client_body_temp_path {shown}/b; proxy_temp_path {shown}/p; fastcgi_temp_path {shown}/f;\n\
                 uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;\n\
                 server {{ listen {address} default_server; server_name nginx.allowed.test; location / {{ return 200 served; }} }}\n\
                 server {{ listen {address}; server_name {OTHER}; location / {{ return 200 served; }} }} }}\n",
                user = user_of_nginx(),
            )
        });
        Self::of("nginx", started.await)
    }

    /// One that serves whoever connects, and one that wants a PROXY header first.
    pub(crate) async fn haproxy() -> (Self, SocketAddr) {
        let balanced = loopback().await;
        let started = Started::haproxy(|address| {
            format!(
                "global\n  log stdout format raw daemon\n  nbthread 1\n\
                 defaults\n  mode http\n  log global\n  option dontlognull\n  timeout connect 10s\n  timeout client 600s\n\
                 \x20 timeout server 600s\n\
                 frontend in\n  bind {address}\n  bind {balanced} accept-proxy\n\
                 \x20 log-format \"seen %ST %[var(txn.by)] %[var(txn.host)] %[var(txn.path)]\"\n\
                 \x20 http-request set-var(txn.host) req.hdr(host)\n\
                 \x20 http-request set-var(txn.path) path\n\
                 \x20 http-request set-var(txn.by) str(nobody)\n\
                 \x20 http-request set-var(txn.by) str(gateway) if {{ req.hdr(via) -m found }}\n\
                 \x20 http-request return status 200 content-type text/plain string served\n",
            )
        });
        (Self::of("haproxy", started.await), balanced)
    }

    pub(crate) async fn node() -> Self {
        let program = Program::new("node").arg(clients().join("node/witness.mjs"));
        Self::of("node", Started::script("node", program).await)
    }

    /// One that has a handler for any method.
    pub(crate) async fn python() -> Self {
        let program = Program::new("python3").arg(clients().join("python/witness.py"));
        Self::of("python", Started::script("python", program).await)
    }

    fn of(name: &'static str, started: Started) -> Self {
        Self {
            name,
            address: started.address,
            started,
        }
    }

    /// By which it is asked for.
    pub(crate) fn host(&self) -> String {
        format!("{}.allowed.test", self.name)
    }

    /// Everything it has served so far; what it refused is none of it.
    pub(crate) fn served(&self) -> Vec<Served> {
        let lines = lines(&self.started.log);
        let seen = lines.iter().filter_map(|line| line.strip_prefix("seen "));
        let words = seen.map(|line| line.split(' ').collect::<Vec<_>>());
        let served = words.filter(|words| words[0] == "200");
        served
            .map(|words| Served {
                judged: words[1] == "gateway",
                host: words[2].to_owned(),
                path: words[3].to_owned(),
            })
            .collect()
    }
}

/// Says this past every gateway, and reads to the end.
pub(crate) async fn say(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    // It may have answered and closed by now.
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = e2e::within("an answer", stream.read_to_end(&mut answer)).await;
}
