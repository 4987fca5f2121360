//! A host service that is down, for each way of asking for its health.

use std::net::SocketAddr;

use e2e::{Tasks, servers};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use crate::door::Door;
use crate::lab::Lab;

/// A gateway with one service, which is well.
async fn with_service(service: &str) -> Lab {
    let lab = Lab::start(", timeout: 5s", &format!("services: {{one: {service}}}\n")).await;
    lab.is_well().await;
    assert_eq!(lab.state("service:one").await, "works");
    lab
}

/// The service is lost, nothing else is, and it is the service that is said to be.
async fn loses_it(lab: &Lab, why: &str) {
    lab.loses_a_service("services.one", why).await;
    assert_eq!(lab.state("service:one").await, "fails");
}

/// It is found again, and so is what it had taken.
async fn has_it_back(lab: &Lab) {
    lab.is_well().await;
    assert_eq!(lab.state("service:one").await, "works");
}

/// Somebody who says this to everybody who has said something.
async fn saying(words: &'static str) -> (SocketAddr, Tasks) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::default();
    tasks.spawn(async move {
        let visitors = Tasks::default();
        while let Ok((mut stream, _)) = listener.accept().await {
            visitors.spawn(async move {
                // Who came may have gone.
                if stream.read_u8().await.is_ok() {
                    let _ = stream.write_all(words.as_bytes()).await;
                    let _ = stream.shutdown().await;
                    // What is left unread would reset what was said.
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                }
            });
        }
    });
    (address, tasks)
}

async fn gone(mut server: servers::Server) {
    server.process.signal(Signal::KILL);
    server.process.wait("the server to be gone").await;
}

#[tokio::test]
async fn redis_must_answer_a_ping() {
    let redis = servers::redis().await;
    let door = Door::to(redis.address).await;
    let lab = with_service(&format!(
        "{{url: \"tcp://{}\", health: redis}}",
        door.address
    ))
    .await;
    door.leads(None);
    gone(redis).await;
    loses_it(&lab, "one is not well").await;
    let placed = lab.placement("test", r#"{"hostServices": ["one"]}"#).await;
    assert_eq!(
        placed,
        json!("cannot provide host service access required by this provider")
    );
    // Something else in its place is not the service.
    let (loading, _tasks) = saying("-LOADING Redis is loading\r\n").await;
    door.leads(Some(loading));
    loses_it(&lab, "LOADING").await;
    let again = servers::redis().await;
    door.leads(Some(again.address));
    has_it_back(&lab).await;
    let placed = lab.placement("test", r#"{"hostServices": ["one"]}"#).await;
    assert_eq!(placed, Value::Null);
}

#[tokio::test]
async fn grpc_health_is_believed_both_ways() {
    let server = servers::python("health.py", &["a.b.Service"]).await;
    let lab = with_service(&format!(
        "{{url: \"tcp://{}\", health: \"grpc:a.b.Service\"}}",
        server.address
    ))
    .await;
    server.process.signal(Signal::USR1);
    loses_it(&lab, "NOT_SERVING").await;
    server.process.signal(Signal::USR2);
    has_it_back(&lab).await;
}

#[tokio::test]
async fn postgresql_answers_an_sslrequest_and_a_stopped_one_does_not() {
    let server = servers::postgres().await;
    let url = format!("tcp://{}", server.address);
    let lab = with_service(&format!("{{url: \"{url}\", health: postgres}}")).await;
    // The postmaster accepts for as long as it exists; stopped, nobody answers.
    server.process.signal(Signal::STOP);
    loses_it(&lab, "host service one: no answer within").await;
    server.process.signal(Signal::CONT);
    has_it_back(&lab).await;
}

#[tokio::test]
async fn an_http_path_must_be_answered_2xx() {
    let nginx = servers::nginx_plain().await;
    let door = Door::to(nginx.address).await;
    let url = format!("tcp://{}", door.address);
    let lab = with_service(&format!("{{url: \"{url}\", health: /healthz}}")).await;
    let (ill, _tasks) = saying(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )
    .await;
    door.leads(Some(ill));
    loses_it(&lab, "GET /healthz was answered 503").await;
    door.leads(Some(nginx.address));
    has_it_back(&lab).await;
    door.leads(None);
    gone(nginx).await;
    loses_it(&lab, "one is not well").await;
    let again = servers::nginx_plain().await;
    door.leads(Some(again.address));
    has_it_back(&lab).await;
}

#[tokio::test]
async fn a_bare_one_must_accept() {
    let directory = tempfile::tempdir().unwrap();
    // By its path: a port could be somebody else's meanwhile.
    let path = directory.path().join("one.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let lab = with_service(&format!("\"unix://{}\"", path.display())).await;
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    loses_it(&lab, "one is not well").await;
    let _again = UnixListener::bind(&path).unwrap();
    has_it_back(&lab).await;
}
