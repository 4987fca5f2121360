//! The routes, and connections to serve them on.

use std::{sync::Arc, time::Duration};

use axum::{Router, middleware, response::IntoResponse};
use http::StatusCode;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
};
use tower::ServiceExt;

use super::{Problem, Seat, State, access, guard, routes};
use crate::drain::{DrainWatch, Stage};

/// A head that takes longer is not an operator's.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The admin API and the health probes.
pub fn router(state: State) -> Router {
    routes::all()
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "not-found", "there is nothing here")
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "this path has other methods",
            )
        })
        .layer(middleware::from_fn_with_state(state.clone(), guard::guard))
        .with_state(state)
}

/// One request, its path without the namespace it may be scoped by.
async fn serve(
    router: Router,
    mut request: http::Request<axum::body::Body>,
) -> Result<axum::response::Response, std::convert::Infallible> {
    match access::unscoped(request.uri()) {
        Some(uri) => {
            *request.uri_mut() = uri;
            router.oneshot(request).await
        }
        None => {
            let detail = "no namespace has such a route, or the request names two";
            Ok(Problem::new(StatusCode::NOT_FOUND, "unknown-namespace", detail).into_response())
        }
    }
}

/// Serve one HTTP/1.1 connection until it ends; when the drain asks, it ends after the request in flight. It may have to make
/// room where it has a place among others.
pub async fn serve_connection<IO>(
    io: IO,
    router: Router,
    mut drain: DrainWatch,
    seat: Option<Arc<Seat>>,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let own = seat.clone();
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        if let Some(seat) = &own {
            request.extensions_mut().insert(seat.clone());
        }
        serve(router.clone(), request.map(axum::body::Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);
    let shown_out = async {
        match &seat {
            Some(seat) => seat.shown_out().await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shown_out => {
            tracing::debug!("an admin connection made room for another");
            return;
        }
        () = drain.reached(Stage::Forced) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin connection ended");
    }
}

/// Serve a unix socket until new work is refused.
pub async fn serve_unix(listener: UnixListener, router: Router, mut drain: DrainWatch) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // The last one to go: the drain itself is watched through it.
            () = drain.reached(Stage::Forced) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, watch) = (router.clone(), drain.clone());
                drain.spawn_service(serve_connection(stream, router, watch, None));
            }
            Err(error) => {
                tracing::warn!(%error, "the admin socket cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
