//! Unix sockets of the host as host services: who may name which, and where their paths really lead.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use e2e::raw::unix_echo;
use e2e::{Ask, RelayClient, Settings, Tasks, Wire, World};
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};

const SESSIONS: &str = "/runtime/providers/test/sessions";

/// A gateway with a credential of one namespace, `tenant`, whose token is in the file.
async fn world(directory: &Path, ceiling: &str) -> (World, PathBuf) {
    let token = directory.join("tenant.token");
    std::fs::write(&token, "tenant-0123456789abcdef").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let world = World::with(Settings {
        runtime: format!(
            "\nruntime: {{providers: {{test: {{egress: {{ceiling: {{addresses: [\"127.0.0.0/8\"]{ceiling}}}}}}}}}}}\n"
        ),
        more: format!(
            "admin: {{credentials: [{{name: tenant, scopes: [operate], namespaces: [team], tokenFile: \"{}\"}}]}}\n",
            token.display()
        ),
        ..Settings::default()
    })
    .await;
    (world, token)
}

/// Asks for a session with this service, as the tenant or as the operator: the status, and every fault.
async fn ask(world: &World, tenant: bool, id: &str, path: &Path) -> (u16, String) {
    let body = json!({ "id": id, "services": { "db": format!("unix://{}", path.display()) } });
    let reply = if tenant {
        let fields = "Authorization: Bearer tenant-0123456789abcdef\r\n";
        let path = format!("/admin/api/v1{SESSIONS}");
        let management = world.gateway.ports.management;
        e2e::web::request(management, "POST", &path, fields, &body.to_string()).await
    } else {
        let body = body.to_string();
        world.gateway.admin("POST", SESSIONS, &body).await
    };
    (reply.status(), reply.json()["errors"].to_string())
}

#[tokio::test]
async fn without_a_list_a_tenant_names_no_socket_and_the_operator_any() {
    let directory = tempfile::tempdir().unwrap();
    let (world, _) = world(directory.path(), "").await;
    let docker = Path::new("/var/run/docker.sock");
    let (status, told) = ask(&world, true, "theirs", docker).await;
    assert_eq!(status, 422, "{told}");
    for word in [
        "services.db",
        "runtime.providers.test.egress.ceiling.sockets",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let (status, told) = ask(&world, false, "ours", docker).await;
    assert_eq!(status, 201, "{told}");
}

#[tokio::test]
async fn what_is_listed_is_dialled_where_its_path_really_leads() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    for path in ["app/deep", "host"] {
        std::fs::create_dir_all(root.join(path)).unwrap();
    }
    let tasks = Tasks::default();
    for path in ["app/deep/b.sock", "host/b.sock", "host/docker.sock"] {
        tasks.spawn(unix_echo(UnixListener::bind(root.join(path)).unwrap()));
    }
    let way = root.join("app/way");
    symlink("deep", &way).unwrap();
    let list = format!(", sockets: [\"{}/app/\"]", root.display());
    let (world, token) = world(root, &list).await;

    // The list holds for whoever names a socket.
    for tenant in [true, false] {
        let docker = root.join("host/docker.sock");
        let (status, told) = ask(&world, tenant, "theirs", &docker).await;
        assert_eq!(status, 422, "{told}");
        assert!(told.contains("ceiling.sockets"), "{told}");
    }

    let service = format!("echo=unix://{}", way.join("b.sock").display());
    let management = format!("http://{}", world.gateway.ports.management);
    let token = token.display().to_string();
    let session = world
        .session_for(Ask {
            services: &[&service],
            more: &["--admin-url", &management, "--admin-token-file", &token],
            ..Ask::default()
        })
        .await;
    assert_eq!(session.json["namespace"], "team");
    let _client = RelayClient::up(&session, &[RelayClient::unix(&session, "echo")]).await;
    let dial = async || {
        let near = UnixStream::connect(RelayClient::socket(&session, "echo")).await;
        Wire::over(near.unwrap())
    };
    let mut wire = dial().await;
    wire.send("there and back").await;
    assert_eq!(wire.take(14).await, b"there and back");

    // The same path leads elsewhere now.
    std::fs::remove_file(&way).unwrap();
    symlink("../host", &way).unwrap();
    dial().await.cut().await;
    let record = world
        .gateway
        .record("a refused stream", |record| {
            record.text("service") == "echo" && record.text("reason") == "address_not_allowed"
        })
        .await;
    assert!(record.text("detail").contains("host/b.sock"), "{record:?}");
}
