//! Real servers: Redis, PostgreSQL, nginx, OpenSSH, and Python's gRPC and WebSocket servers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::process::{Uid, geteuid};
use tempfile::TempDir;

use crate::ca::Ca;
use crate::program::{Program, Running};
use crate::tasks::{free_port, listening, until};

/// A server process with its files. It is killed when dropped.
pub struct Server {
    /// The process.
    pub process: Running,
    /// Where it listens, for those that listen on TCP.
    pub address: SocketAddr,
    directory: TempDir,
}

impl Server {
    /// A path in the server's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// redis-server on TCP, without persistence.
pub async fn redis() -> Server {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port().await;
    let process = Program::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args([
            "--save",
            "",
            "--appendonly",
            "no",
            "--unixsocketperm",
            "700",
        ])
        .arg("--unixsocket")
        .arg(directory.path().join("redis.sock"))
        .cwd(directory.path())
        .start(&directory.path().join("redis.log"));
    listening("redis-server", loopback(port)).await;
    Server {
        process,
        address: loopback(port),
        directory,
    }
}

/// PostgreSQL, from `initdb` on, on loopback and a unix socket `DIRECTORY/.s.PGSQL.PORT`, trusting everyone.
///
/// PostgreSQL refuses to run as root; then it runs as `postgres`, as Debian's package has it.
pub async fn postgres() -> Server {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port().await;
    let bin = postgres_programs();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let user = if geteuid() == Uid::ROOT {
        let chown = Program::new("chown").arg("-R").arg("postgres");
        chown.arg(directory.path()).run().await.succeeded();
        Some("postgres")
    } else {
        None
    };
    let run = |program: &str| match user {
        Some(user) => Program::new("setpriv")
            .args(["--reuid", user, "--regid", user, "--init-groups", "--"])
            .arg(bin.join(program)),
        None => Program::new(bin.join(program)),
    };
    let init = run("initdb").arg("-D").arg(&data);
    let init = init.args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]);
    init.cwd(directory.path()).run().await.succeeded();
    let process = run("postgres")
        .arg("-D")
        .arg(&data)
        .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-F", "-k"])
        .arg(directory.path())
        .cwd(directory.path())
        .start(&directory.path().join("postgres.log"));
    until("PostgreSQL's readiness", || {
        process
            .said()
            .contains("ready to accept connections")
            .then_some(())
    })
    .await;
    Server {
        process,
        address: loopback(port),
        directory,
    }
}

/// Debian keeps the server's programs outside PATH, by major version: the newest installed.
pub fn postgres_programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let newest = versions.flatten().map(|entry| entry.path()).max();
    let newest = newest.expect("PostgreSQL is not installed: ./tests/run installs it");
    newest.join("bin")
}

/// nginx as an HTTPS origin for `names`, h2 and HTTP/1.1, serving its own directory.
pub async fn nginx(ca: &Ca, names: &[&str]) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port().await;
    let root = directory.path();
    let (certificate, key) = ca.issue(names).write(root, "nginx");
    std::fs::create_dir(root.join("html")).unwrap();
    let user = if geteuid() == Uid::ROOT {
        "user root;"
    } else {
        ""
    };
    let config = format!(
        "daemon off; master_process off; pid {root}/nginx.pid; error_log {root}/error.log; {user}\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log {root}/access.log; client_body_temp_path {root}/b; proxy_temp_path {root}/p;\n\
         fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
         server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {certificate};\n\
         ssl_certificate_key {key}; root {root}/html; }} }}\n",
        root = root.display(),
        certificate = certificate.display(),
        key = key.display(),
    );
    std::fs::write(root.join("nginx.conf"), config).unwrap();
    let process = Program::new(nginx_program())
        .arg("-c")
        .arg(root.join("nginx.conf"))
        .args(["-g", "", "-p"])
        .arg(root)
        .start(&root.join("nginx.log"));
    listening("nginx", loopback(port)).await;
    Server {
        process,
        address: loopback(port),
        directory,
    }
}

/// nginx over plain HTTP: every path is `from nginx`.
pub async fn nginx_plain() -> Server {
    nginx_answering("", "from nginx\\n").await
}

/// nginx behind the PROXY protocol: every path is the source it was told of, `ADDRESS:PORT`.
pub async fn nginx_told() -> Server {
    nginx_answering(
        "proxy_protocol",
        "$proxy_protocol_addr:$proxy_protocol_port\\n",
    )
    .await
}

async fn nginx_answering(listen: &str, answer: &str) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port().await;
    let root = directory.path();
    let user = if geteuid() == Uid::ROOT {
        "user root;"
    } else {
        ""
    };
    let config = format!(
        "daemon off; master_process off; pid {root}/nginx.pid; error_log {root}/error.log; {user}\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p;\n\
         fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
         server {{ listen 127.0.0.1:{port} {listen}; location / {{ return 200 \"{answer}\"; }} }} }}\n",
        root = root.display(),
    );
    std::fs::write(root.join("nginx.conf"), config).unwrap();
    let process = Program::new(nginx_program())
        .arg("-c")
        .arg(root.join("nginx.conf"))
        .args(["-g", "", "-p"])
        .arg(root)
        .start(&root.join("nginx.log"));
    listening("nginx", loopback(port)).await;
    Server {
        process,
        address: loopback(port),
        directory,
    }
}

/// haproxy behind the PROXY protocol: every path is the source and the unique id it was told of, `ADDRESS:PORT ID`.
pub async fn haproxy_told() -> Server {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port().await;
    let config = format!(
        "defaults\n  mode http\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n\
         frontend told\n  bind 127.0.0.1:{port} accept-proxy\n  http-request return status 200 \
         content-type text/plain lf-string \"%[src]:%[src_port] %[fc_pp_unique_id]\\n\"\n"
    );
    let file = directory.path().join("haproxy.cfg");
    std::fs::write(&file, config).unwrap();
    // Outside an ordinary user's PATH on Debian.
    let program = if Path::new("/usr/sbin/haproxy").exists() {
        "/usr/sbin/haproxy"
    } else {
        "haproxy"
    };
    let process = Program::new(program)
        .args(["-db", "-f"])
        .arg(&file)
        .start(&directory.path().join("haproxy.log"));
    listening("haproxy", loopback(port)).await;
    Server {
        process,
        address: loopback(port),
        directory,
    }
}

/// OpenSSH's server with a key of its own, and the private key that may log in as who runs the tests.
pub async fn sshd() -> (Server, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port().await;
    let root = directory.path();
    for key in ["host", "user"] {
        let make = Program::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        make.arg(root.join(key)).run().await.succeeded();
    }
    if geteuid() == Uid::ROOT {
        // Where the server's own child has nothing to find; the package's service would have made it.
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
    let config = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {root}/host\nPidFile none\nAuthorizedKeysFile {root}/user.pub\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n",
        root = root.display(),
    );
    std::fs::write(root.join("sshd_config"), config).unwrap();
    // Run by its whole path, as it insists.
    let process = Program::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f"])
        .arg(root.join("sshd_config"))
        .start(&root.join("sshd.log"));
    listening("sshd", loopback(port)).await;
    let key = root.join("user");
    let server = Server {
        process,
        address: loopback(port),
        directory,
    };
    (server, key)
}

fn nginx_program() -> &'static str {
    // Outside an ordinary user's PATH on Debian.
    if Path::new("/usr/sbin/nginx").exists() {
        "/usr/sbin/nginx"
    } else {
        "nginx"
    }
}

/// `tests/clients/python/SCRIPT serve …`: a Python server that prints `ready PORT` (0 for a unix socket).
pub async fn python(script: &str, arguments: &[&str]) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let process = Program::python(script)
        .arg("serve")
        .args(arguments)
        .cwd(directory.path())
        .env("PYTHONUNBUFFERED", "1")
        .start(&directory.path().join("server.log"));
    let port = until(&format!("{script} to be ready"), || {
        let said = process.said();
        let line = said.lines().find_map(|line| line.strip_prefix("ready "));
        line.and_then(|port| port.trim().parse().ok())
    })
    .await;
    Server {
        process,
        address: loopback(port),
        directory,
    }
}

/// Unbound on loopback, as a resolver over TLS and over HTTPS with a certificate for `names`; it asks `authority` for
/// everything. The addresses are those of TLS and of HTTPS.
pub async fn unbound(ca: &Ca, names: &[&str], authority: SocketAddr) -> (Server, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    let (tls, https) = (free_port().await, free_port().await);
    let (certificate, key) = ca.issue(names).write(directory.path(), "dns");
    let config = directory.path().join("unbound.conf");
    let text = format!(
        "server:\n  username: \"\"\n  chroot: \"\"\n  directory: \"{directory}\"\n  pidfile: \"\"\n\
         \x20 use-syslog: no\n  logfile: \"\"\n  num-threads: 1\n  do-daemonize: no\n\
         \x20 interface: 127.0.0.1@{tls}\n  interface: 127.0.0.1@{https}\n\
         \x20 tls-port: {tls}\n  https-port: {https}\n\
         \x20 tls-service-pem: \"{certificate}\"\n  tls-service-key: \"{key}\"\n\
         \x20 access-control: 127.0.0.0/8 allow\n  do-not-query-localhost: no\n  module-config: \"iterator\"\n\
         \x20 cache-max-ttl: 0\n  cache-max-negative-ttl: 0\n  local-zone: \"test.\" transparent\n\
         remote-control:\n  control-enable: no\n\
         forward-zone:\n  name: \".\"\n  forward-addr: {ip}@{port}\n",
        directory = directory.path().display(),
        certificate = certificate.display(),
        key = key.display(),
        ip = authority.ip(),
        port = authority.port(),
    );
    std::fs::write(&config, text).unwrap();
    let program = ["/usr/sbin/unbound", "/usr/local/sbin/unbound"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let process = Program::new(program.unwrap_or("unbound"))
        .args(["-d", "-p", "-c"])
        .arg(&config)
        .start(&directory.path().join("unbound.log"));
    listening("unbound over TLS", loopback(tls)).await;
    listening("unbound over HTTPS", loopback(https)).await;
    let server = Server {
        process,
        address: loopback(tls),
        directory,
    };
    (server, loopback(https))
}
