//! `sluicegate-relay` over each transport: fresh tokens, bytes that do not wait for the answer, what is withdrawn, and what it
//! tells of itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod carried;
mod told;
mod withdrawn;

use std::net::SocketAddr;
use std::path::Path;

use e2e::program::binary;
use e2e::{Ask, Program, Session, Tasks, World, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const TRANSPORTS: [&str; 3] = ["quic", "h2", "h1"];

/// A service that says everything back.
async fn echo(tasks: &Tasks) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let each = Tasks::default();
        while let Ok((stream, _)) = listener.accept().await {
            each.spawn(async move {
                let (mut read, mut write) = stream.into_split();
                // A stream that is reset ends it.
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn said(stream: &mut TcpStream, question: &[u8]) {
    stream.write_all(question).await.unwrap();
    let mut answer = vec![0; question.len()];
    within("the echo", stream.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!(answer, question);
}

/// A session that may use this service as `echo`.
async fn session(world: &World, service: SocketAddr) -> Session {
    let service = format!("echo=tcp://{service}");
    let ask = Ask {
        services: &[&service],
        ..Ask::default()
    };
    world.session_for(ask).await
}

/// A key in this file; its thumbprint.
async fn made(key: &Path) -> String {
    let program = Program::new(binary("sluicegate-relay"));
    let made = program.args(["key", "--key", key.to_str().unwrap()]).run();
    made.await.succeeded().trim().to_owned()
}
