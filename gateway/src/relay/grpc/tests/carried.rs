//! What of a call goes on to its service, and by which connection.

use std::path::Path;

use sluicegate_relay::transport::{Choice, Transport};
use tokio::{
    net::{TcpStream, UnixListener},
    task::JoinSet,
};
use tonic::Code;

use super::{
    super::testing::{Health, ask, channel, health, told},
    ALL,
};
use crate::{
    relay::testing::{World, within},
    session::testing::patch,
};

/// The same service at a unix socket; its URL.
fn at_socket(health: &Health, path: &Path, tasks: &mut JoinSet<()>) -> String {
    let listener = UnixListener::bind(path).unwrap();
    let address = health.url.trim_start_matches("tcp://").to_owned();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let address = address.clone();
            open.spawn(async move {
                let mut far = TcpStream::connect(address).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
            });
        }
    });
    format!("unix://{}", path.display())
}

/// A connection that was made while the service might be anybody's carries no call by a policy that says whose it has to be.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_asks_of_a_service_is_asked_of_its_connections() {
    let (world, health) = (World::new().await, health().await);
    let mut tasks = JoinSet::new();
    let socket = world.fixture.dir.path().join("calls.sock");
    let url = at_socket(&health, &socket, &mut tasks);
    let services =
        |more: &str| format!("{{health: {{url: '{url}', grpc: {{methodPrefix: {ALL}}}{more}}}}}");
    let token = world.session("one", &services("")).await;
    let relay = world.client_over(Choice::Only(Transport::H2), &token);
    let mut client = within("a channel", channel(relay.forward("health").await)).await;
    let checked = within("check", client.check(ask("shown", ""))).await;
    assert!(checked.is_ok(), "{checked:?}");

    let own = rustix::process::geteuid().as_raw();
    let (registry, key) = (&world.fixture.registry, world.fixture.key("one"));
    let change = |uid: u32| format!("{{services: {}}}", services(&format!(", peerUid: {uid}")));
    let stranger = patch(&change(own + 1));
    registry.patch(key.clone(), stranger).await.unwrap();
    let status = within("a stranger's", client.check(ask("shown", ""))).await;
    assert_eq!(
        told(&status.unwrap_err()),
        (Code::Unavailable, "host-service-relay-unavailable")
    );
    registry.patch(key, patch(&change(own))).await.unwrap();
    let checked = within("our own", client.check(ask("shown", ""))).await;
    assert!(checked.is_ok(), "{checked:?}");
}
