//! Asks for a fresh token long before the one at hand ends. No stream notices.

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tokio::time::sleep;

use super::{Credential, Session, SessionError, credential::Ends};
use crate::{backoff::Backoff, transport::OpenError};

/// Asked again after at most this long, where there was no answer.
const AGAIN: Duration = Duration::from_secs(15);
/// However short a token's life: not more often than this.
const LEAST: Duration = Duration::from_millis(500);
/// Asleep at most this long at a time: a clock may be set.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The gateway's answer.
#[derive(Deserialize)]
struct Fresh {
    token: String,
}

/// Keep the credential good for as long as the session's generation lives. A credential without an end is left alone.
pub(super) async fn keep_fresh(session: Session, credential: Credential) {
    let mut backoff = Backoff::new(LEAST, AGAIN);
    loop {
        let Some(ends) = credential.ends() else {
            sleep(DAY).await;
            continue;
        };
        sleep(rest(ends, SystemTime::now(), share())).await;
        if credential.ends() != Some(ends) || ends.left(SystemTime::now()) > ends.life / 2 {
            continue;
        }
        match refresh(&session, &credential, ends).await {
            Ok(()) => backoff.reset(),
            Err(reason) => {
                if credential.reread() {
                    tracing::info!("another token was found in the file");
                    continue;
                }
                tracing::warn!(%reason, "no fresh token; asking again");
                // A short life leaves little time to ask in.
                let wait = backoff.wait().min(ends.life / 4);
                sleep(LEAST / 2 + wait).await;
            }
        }
    }
}

/// So much of a token's life passes first: between half and four fifths, so that many clients do not come at once.
fn rest(ends: Ends, now: SystemTime, share: f64) -> Duration {
    let keep = ends.life.mul_f64(0.5 - 0.3 * share);
    ends.left(now).saturating_sub(keep).clamp(LEAST, DAY)
}

fn share() -> f64 {
    getrandom::u32().map_or(0.5, |r| f64::from(r) / f64::from(u32::MAX))
}

async fn refresh(session: &Session, credential: &Credential, old: Ends) -> Result<(), String> {
    let token = credential.now();
    let answer = session.refresh(&token).await;
    let json = answer.map_err(|error| match error {
        SessionError::Open(OpenError::Refused(refused)) => refused.to_string(),
        error => error.to_string(),
    })?;
    let fresh: Fresh =
        serde_json::from_slice(&json).map_err(|_| "the answer is not a gateway's".to_owned())?;
    let ends = Credential::from(fresh.token.as_str()).ends();
    match ends {
        Some(ends) if ends.at > old.at => {
            if credential.refresh(&token, &fresh.token) {
                session.stats.refreshed();
                tracing::debug!(life = ?ends.life, "a fresh token");
                // What was said of the old one, if it was refused, is not said of this one.
                session.reconsider();
            }
            Ok(())
        }
        // The generation's own end bounds both.
        _ => Err("the gateway has none that lasts longer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{DAY, LEAST, rest};
    use crate::session::credential::Ends;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn between_half_and_four_fifths_of_its_life() {
        let secs = Duration::from_secs;
        let ends = |life| Ends {
            at: UNIX_EPOCH + secs(1000),
            life: secs(life),
        };
        let now = UNIX_EPOCH + secs(900);
        assert_eq!(rest(ends(100), now, 0.0), secs(50));
        assert_eq!(rest(ends(100), now, 1.0), secs(80));
        assert_eq!(rest(ends(100), now + secs(70), 0.0), LEAST, "late");
        let year = Ends {
            at: UNIX_EPOCH + secs(400 * 86_400),
            life: secs(365 * 86_400),
        };
        assert_eq!(rest(year, UNIX_EPOCH, 0.5), DAY);
    }
}
