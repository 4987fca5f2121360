//! What is served on the listeners, here or in a sandbox.

use std::{io, os::fd::OwnedFd};

use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio_util::sync::CancellationToken;

use super::{
    capture::{self, Capture},
    confinement::{IsolateError, Ways, step},
    control::Wanted,
    dns::Server,
    names::Names,
    plan::{Standing, What},
};
use crate::{
    forward::forward,
    listen::Listener,
    proxy::{self, Proxy},
    tasks::Tasks,
};

/// What serves the listeners.
pub(super) struct Serving {
    pub(super) ways: Ways,
    pub(super) tasks: Tasks,
    pub(super) stop: CancellationToken,
}

impl Serving {
    /// On the listeners that stand there; each has its descriptor. Answers the names that addresses come to stand for.
    pub(super) fn start(
        &self,
        listeners: Vec<Standing>,
        descriptors: Vec<OwnedFd>,
        ipv6: bool,
    ) -> Result<Names, IsolateError> {
        let names = Names::new(self.ways.session.clone(), self.ways.token.clone());
        let server = Server {
            names: names.clone(),
            ipv6,
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        };
        let capture = Capture {
            session: self.ways.session.clone(),
            token: self.ways.token.clone(),
            names: names.clone(),
            places: capture::places(),
            notice: self.ways.notice.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        };
        for (one, descriptor) in listeners.into_iter().zip(descriptors) {
            let adopted = adopt(one.wanted, descriptor).map_err(step("a listener"))?;
            match (one.what, adopted) {
                (What::NamesUdp, Adopted::Udp(socket)) => {
                    self.tasks.spawn(server.clone().serve_udp(socket));
                }
                (What::NamesTcp, Adopted::Stream(Listener::Tcp(listener))) => {
                    self.tasks.spawn(server.clone().serve_tcp(listener));
                }
                (What::Capture, Adopted::Stream(Listener::Tcp(listener))) => {
                    self.tasks.spawn(capture.clone().serve(listener));
                }
                (What::Proxy, Adopted::Stream(listener)) => self.proxy(listener, true),
                (What::Service(name), Adopted::Stream(listener)) => {
                    self.service(&name, listener, true)
                }
                _ => {}
            }
        }
        Ok(names)
    }

    /// `any_uid`: whoever reaches it is in the sandbox.
    pub(super) fn proxy(&self, listener: Listener, any_uid: bool) {
        let proxy = Proxy {
            session: self.ways.session.clone(),
            token: self.ways.token.clone(),
            any_uid,
            notice: self.ways.notice.clone(),
            tasks: self.tasks.clone(),
        };
        self.tasks
            .spawn(proxy::serve(listener, proxy, self.stop.clone()));
    }

    /// `any_uid`: as above.
    pub(super) fn service(&self, name: &str, listener: Listener, any_uid: bool) {
        self.tasks.spawn(forward(
            listener,
            name.into(),
            self.ways.session.clone(),
            any_uid,
            self.tasks.clone(),
            self.stop.clone(),
        ));
    }
}

enum Adopted {
    Stream(Listener),
    Udp(UdpSocket),
}

/// A listener that was made in the sandbox. Accepting on it, and all that is accepted, is in there; this process is not.
fn adopt(wanted: Wanted, descriptor: OwnedFd) -> io::Result<Adopted> {
    Ok(match wanted {
        Wanted::Tcp(_) => {
            let listener = std::net::TcpListener::from(descriptor);
            listener.set_nonblocking(true)?;
            Adopted::Stream(Listener::Tcp(TcpListener::from_std(listener)?))
        }
        Wanted::Udp(_) => {
            let socket = std::net::UdpSocket::from(descriptor);
            socket.set_nonblocking(true)?;
            Adopted::Udp(UdpSocket::from_std(socket)?)
        }
        Wanted::Unix(path) => {
            let listener = std::os::unix::net::UnixListener::from(descriptor);
            listener.set_nonblocking(true)?;
            Adopted::Stream(Listener::Inside(UnixListener::from_std(listener)?, path))
        }
    })
}
