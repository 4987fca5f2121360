//! Tests only: real handshakes between two rustls connections, byte by byte in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection, pki_types::ServerName,
};
use std::{
    io::{Read, Write},
    sync::Arc,
};

/// Two ends that shook hands.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
}

impl Pair {
    /// Shake hands for `name`; the first end to refuse gives the error.
    pub(crate) fn connect(
        client: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
        name: &str,
    ) -> Result<Self, rustls::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut pair = Self {
            client: ClientConnection::new(Arc::clone(client), name).unwrap(),
            server: ServerConnection::new(Arc::clone(server)).unwrap(),
        };
        pair.pump()?;
        assert!(
            !pair.client.is_handshaking() && !pair.server.is_handshaking(),
            "a handshake that stalls"
        );
        Ok(pair)
    }

    /// Carry what either end wants to send until neither does.
    pub(crate) fn pump(&mut self) -> Result<(), rustls::Error> {
        while self.client.wants_write() || self.server.wants_write() {
            let mut wire = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut wire).unwrap();
            }
            let mut rest = wire.as_slice();
            while !rest.is_empty() {
                self.server.read_tls(&mut rest).unwrap();
                self.server.process_new_packets()?;
            }
            let mut wire = Vec::new();
            while self.server.wants_write() {
                self.server.write_tls(&mut wire).unwrap();
            }
            let mut rest = wire.as_slice();
            while !rest.is_empty() {
                self.client.read_tls(&mut rest).unwrap();
                self.client.process_new_packets()?;
            }
        }
        Ok(())
    }

    /// Send a line each way through the connection and check that it arrives.
    pub(crate) fn converse(&mut self) {
        self.client.writer().write_all(b"ping").unwrap();
        self.pump().unwrap();
        let mut heard = [0; 4];
        self.server.reader().read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"ping");
        self.server.writer().write_all(b"pong").unwrap();
        self.pump().unwrap();
        self.client.reader().read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"pong");
    }

    /// The leaf the client was shown.
    pub(crate) fn shown(&self) -> Vec<u8> {
        self.client
            .peer_certificates()
            .unwrap()
            .first()
            .unwrap()
            .to_vec()
    }
}
