//! A gRPC service to call, and how to call it: tonic's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::task::JoinSet;
use tonic::{
    Code, Request, Status,
    metadata::{MetadataMap, MetadataValue},
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_health::{
    pb::{HealthCheckRequest, health_client::HealthClient, health_server::HealthServer},
    server::{HealthReporter, HealthService},
};

/// Carries the relay token.
pub(crate) const TOKEN: &str = "x-gestalt-host-service-relay-token";

/// A health service, what it was told, and its URL.
pub(crate) struct Health {
    pub(crate) reporter: HealthReporter,
    pub(crate) seen: Arc<Mutex<Vec<MetadataMap>>>,
    pub(crate) url: String,
    /// GOAWAY, and the listener goes.
    pub(crate) stop: tokio::sync::oneshot::Sender<()>,
    pub(crate) tasks: JoinSet<()>,
}

pub(crate) async fn health() -> Health {
    let reporter = HealthReporter::new();
    let seen = Arc::<Mutex<Vec<MetadataMap>>>::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let noted = seen.clone();
    let note = move |request: Request<()>| {
        noted.lock().unwrap().push(request.metadata().clone());
        Ok(request)
    };
    let server = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
    let service = InterceptedService::new(server, note);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let incoming = TcpIncoming::from(listener);
        let serving = Server::builder().add_service(service);
        let stopped = async { drop(stopped.await) };
        serving
            .serve_with_incoming_shutdown(incoming, stopped)
            .await
            .unwrap();
    });
    Health {
        reporter,
        seen,
        url,
        stop,
        tasks,
    }
}

/// A client of what is at this address.
pub(crate) async fn channel(address: SocketAddr) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

/// A question with a token.
pub(crate) fn ask(token: &str, service: &str) -> Request<HealthCheckRequest> {
    let mut request = Request::new(HealthCheckRequest {
        service: service.into(),
    });
    request
        .metadata_mut()
        .insert(TOKEN, MetadataValue::try_from(token).unwrap());
    request
        .metadata_mut()
        .insert("x-app", MetadataValue::from_static("kept"));
    request
}

/// Code and message.
pub(crate) fn told(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}
