//! Dialling judged addresses, and only those. Happy Eyeballs version 2 (RFC 8305) within the set.

use std::{io, net::SocketAddr, time::Duration};

use sluicegate_policy::{AddressPermit, Denial};
use tokio::{net::TcpStream, task::JoinSet, time};

use crate::{descriptors, interfaces, outcome::is_exhausted};

/// RFC 8305 §5, Connection Attempt Delay.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// No address answered.
#[derive(Debug, thiserror::Error)]
#[error("{denial:?}: {detail}")]
pub struct DialError {
    /// Why, for the client.
    pub denial: Denial,
    /// The kernel's own words, for the record.
    pub detail: String,
}

/// A connection that was made.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub stream: TcpStream,
    /// The judged address.
    pub address: SocketAddr,
    /// It [leads to this host](interfaces::leads_here), which its judge may not have known.
    pub here: bool,
}

/// Opens TCP connections to permitted addresses.
#[derive(Clone, Copy, Debug)]
pub struct Dialler {
    /// All attempts together.
    pub timeout: Duration,
}

impl Dialler {
    /// Dial the addresses in order, each next one 250 ms after the one before or at once when that failed; the first
    /// to connect wins.
    ///
    /// # Errors
    /// `ConnectRefused`, `ConnectUnreachable`, `ConnectTimeout`.
    pub async fn dial(&self, permits: &[AddressPermit]) -> Result<Dialled, DialError> {
        let attempts = async {
            match permits {
                [only] => connect(*only).await,
                _ => race(permits).await,
            }
        };
        match time::timeout(self.timeout, attempts).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => Err(DialError {
                denial: denial(&error),
                detail: error.to_string(),
            }),
            Err(_) => Err(DialError {
                denial: Denial::ConnectTimeout,
                detail: format!("no connection within {:?}", self.timeout),
            }),
        }
    }
}

async fn race(permits: &[AddressPermit]) -> io::Result<Dialled> {
    let mut waiting = permits.iter().copied();
    let mut attempts = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut start_next = true;
    loop {
        if start_next && let Some(permit) = waiting.next() {
            attempts.spawn(connect(permit));
        }
        let more = waiting.len() > 0;
        tokio::select! {
            joined = attempts.join_next() => match joined {
                Some(Ok(Ok(connected))) => return Ok(connected),
                Some(Ok(Err(error))) => {
                    last = error;
                    start_next = true;
                }
                Some(Err(joining)) => last = io::Error::other(joining),
                None if !more => return Err(last),
                None => start_next = true,
            },
            () = time::sleep(ATTEMPT_DELAY), if more => start_next = true,
        }
    }
}

async fn connect(permit: AddressPermit) -> io::Result<Dialled> {
    let address = permit.address();
    let socket = descriptors::socket_towards(address)?;
    ready(socket.connect(address).await?, address)
}

/// A connection as it may be used. What was judged is what is talked to: nothing between us and the kernel may have rewritten it.
fn ready(stream: TcpStream, judged: SocketAddr) -> io::Result<Dialled> {
    if stream.peer_addr()? != judged {
        return Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            "connected to another address than the judged one",
        ));
    }
    stream.set_nodelay(true)?;
    let here = interfaces::leads_here(&stream, judged)?;
    Ok(Dialled {
        stream,
        address: judged,
        here,
    })
}

fn denial(error: &io::Error) -> Denial {
    // EMFILE, ENFILE, ENOMEM, ENOBUFS: ours, not the destination's.
    if is_exhausted(error) {
        return Denial::ConnectionLimit;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Denial::ConnectRefused,
        io::ErrorKind::TimedOut => Denial::ConnectTimeout,
        _ => Denial::ConnectUnreachable,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::net::{TcpListener, TcpStream};

    use super::ready;

    #[tokio::test]
    async fn a_connection_to_another_address_than_the_judged_one_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let judged = listener.local_addr().unwrap();
        let dialled = ready(TcpStream::connect(judged).await.unwrap(), judged).unwrap();
        assert!(dialled.stream.nodelay().unwrap());
        assert_eq!(dialled.address, judged);
        let mut other = judged;
        other.set_ip("127.0.0.2".parse().unwrap());
        assert!(ready(TcpStream::connect(judged).await.unwrap(), other).is_err());
    }
}
