//! The readers: our own strict one, nginx, HAProxy and Node, each with a log of what it took for a request.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use e2e::program::{Program, clients};
use serde_json::Value;

use crate::started::{Started, lines, user_of_nginx};
use crate::strict::{Reading, Strict};

/// Something that reads HTTP/1.1 behind the gateway.
pub(crate) struct Reader {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    kind: Kind,
    /// What was started for it; our own is none.
    _started: Option<Started>,
}

enum Kind {
    /// It reads by itself.
    Strict(Strict),
    /// It writes a status for each request it saw to `log`, and passes on what it took to a strict upstream.
    Proxy { log: PathBuf, behind: Strict },
    /// It prints JSON lines into `log`.
    Lines { log: PathBuf },
}

impl Reader {
    /// Our own strict reader, whose readings the others' are compared with.
    pub(crate) async fn strict() -> Self {
        let strict = Strict::start().await;
        Self {
            name: "strict",
            address: strict.address,
            kind: Kind::Strict(strict),
            _started: None,
        }
    }

    /// nginx, reading whole requests before it passes them on.
    pub(crate) async fn nginx() -> Self {
        let behind = Strict::start().await;
        let to = behind.address;
        let started = Started::nginx(|root, address| nginx_config(root, address, to)).await;
        Self::proxy("nginx", started, behind)
    }

    /// HAProxy in HTTP mode.
    pub(crate) async fn haproxy() -> Self {
        let behind = Strict::start().await;
        let to = behind.address;
        let started = Started::haproxy(|address| haproxy_config(address, to)).await;
        Self::proxy("haproxy", started, behind)
    }

    fn proxy(name: &'static str, started: Started, behind: Strict) -> Self {
        let log = started.log.clone();
        Self {
            name,
            address: started.address,
            kind: Kind::Proxy { log, behind },
            _started: Some(started),
        }
    }

    /// Node's own HTTP server, strict as it comes.
    pub(crate) async fn node() -> Self {
        let program = Program::new("node").arg(clients().join("node/reader.mjs"));
        let started = Started::script("node", program).await;
        Self {
            name: "node",
            address: started.address,
            kind: Kind::Lines {
                log: started.log.clone(),
            },
            _started: Some(started),
        }
    }

    /// The status of everything this reader took for a request, read or refused, in order.
    pub(crate) fn statuses(&self) -> Vec<u16> {
        match &self.kind {
            Kind::Strict(strict) => vec![200; strict.readings().len()],
            Kind::Proxy { log, .. } => {
                let lines = lines(log);
                let seen = lines.iter().filter_map(|line| line.strip_prefix("seen "));
                seen.map(|status| status.parse().unwrap()).collect()
            }
            Kind::Lines { log } => {
                let facts = json_lines(log);
                let statuses = facts.iter().filter_map(|fact| fact["status"].as_u64());
                statuses
                    .map(|status| u16::try_from(status).unwrap())
                    .collect()
            }
        }
    }

    /// Every whole request this reader read, in order.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        match &self.kind {
            Kind::Strict(strict) | Kind::Proxy { behind: strict, .. } => strict.readings(),
            Kind::Lines { log } => json_lines(log).iter().filter_map(reading).collect(),
        }
    }

    /// What the strict parser in it, or behind it, could not read.
    pub(crate) fn unread(&self) -> Vec<String> {
        match &self.kind {
            Kind::Strict(strict) | Kind::Proxy { behind: strict, .. } => strict.unread(),
            Kind::Lines { .. } => Vec::new(),
        }
    }
}

fn json_lines(log: &Path) -> Vec<Value> {
    let lines = lines(log);
    let facts = lines.iter().filter(|line| line.starts_with('{'));
    facts
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn reading(fact: &Value) -> Option<Reading> {
    let text = |name: &str| fact[name].as_str().map(str::to_owned);
    let list = |name: &str| -> Option<Vec<String>> {
        let items = fact[name].as_array()?.iter();
        items.map(|item| item.as_str().map(str::to_owned)).collect()
    };
    Some(Reading {
        method: text("method")?,
        target: text("target")?,
        hosts: list("hosts")?,
        marks: list("marks")?,
        cookie: list("cookies")?.join("; "),
        length: usize::try_from(fact["length"].as_u64()?).unwrap(),
        sha256: text("sha256")?,
    })
}

fn nginx_config(root: &Path, address: SocketAddr, behind: SocketAddr) -> String {
    let user = user_of_nginx();
    format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log; {user}\n\
         events {{ worker_connections 1024; }}\n\
         http {{ log_format seen 'seen $status'; access_log {root}/seen seen;\n\
         client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;\n\
         uwsgi_temp_path {root}/u; scgi_temp_path {root}/s; keepalive_timeout 600s;\n\
         keepalive_requests 1000000; large_client_header_buffers 8 64k; client_max_body_size 0;\n\
         server {{ listen {address}; location / {{ proxy_pass http://{behind}; proxy_http_version 1.1;\n\
         proxy_set_header Host $http_host; proxy_set_header Connection ''; }} }} }}\n",
        root = root.display(),
    )
}

fn haproxy_config(address: SocketAddr, behind: SocketAddr) -> String {
    format!(
        "global\n  log stdout format raw daemon\n  tune.bufsize 65536\n  tune.http.maxhdr 256\n\
         defaults\n  mode http\n  log global\n  option dontlognull\n  timeout connect 10s\n  timeout client 600s\n\
         \x20 timeout server 600s\n  timeout http-keep-alive 600s\n\
         frontend in\n  bind {address}\n  log-format \"seen %ST\"\n  default_backend out\n\
         backend out\n  server strict {behind}\n",
    )
}
