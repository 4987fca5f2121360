//! One plain HTTP/1.1 request on a connection of its own, for management and origins.

use std::net::SocketAddr;

use crate::wire::{Reply, Wire};

/// Any request; `extra` holds whole field lines with their CRLF.
pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    extra: &str,
    body: &str,
) -> Reply {
    let mut wire = Wire::dial(address).await;
    let length = body.len();
    wire.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{extra}\r\n{body}"
    ))
    .await;
    wire.reply().await
}

/// GET without a body.
pub async fn fetch(address: SocketAddr, path: &str) -> Reply {
    request(address, "GET", path, "", "").await
}
