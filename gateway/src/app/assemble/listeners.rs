//! Sockets, and what is spoken on them.

use std::{net::SocketAddr, sync::Arc};

use sluicegate_certs::{Identity, ServerIdentity, TrustBundle, tls};

use super::StartError;
use crate::{
    app::PublicIdentity,
    auth,
    config::{self, Config},
    front::{Captured, Entry, Identify},
    http2,
    listen::{Arrival, Capture, Listener, ListenerKind, ResetKey, Trust, UdpListener},
    telemetry::Front,
};

/// What listeners with a certificate of their own speak, by address.
pub(super) type OwnTls = Vec<(SocketAddr, Arc<rustls::ServerConfig>)>;

/// Bind every TCP listener, in the order they are configured.
pub(super) fn bind(config: &Config) -> Result<(Vec<Listener>, OwnTls), StartError> {
    let mut listeners = Vec::new();
    let mut own_tls = Vec::new();
    for wanted in &config.listeners {
        let kind = match wanted.kind {
            config::ListenerKind::Public => ListenerKind::Public,
            config::ListenerKind::Plain => ListenerKind::Plain,
            config::ListenerKind::Management => ListenerKind::Management,
            config::ListenerKind::Private => ListenerKind::Private,
            config::ListenerKind::Socks => ListenerKind::Socks,
            config::ListenerKind::Transparent => ListenerKind::Transparent,
            config::ListenerKind::Sni => ListenerKind::Sni,
        };
        let listener =
            Listener::bind(kind, wanted.address, wanted_capture(wanted)).map_err(|source| {
                StartError::Listen {
                    kind: kind.label(),
                    address: wanted.address,
                    source,
                }
            })?;
        let alpn: Option<&[&[u8]]> = match kind {
            ListenerKind::Management => Some(&[b"http/1.1"]),
            ListenerKind::Socks => Some(&[]),
            // The private listener's is made of more than its files, below.
            ListenerKind::Public
            | ListenerKind::Plain
            | ListenerKind::Private
            | ListenerKind::Transparent
            | ListenerKind::Sni => None,
        };
        if let (Some(files), Some(alpn)) = (&wanted.tls, alpn) {
            let identity = ServerIdentity::new(Identity::load(&files.certificate, &files.key)?);
            let tls = match &wanted.client_ca {
                None => tls::server(&identity, alpn)?,
                Some(file) => {
                    let pem = std::fs::read(file).map_err(|source| StartError::ClientCa {
                        path: file.clone(),
                        source,
                    })?;
                    let roots = TrustBundle::empty().with_pem(&pem)?;
                    tls::server_with_client_auth(&identity, &roots, alpn)?
                }
            };
            own_tls.push((listener.address, tls));
        }
        listeners.push(listener);
    }
    Ok((listeners, own_tls))
}

/// How the network brings connections to a listener that captures; port 0 is the system's choice, and no target's.
fn wanted_capture(wanted: &config::ListenerConfig) -> Option<Capture> {
    let capture = wanted.capture.as_ref()?;
    if wanted.kind != config::ListenerKind::Transparent {
        return None;
    }
    Some(match capture.mode {
        config::CaptureMode::Redirect => Capture::Redirect,
        config::CaptureMode::Tproxy => Capture::Tproxy {
            port: wanted.address.port(),
        },
    })
}

/// What each listener's connections begin with, in the order they are configured, and which front they are for.
pub(super) fn entries(
    config: &Config,
    listeners: &[Listener],
    public: &PublicIdentity,
    own_tls: &OwnTls,
    private: Option<&Arc<rustls::ServerConfig>>,
) -> Vec<(Arrival, Entry)> {
    let both = config.listeners.iter().zip(listeners);
    both.map(|(wanted, listener)| {
        let own = own_tls.iter().find(|(at, _)| *at == listener.address);
        let tls = match listener.kind {
            ListenerKind::Public => Some(public.server_config()),
            ListenerKind::Private => private.cloned(),
            _ => own.map(|(_, tls)| tls.clone()),
        };
        let trust = (!wanted.trusted.is_empty()).then(|| Trust {
            networks: wanted.trusted.as_slice().into(),
            within: config.limits.head_timeout,
        });
        let mut capture = wanted_capture(wanted);
        if let Some(Capture::Tproxy { port }) = &mut capture {
            *port = listener.address.port();
        }
        let entry = match (&wanted.capture, listener.kind) {
            (Some(captured), _) => Entry::Captured(Arc::new(understood(captured, listener.kind))),
            (None, ListenerKind::Socks) => Entry::Socks,
            (None, _) => Entry::Http {
                secure: tls.is_some(),
            },
        };
        let arrival = Arrival {
            tls,
            trust,
            capture,
        };
        (arrival, entry)
    })
    .collect()
}

fn understood(captured: &config::CaptureConfig, kind: ListenerKind) -> Captured {
    let (front, port) = match kind {
        ListenerKind::Sni => (Front::sni, Some(captured.target_port)),
        _ => (Front::transparent, None),
    };
    let namespaces = captured.namespaces.iter().map(|name| name.as_str().into());
    Captured {
        front,
        port,
        identify: match captured.identify {
            config::IdentifyBy::Source => Identify::Source(namespaces.collect()),
            config::IdentifyBy::Header => Identify::Header,
        },
    }
}

/// The UDP port of each public listener's number.
pub(super) fn bind_udp(
    config: &Config,
    listeners: &[Listener],
    identity: &PublicIdentity,
    state_dir: &config::StateDir,
) -> Result<Vec<UdpListener>, StartError> {
    // Bound in the order they are configured.
    let wanted = config.listeners.iter().zip(listeners);
    let mut wanted = wanted.filter(|(wanted, _)| wanted.quic).peekable();
    if wanted.peek().is_none() {
        return Ok(Vec::new());
    }
    let secret = auth::load_or_create_secret(&state_dir.file("quic-reset.key"))
        .map_err(StartError::ResetKey)?;
    let reset = ResetKey::new(&secret);
    let streams = http2::Limits::default().streams;
    wanted
        .map(|(_, tcp)| {
            let tls = identity.quic_config();
            UdpListener::bind(tcp.address, tls, &reset, streams).map_err(|source| {
                StartError::Listen {
                    kind: "public, UDP",
                    address: tcp.address,
                    source,
                }
            })
        })
        .collect()
}

/// What the private listener speaks, where there is one.
pub(super) fn private_tls(
    config: &Config,
    public: &PublicIdentity,
) -> Result<Option<Arc<rustls::ServerConfig>>, StartError> {
    let mut private = config.listeners.iter();
    let private = private.find(|l| l.kind == config::ListenerKind::Private);
    let Some((listener, ca)) = private.and_then(|l| Some((l, l.client_ca.as_ref()?))) else {
        return Ok(None);
    };
    let pem = std::fs::read(ca).map_err(|source| StartError::ClientCa {
        path: ca.clone(),
        source,
    })?;
    let hosts = TrustBundle::empty().with_pem(&pem)?;
    let identity = match &listener.tls {
        Some(files) => ServerIdentity::new(Identity::load(&files.certificate, &files.key)?),
        None => public.server(),
    };
    Ok(Some(tls::server_with_client_auth(&identity, &hosts, &[])?))
}
