//! What the credentials are good for, and whether somebody is there behind the gateway and here.

use std::time::{Duration, SystemTime};

use sluicegate_relay_protocol::Handshake;
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{Check, Finding, Outcome, Wanted};
use crate::{
    config::Config,
    flow::{Early, Flow},
    listen::{Address, Exposed},
    session::Ends,
    transport::{Connection, OpenError, Refused, Tls},
};

/// No policy allows it: the name cannot exist (RFC 6761 §6.4).
const REFUSED: &str = "sluicegate-canary.invalid";

/// An offer that is not refused by then stands: it is answered when somebody dials, and not before.
const STANDS: Duration = Duration::from_secs(5);

/// What ended may still be exchanged.
const ENDED: &str = "it has ended; `up` exchanges it for up to an hour after its end";

pub(super) async fn token(config: &Config, tls: &Tls, connection: &Connection) -> Check {
    Check::of("token", async {
        match connection.prove(&config.token).await {
            Ok(()) => {
                let ends = match Ends::of(&config.token) {
                    Some(ends) => {
                        let left = ends.left(SystemTime::now()).as_secs();
                        let left = std::time::Duration::from_secs(left);
                        format!("ends in {}", humantime::format_duration(left))
                    }
                    None => "has no end of its own".to_owned(),
                };
                let covers = match services_of(&config.token) {
                    Some(services) => format!("for {}", services.join(", ")),
                    None => "for whatever its session may open".to_owned(),
                };
                Finding::ok(format!("accepted; {ends}; {covers}"))
            }
            Err(OpenError::Refused(refused)) => match tls.advice(&config.token) {
                Some(advice) if refused.is_of_credential() => {
                    Finding::failed(refused.to_string(), advice)
                }
                _ => Finding::failed(refused.to_string(), match refused.reason.as_str() {
                    "credential_invalid" if is_over(&config.token, SystemTime::now()) => ENDED,
                    "session_paused" => "resume the session (`sluicegate session resume`)",
                    "too_many_connections" => "end other clients of this session, or raise `limits.relayConnections` of the gateway",
                    "source_not_allowed" => "the session's `sources` do not hold this sandbox's address",
                    _ => "the token is wrong, expired or of a generation that is over: start the session again (`sluicegate \
                          session start`) and pass what it prints",
                }),
            },
            Err(error) => Finding::failed(error.to_string(), "try again"),
        }
    })
    .await
}

/// Has the token's own time run out?
fn is_over(token: &str, now: SystemTime) -> bool {
    Ends::of(token).is_some_and(|ends| ends.left(now).is_zero())
}

/// The names in the token's `svc`; not verified: the gateway does that.
fn services_of(token: &str) -> Option<Vec<String>> {
    let claims = token.split('.').nth(1)?;
    let json = data_encoding::BASE64URL_NOPAD
        .decode(claims.as_bytes())
        .ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&json).ok()?;
    let named = claims.get("svc")?.as_array()?.iter();
    let named = named.filter_map(|entry| Some(entry.get("name")?.as_str()?.to_owned()));
    Some(named.collect())
}

/// Each service that is listened for: does it open?
pub(super) async fn services(config: &Config, connection: &Connection) -> Vec<Check> {
    let mut checks = Vec::new();
    for listen in &config.listen {
        let target = Handshake::Service {
            name: listen.service.clone(),
        };
        let name = format!("service {}", listen.service);
        let check = Check::of(name, async {
            // Dropped, the stream is reset: the service sees a connection that says nothing.
            match connection
                .open(&target, &config.token, &mut Early::nothing())
                .await
            {
                Ok(_) => Finding::ok("opens"),
                Err(OpenError::Refused(refused)) => service_refused(&refused),
                Err(error) => Finding::failed(error.to_string(), "try again"),
            }
        });
        checks.push(check.await);
    }
    checks
}

fn service_refused(refused: &Refused) -> Finding {
    let advice = match (&refused.hint, refused.reason.as_str()) {
        (Some(hint), _) => hint.clone(),
        (None, "service_unavailable") => {
            "the gateway cannot reach the service: is it up, on the gateway's host?".to_owned()
        }
        (None, "service_not_allowed") => {
            "add the service to the session's `services`, or to the provider's".to_owned()
        }
        (None, reason) => format!("see {reason} in docs/relay.md"),
    };
    Finding::failed(refused.to_string(), advice)
}

/// Each exposed listener: does somebody listen here, and may it be offered?
pub(super) async fn exposed(config: &Config, connection: &Connection) -> Vec<Check> {
    let mut checks = Vec::new();
    for exposed in &config.expose {
        let name = format!("listener {}", exposed.listener);
        let check = Check::of(name, async {
            let connected = match &exposed.address {
                Address::Unix(path) => UnixStream::connect(path).await.map(drop),
                Address::Tcp(address) => TcpStream::connect(address).await.map(drop),
            };
            match connected {
                Ok(()) => offered(config, connection, exposed).await,
                Err(error) => Finding::failed(
                    format!("{}: {error}", exposed.address),
                    "start what is to be exposed; dials of the host are reset until then",
                ),
            }
        });
        checks.push(check.await);
    }
    checks
}

/// Offered once, and withdrawn.
async fn offered(config: &Config, connection: &Connection, exposed: &Exposed) -> Finding {
    let target = Handshake::Listener {
        name: exposed.listener.clone(),
    };
    match timeout(STANDS, connection.accept(&target, &config.token)).await {
        Ok(Err(OpenError::Refused(refused))) => listener_refused(&refused),
        Ok(Err(error)) => Finding::failed(error.to_string(), "try again"),
        answer => {
            // Somebody dialled at this moment, and is told at once that nothing took it.
            if let Ok(Ok(mut dial)) = answer {
                dial.refuse();
            }
            let address = &exposed.address;
            Finding::ok(format!(
                "{address} takes connections, and the gateway the offer"
            ))
        }
    }
}

fn listener_refused(refused: &Refused) -> Finding {
    let advice = match (&refused.hint, refused.reason.as_str()) {
        (Some(hint), _) => hint.clone(),
        (None, "listener_not_allowed") => {
            "add the listener to the session's `expose`, or to the provider's; or the token is bound to other names".to_owned()
        }
        (None, reason) => format!("see {reason} in docs/relay.md"),
    };
    Finding::failed(refused.to_string(), advice)
}

/// The way out: a target that must be refused, and one that must pass.
pub(super) async fn proxy(config: &Config, connection: &Connection, wanted: &Wanted) -> Vec<Check> {
    let Some(proxy) = &config.proxy else {
        return vec![Check::skipped("proxy", "no --proxy is configured")];
    };
    let open = async |host: &str, port| {
        let host = host.to_owned();
        let target = Handshake::Egress { host, port };
        let mut nothing = Early::nothing();
        connection.open(&target, &proxy.token, &mut nothing).await
    };
    let mut checks = Vec::new();
    let refused = Check::of("proxy refuses", async {
        match open(REFUSED, 443).await {
            Ok(_) => Finding::failed(
                format!("{REFUSED} was let through"),
                "the session's egress policy allows any name: set allowedHosts",
            ),
            Err(OpenError::Refused(refused)) if refused.status == http::StatusCode::UNAUTHORIZED => {
                Finding::failed(
                    refused.to_string(),
                    "the proxy's token is not taken: pass SLUICEGATE_PROXY_TOKEN of a session that runs",
                )
            }
            Err(OpenError::Refused(refused)) if refused.status == http::StatusCode::FORBIDDEN => {
                // Without its hint: nobody is to add it.
                Finding::ok(format!("{REFUSED}: {} {}", refused.status, refused.reason))
            }
            Err(error) => Finding {
                outcome: Outcome::Warning,
                detail: format!("{REFUSED}: {error}"),
                advice: Some("a name that cannot exist passed the policy and failed after it: is the default `allow`?".into()),
            },
        }
    });
    checks.push(refused.await);
    if let Some((host, port)) = &wanted.canary {
        let passed = Check::of("proxy passes", async {
            match open(host, *port).await {
                Ok(_) => Finding::ok(format!("{host}:{port} opens")),
                Err(OpenError::Refused(refused)) => Finding::failed(
                    format!("{host}:{port}: {refused}"),
                    refused.hint.clone().unwrap_or_else(|| {
                        "add it to the session's allowedHosts (`sluicegate policy explain` says why)".into()
                    }),
                ),
                Err(error) => Finding::failed(format!("{host}:{port}: {error}"), "try again"),
            }
        });
        checks.push(passed.await);
    }
    checks
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{Outcome, is_over, service_refused};
    use crate::transport::Refused;

    #[test]
    fn a_token_is_over_after_its_end() {
        let claims = data_encoding::BASE64URL_NOPAD.encode(br#"{"iat":100,"exp":200}"#);
        let token = format!("head.{claims}.signature");
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(!is_over(&token, at(150)));
        assert!(is_over(&token, at(201)));
        assert!(!is_over("a handle", at(201)));
    }

    #[test]
    fn a_refusal_is_a_failure_with_the_gateways_advice() {
        let refused = |reason: &str, hint: Option<&str>| Refused {
            status: http::StatusCode::FORBIDDEN,
            reason: reason.to_owned(),
            hint: hint.map(str::to_owned),
            request_id: None,
            answer: std::sync::Arc::default(),
        };
        let found = service_refused(&refused("service_method_not_allowed", Some("Widen it.")));
        assert_eq!(found.outcome, Outcome::Failed);
        assert_eq!(found.advice.as_deref(), Some("Widen it."));
        let found = service_refused(&refused("own_listener", None));
        assert_eq!(found.outcome, Outcome::Failed);
        let advice = found.advice.unwrap_or_default();
        assert!(advice.contains("own_listener"), "{advice}");
    }
}
