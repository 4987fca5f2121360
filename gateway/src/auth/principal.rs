//! Who acts on the admin API: the operator's own token, and credentials with less.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use super::{AdminToken, AdminTokenError};

/// What a credential of the admin API may do; each includes the ones before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// Look.
    Read,
    /// Act on sessions.
    Operate,
    /// Act on the gateway: reload, keys, drain.
    Admin,
}

impl Scope {
    /// As in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

/// Whoever presented a credential.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal {
    /// For logs.
    pub name: Arc<str>,
    /// What it may do at most.
    pub scope: Scope,
    /// The namespaces it sees; `None` = all.
    pub namespaces: Option<Arc<[String]>>,
    /// The owner whose sessions it may touch; `None` = anybody's.
    pub owner: Option<Arc<str>>,
}

impl Principal {
    /// Whoever holds the generated token.
    pub fn operator() -> Self {
        Self {
            name: "admin".into(),
            scope: Scope::Admin,
            namespaces: None,
            owner: None,
        }
    }

    /// Does it see only a part of the gateway?
    pub fn is_bounded(&self) -> bool {
        self.namespaces.is_some() || self.owner.is_some()
    }

    /// Does it see this namespace?
    pub fn sees(&self, namespace: &str) -> bool {
        self.namespaces
            .as_ref()
            .is_none_or(|own| own.iter().any(|own| own == namespace))
    }

    /// May it touch a session of this owner?
    pub fn owns(&self, owner: Option<&str>) -> bool {
        self.owner.is_none() || self.owner.as_deref() == owner
    }

    /// The namespace meant where a request names none.
    pub fn home(&self) -> &str {
        match self.namespaces.as_deref() {
            Some([only]) => only,
            Some(_) | None => "default",
        }
    }
}

/// One credential of the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CredentialSource {
    /// Who it stands for.
    pub principal: Principal,
    /// Where its token is.
    pub token: TokenSource,
}

/// Where a token is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenSource {
    /// In a file of mode 0600.
    File(PathBuf),
    /// Nowhere here: its SHA-256 is enough to know it again.
    Sha256([u8; 32]),
}

/// Every credential the admin API takes.
#[derive(Debug)]
pub struct AdminCredentials {
    all: ArcSwap<Vec<Known>>,
    changed: watch::Sender<()>,
}

/// A token's SHA-256, and whose it is.
type Known = (TokenHash, Arc<Principal>);

/// A token's SHA-256: enough to know it again.
pub type TokenHash = [u8; 32];

impl AdminCredentials {
    /// The operator's token and the credentials of the configuration.
    ///
    /// # Errors
    /// A token's file is missing, readable by others, or holds no token.
    pub fn load(own: &AdminToken, sources: &[CredentialSource]) -> Result<Self, AdminTokenError> {
        let digest = |text: &str| -> [u8; 32] { Sha256::digest(text).into() };
        let mut all = vec![(
            digest(own.secret().reveal()),
            Arc::new(Principal::operator()),
        )];
        for source in sources {
            let hash = match &source.token {
                TokenSource::Sha256(hash) => *hash,
                TokenSource::File(path) => {
                    let token = AdminToken::load(path)?
                        .ok_or_else(|| AdminTokenError::Missing(path.clone()))?;
                    digest(token.secret().reveal())
                }
            };
            all.push((hash, Arc::new(source.principal.clone())));
        }
        Ok(Self {
            all: ArcSwap::from_pointee(all),
            changed: watch::Sender::new(()),
        })
    }

    /// These from now on: what no longer is among them lets nobody in any more.
    pub fn follow(&self, others: Self) {
        self.all.store(others.all.into_inner());
        self.changed.send_replace(());
    }

    /// Tells when there are others.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What a token is known by.
    pub fn hash(presented: &str) -> TokenHash {
        Sha256::digest(presented).into()
    }

    /// Whose token is this? Every one is compared, so that the time taken tells nothing.
    pub fn identify(&self, digest: &TokenHash) -> Option<Arc<Principal>> {
        let mut found = None;
        for (hash, principal) in self.all.load().iter() {
            if bool::from(hash.as_slice().ct_eq(digest.as_slice())) {
                found.get_or_insert_with(|| principal.clone());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )]
    use super::*;
    use crate::auth::write_file;

    fn principal(name: &str, namespaces: Option<&[&str]>) -> Principal {
        Principal {
            name: name.into(),
            scope: Scope::Operate,
            namespaces: namespaces.map(|list| list.iter().map(|name| (*name).to_owned()).collect()),
            owner: None,
        }
    }

    #[test]
    fn each_token_is_its_own_principal_and_no_other_is_any() {
        let dir = tempfile::tempdir().unwrap();
        let own = AdminToken::load_or_create(&dir.path().join("admin.token")).unwrap();
        let file = dir.path().join("team.token");
        write_file(&file, b"a-token-of-the-team\n", 0o600).unwrap();
        let sources = [
            CredentialSource {
                principal: principal("team", Some(&["team"])),
                token: TokenSource::File(file),
            },
            CredentialSource {
                principal: principal("hashed", None),
                token: TokenSource::Sha256(Sha256::digest("another-long-token").into()),
            },
        ];
        let all = AdminCredentials::load(&own, &sources).unwrap();
        let who = |token: &str| {
            all.identify(&AdminCredentials::hash(token))
                .map(|p| p.name.to_string())
        };
        assert_eq!(who(own.secret().reveal()).as_deref(), Some("admin"));
        assert_eq!(who("a-token-of-the-team").as_deref(), Some("team"));
        assert_eq!(who("another-long-token").as_deref(), Some("hashed"));
        for wrong in ["", "a-token-of-the-tea", "a-token-of-the-team\n", "admin"] {
            assert_eq!(who(wrong), None, "{wrong:?}");
        }
        let missing = [CredentialSource {
            principal: principal("x", None),
            token: TokenSource::File(dir.path().join("absent")),
        }];
        assert!(matches!(
            AdminCredentials::load(&own, &missing),
            Err(AdminTokenError::Missing(_))
        ));
    }

    #[test]
    fn what_is_bounded_sees_its_own() {
        let team = principal("team", Some(&["team"]));
        assert!(team.is_bounded() && team.sees("team") && !team.sees("default"));
        assert_eq!(team.home(), "team");
        let all = Principal::operator();
        assert!(!all.is_bounded() && all.sees("anything") && all.owns(Some("ann")));
        let ann = Principal {
            owner: Some("ann".into()),
            ..all
        };
        assert!(ann.owns(Some("ann")) && !ann.owns(Some("bob")) && !ann.owns(None));
        assert!(Scope::Admin > Scope::Operate && Scope::Operate > Scope::Read);
    }
}
