//! Who is asking: credentials in, a live session out.
//!
//! Here live keys, signed tokens, handles, tokens of gestaltd, the admin token, and the header fields they come in. What a session may do
//! lives in `session`.

mod admin_token;
mod gestalt;
mod handle;
mod identify;
mod keys;
mod presented;
mod principal;
mod private_file;
mod proxy_authorization;
mod refresh;
mod rotations;
mod token;
mod token_cache;

pub use admin_token::{AdminToken, AdminTokenError};
pub use gestalt::{Gestalt, GestaltError, GestaltKey, GestaltTerms, PreparedTerms, SessionCheck};
pub use handle::{Handle, HandleHash};
pub use identify::{Audience, Authenticator, Identity};
pub use keys::{ExternalKey, ExternalKeys, KeyError, KeyInfo, Keys, NewKeys};
pub use presented::Presented;
pub use principal::{AdminCredentials, CredentialSource, Principal, Scope, TokenHash, TokenSource};
pub use private_file::{PrivateFileError, load_or_create_secret, read_private, write_file};
pub use proxy_authorization::{Values, bearer, proxy_credential, socks_credential};
pub use refresh::{LATE as REFRESHED_LATE, LIFE as REFRESHED_LIFE, Refreshed};
pub use token::{
    Claims, Confirmation, Mint, MintError, Named, ServiceClaim, TokenError, foreign_named, line_of,
    mint, token_named, token_session, verify,
};
