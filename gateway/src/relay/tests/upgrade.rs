//! The client's HTTP/1.1 transport: one connection per stream.

use std::net::SocketAddr;

use sluicegate_relay::{
    flow::FlowIo,
    transport::{Endpoint, OpenError, upgrade},
};
use sluicegate_relay_protocol::Handshake;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::relay::testing::{World, within};

async fn open(world: &World, url: &str, service: &str, token: &str) -> Result<FlowIo, OpenError> {
    let endpoint = Endpoint::parse(url).unwrap();
    let tls = upgrade::tls(&world.trust()).unwrap();
    let name = service.to_owned();
    let target = Handshake::Service { name };
    let opening = upgrade::open(&endpoint, &tls, None, &target, token);
    Ok(FlowIo::new(within("an answer", opening).await?))
}

/// Who only asks shows nothing, and neither does a stream by a listener that the public URL does not lead to.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_were_opened_over_tls_show_the_way_in_and_no_others() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let services = format!("{{service: '{url}', down: 'tcp://127.0.0.1:1'}}");
    let token = world.session("presence", &services).await;
    let (tls, plain) = (
        format!("https://{}", world.address),
        format!("http://{}", world.plain),
    );
    let shows = || {
        let now = crate::clock::unix_seconds(std::time::SystemTime::now());
        world.presence.proves(now)
    };
    let _near = open(&world, &tls, "service", &token).await.unwrap();
    assert!(!shows(), "from this machine");
    world.far.store(true, std::sync::atomic::Ordering::SeqCst);
    let _plain = open(&world, &plain, "service", &token).await.unwrap();
    assert!(!shows(), "in plaintext");
    assert!(open(&world, &tls, "down", &token).await.is_err());
    assert!(!shows(), "not opened");
    let _far = open(&world, &tls, "service", &token).await.unwrap();
    assert!(shows());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_open_carry_and_end() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let token = world
        .session("upgrade", &format!("{{service: '{url}'}}"))
        .await;
    let gateways = [
        format!("https://{}", world.address),
        format!("http://{}", world.plain),
    ];
    for gateway in &gateways {
        let mut near = open(&world, gateway, "service", &token).await.unwrap();
        let (mut far, _) = within("accept", listener.accept()).await.unwrap();
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut heard = Vec::new();
        within("the question", far.read_to_end(&mut heard))
            .await
            .unwrap();
        assert_eq!(heard, b"question", "{gateway}");
        far.write_all(b"answer").await.unwrap();
        far.shutdown().await.unwrap();
        let mut heard = Vec::new();
        within("the answer", near.read_to_end(&mut heard))
            .await
            .unwrap();
        assert_eq!(heard, b"answer", "{gateway}");
        drop(near);
        // The service's reset is no end.
        let mut near = open(&world, gateway, "service", &token).await.unwrap();
        let (far, _) = within("accept", listener.accept()).await.unwrap();
        far.set_zero_linger().unwrap();
        drop(far);
        let end = within("the reset", near.read_to_end(&mut Vec::new())).await;
        assert!(end.is_err(), "{gateway}: {end:?}");
        // And neither is ours: dropped, it resets the service.
        let near = open(&world, gateway, "service", &token).await.unwrap();
        let (mut far, _) = within("accept", listener.accept()).await.unwrap();
        drop(near);
        let end = within("our reset", far.read_to_end(&mut Vec::new())).await;
        let kind = end.unwrap_err().kind();
        assert_eq!(kind, std::io::ErrorKind::ConnectionReset, "{gateway}");
    }
    for (service, token, status) in [("other", token.as_str(), 403), ("service", "nonsense", 401)] {
        match open(&world, &gateways[0], service, token).await {
            Err(OpenError::Refused(refused)) => assert_eq!(refused.status, status, "{refused}"),
            other => panic!("{service}: {other:?}"),
        }
    }
    let nobody: SocketAddr = {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        closed.local_addr().unwrap()
    };
    let end = open(&world, &format!("http://{nobody}"), "service", &token).await;
    assert!(matches!(end, Err(OpenError::Connect(_))), "{end:?}");
}
