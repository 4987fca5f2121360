//! The certificate that public listeners show: the operator's files, or a leaf of the private CA that is renewed in time.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use sluicegate_certs::{Authority, CertError, Identity, ServerIdentity, TrustBundle, tls};
use sluicegate_relay_protocol::{ALPN_H3, ALPN_RELAY};

use crate::{
    config::{Config, KeyFiles, ListenerKind, PublicUrl, StateDir},
    session::CaFiles,
};

/// Life of a leaf of ours.
const LIFE: Duration = Duration::from_secs(90 * 86_400);
/// It is renewed when less than this is left.
const MARGIN: Duration = Duration::from_secs(30 * 86_400);

/// The identity and where it comes from.
pub(super) struct PublicIdentity {
    server: ServerIdentity,
    config: Arc<rustls::ServerConfig>,
    quic: Arc<rustls::ServerConfig>,
    source: Source,
    /// From the first configuration on by which clients may meet a certificate of the private CA's.
    ca: OnceLock<CaFiles>,
    state_dir: PathBuf,
}

enum Source {
    Files,
    Authority(Box<Authority>),
}

impl PublicIdentity {
    pub(super) fn open(
        config: &Config,
        state_dir: &StateDir,
        now: SystemTime,
    ) -> Result<Self, CertError> {
        let (identity, source) = match &config.tls.files {
            Some(files) => (load(files)?, Source::Files),
            None => {
                let authority =
                    Authority::load_or_create(state_dir.path(), "Sluicegate private CA", now)?;
                let leaf = authority.issue_server(&names(config), LIFE, now)?;
                (leaf, Source::Authority(Box::new(authority)))
            }
        };
        let server = ServerIdentity::new(identity);
        let made = Self {
            config: tls::server(&server, &[b"h2", b"http/1.1"])?,
            quic: tls::quic_server(&server, &[ALPN_RELAY, ALPN_H3])?,
            server,
            source,
            ca: OnceLock::new(),
            state_dir: state_dir.path().into(),
        };
        made.meet(config)?;
        Ok(made)
    }

    /// Roots for those who come by TLS, where this configuration is the first by which somebody does.
    fn meet(&self, config: &Config) -> Result<(), CertError> {
        if let Source::Authority(authority) = &self.source
            && self.ca.get().is_none()
            && is_met(config)
        {
            // Whoever made them meanwhile made the same.
            let _ = self.ca.set(ca_files(authority, &self.state_dir)?);
        }
        Ok(())
    }

    /// For every public listener; what is replaced later shows in new handshakes.
    pub(super) fn server_config(&self) -> Arc<rustls::ServerConfig> {
        self.config.clone()
    }

    /// As [`Self::server_config`], for the UDP port of the same listeners.
    pub(super) fn quic_config(&self) -> Arc<rustls::ServerConfig> {
        self.quic.clone()
    }

    /// For the private listener, where it has no certificate of its own.
    pub(super) fn server(&self) -> ServerIdentity {
        self.server.clone()
    }

    /// The private CA, where one is in play: clients may meet a certificate of its.
    pub(super) fn ca(&self) -> Option<CaFiles> {
        self.ca.get().cloned()
    }

    /// Renew our own leaf when its time comes near.
    pub(super) fn renew(&self, now: SystemTime) -> Result<(), CertError> {
        let Source::Authority(authority) = &self.source else {
            return Ok(());
        };
        let current = self.server.current();
        if current.not_after() < now + MARGIN {
            // The names of the leaf that is shown: a reload may have changed them since the start.
            let leaf = authority.issue_server(&current.names(), LIFE, now)?;
            self.server.replace(leaf);
            tracing::info!("the certificate of the public listener was renewed");
        }
        Ok(())
    }

    /// The operator's files again, or a leaf for the names of a new configuration.
    pub(super) fn prepare(
        &self,
        config: &Config,
        now: SystemTime,
    ) -> Result<Option<Identity>, CertError> {
        match (&self.source, &config.tls.files) {
            (Source::Files, Some(files)) => load(files).map(Some),
            (Source::Authority(authority), None) => {
                // Before whatever is made with this configuration asks for them.
                self.meet(config)?;
                authority.issue_server(&names(config), LIFE, now).map(Some)
            }
            (Source::Files, None) | (Source::Authority(_), Some(_)) => Ok(None),
        }
    }

    pub(super) fn replace(&self, identity: Identity) {
        self.server.replace(identity);
    }
}

/// Does anybody come by TLS? Where all come in plaintext, nobody needs roots for it, and the system's are many to read, check and write
/// down.
fn is_met(config: &Config) -> bool {
    let shown = config.listeners.iter().any(|listener| match listener.kind {
        ListenerKind::Public => true,
        ListenerKind::Private => listener.tls.is_none(),
        _ => false,
    });
    // One who ends TLS in front of a plain listener.
    let in_front = config.public_url.as_ref().is_some_and(PublicUrl::is_tls);
    shown || in_front
}

fn load(files: &KeyFiles) -> Result<Identity, CertError> {
    Identity::load(&files.certificate, &files.key)
}

/// Loopback, the public URL's host, listeners' own addresses, and what the operator adds.
fn names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .to_vec();
    let public = config
        .public_url
        .as_ref()
        .map(|url| match url.target().host() {
            sluicegate_policy::Host::Name(name) => name.to_string(),
            sluicegate_policy::Host::Ip(ip) => ip.to_string(),
        });
    let bound = config
        .listeners
        .iter()
        .map(|l| l.address.ip())
        .filter(|ip| !ip.is_unspecified());
    // A private listener without a certificate of its own shows this one: every dial target is one label below.
    let private = config.listeners.iter().filter(|l| l.tls.is_none());
    let dialled = private.filter_map(|l| l.domain.as_ref().map(|domain| format!("*.{domain}")));
    for name in public
        .into_iter()
        .chain(bound.map(|ip| ip.to_string()))
        .chain(dialled)
        .chain(config.tls.names.iter().cloned())
    {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// System roots and our CA in one file, for programs that take one file only.
fn ca_files(authority: &Authority, state_dir: &Path) -> Result<CaFiles, CertError> {
    let ca_pem: Arc<str> = authority.certificate_pem().into();
    // A machine without root certificates still has ours.
    let system = TrustBundle::system().unwrap_or_else(|error| {
        tracing::warn!(%error, "no system root certificates; the CA bundle holds the private CA only");
        TrustBundle::empty()
    });
    let bundle = system.with_pem(ca_pem.as_bytes())?.to_pem();
    let path = state_dir.join("ca-bundle.pem");
    write_public(&path, bundle.as_bytes()).map_err(|source| CertError::Write {
        path: path.clone(),
        source,
    })?;
    Ok(CaFiles {
        path,
        bundle_pem: bundle.into(),
        ca_pem,
    })
}

/// Readers see the old file or the new one, never a part.
fn write_public(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::PermissionsExt};
    let directory = sluicegate_certs::directory_of(path);
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn roots_are_for_those_who_come_by_tls() {
        let plain = "listeners: [{kind: plain, address: \"127.0.0.1:0\"}]\n";
        let in_front = format!("publicUrl: \"https://gateway.example.test\"\n{plain}");
        let public = "listeners: [{kind: public, address: \"127.0.0.1:0\"}]\n";
        for (source, given) in [(plain, false), (&*in_front, true), (public, true)] {
            let directory = tempfile::tempdir().unwrap();
            let state_dir = StateDir::open(&directory.path().join("state")).unwrap();
            let config = Config::parse(source).unwrap().0;
            let identity = PublicIdentity::open(&config, &state_dir, SystemTime::now()).unwrap();
            assert_eq!(identity.ca().is_some(), given, "{source}");
            assert_eq!(state_dir.file("ca-bundle.pem").exists(), given, "{source}");
        }
    }

    /// A publicUrl may change while the gateway serves: whoever is then sent there is given what to trust.
    #[test]
    fn roots_are_there_with_the_reload_that_brings_somebody_by_tls() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = StateDir::open(&directory.path().join("state")).unwrap();
        let read = |source: &str| Config::parse(source).unwrap().0;
        let plain = "listeners: [{kind: plain, address: \"127.0.0.1:0\"}]\n";
        let in_front = format!("publicUrl: \"https://gateway.example.test\"\n{plain}");
        let now = SystemTime::now();
        let identity = PublicIdentity::open(&read(plain), &state_dir, now).unwrap();
        identity.prepare(&read(plain), now).unwrap();
        assert!(identity.ca().is_none());
        for source in [&*in_front, plain] {
            identity.prepare(&read(source), now).unwrap();
            let ca = identity.ca().unwrap();
            assert!(ca.path.exists(), "{source}");
        }
    }

    #[test]
    fn the_leaf_is_renewed_in_time_and_keeps_the_names_of_the_last_reload() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = StateDir::open(&directory.path().join("state")).unwrap();
        let now = SystemTime::now();
        let config = Config::default();
        let identity = PublicIdentity::open(&config, &state_dir, now).unwrap();
        let first = identity.server.current();
        identity.renew(now + LIFE - MARGIN - MARGIN).unwrap();
        assert!(Arc::ptr_eq(&first, &identity.server.current()), "too early");
        // A reload adds a name; the next renewal must not lose it.
        let mut renamed = config;
        renamed.tls.names.push("added.example.test".to_owned());
        let leaf = identity.prepare(&renamed, now).unwrap().unwrap();
        identity.replace(leaf);
        let second = identity.server.current();
        let later = now + LIFE - MARGIN + Duration::from_secs(60);
        identity.renew(later).unwrap();
        let third = identity.server.current();
        assert!(third.not_after() > second.not_after(), "{third:?}");
        assert!(third.not_after() > later + MARGIN, "{third:?}");
        assert_eq!(third.names(), second.names());
        assert!(third.names().contains(&"added.example.test".to_owned()));
        // Its signer is the one sandboxes were given.
        let again = PublicIdentity::open(&renamed, &state_dir, later).unwrap();
        let (old, new) = (identity.ca().unwrap(), again.ca().unwrap());
        assert_eq!(old.ca_pem, new.ca_pem);
    }
}
