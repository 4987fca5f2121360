//! The command's environment: what it inherits, without the session's credentials, and with the ways that are there.

use std::net::SocketAddr;

use crate::listen::Address;

/// Where a service is to be found in the sandbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) service: String,
    pub(super) address: Address,
}

/// Variables that are the session's, or lead to what is hidden.
fn is_taken_away(name: &str) -> bool {
    let credential = |suffix: &str| name.ends_with(suffix);
    match name {
        "GESTALT_HOST_SERVICE_TLS_CA_PEM"
        | "SSH_AUTH_SOCK"
        | "SSH_AGENT_PID"
        | "DOCKER_HOST"
        | "DBUS_SESSION_BUS_ADDRESS"
        | "DBUS_SYSTEM_BUS_ADDRESS" => true,
        _ if name.starts_with("SLUICEGATE_") => true,
        _ if name.starts_with("GESTALT_") => credential("_TOKEN") || credential("_SOCKET"),
        _ => PROXIES.contains(&name) || NO_PROXY.contains(&name),
    }
}

const PROXIES: [&str; 6] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Names and values to set; what is not among them of the session's is to be removed.
pub(super) struct Environment {
    pub(super) set: Vec<(String, String)>,
    pub(super) remove: Vec<String>,
}

/// Of the variables there are, and where the proxy and the services are. `own` comes last and wins.
pub(super) fn of(
    inherited: impl Iterator<Item = String>,
    proxy: Option<SocketAddr>,
    services: &[Place],
    own: &[(String, String)],
) -> Environment {
    let mut set = Vec::new();
    let mut put = |name: &str, value: String| set.push((name.to_owned(), value));
    if let Some(proxy) = proxy {
        for name in PROXIES {
            put(name, format!("http://{proxy}"));
        }
        for name in NO_PROXY {
            put(name, "localhost,127.0.0.1,::1".to_owned());
        }
        put("NODE_USE_ENV_PROXY", "1".to_owned());
    }
    let names: Vec<&str> = services
        .iter()
        .map(|place| place.service.as_str())
        .collect();
    if !names.is_empty() {
        put("SLUICEGATE_SERVICES", names.join(","));
        let mut bare: Vec<&str> = names
            .iter()
            .filter_map(|name| name.split(':').next())
            .collect();
        bare.dedup();
        put("GESTALT_HOST_SERVICES", bare.join(","));
    }
    for Place { service, address } in services {
        let variable = variable(service);
        put(&format!("GESTALT_{variable}_SOCKET"), address.to_string());
        put(
            &format!("SLUICEGATE_{variable}_SOCKET"),
            address.to_string(),
        );
        if let Address::Tcp(tcp) = address {
            put(&format!("SLUICEGATE_{variable}_HOST"), tcp.ip().to_string());
            put(
                &format!("SLUICEGATE_{variable}_PORT"),
                tcp.port().to_string(),
            );
        }
    }
    set.extend(own.iter().cloned());
    let remove = inherited
        .filter(|name| is_taken_away(name) && !set.iter().any(|(kept, _)| kept == name))
        .collect();
    Environment { set, remove }
}

/// `cache:main` → `CACHE_MAIN`, as the env bundle of a session has it.
fn variable(service: &str) -> String {
    let upper = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    service.chars().map(upper).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::{Place, of};
    use crate::listen::Address;

    #[test]
    fn the_sessions_credentials_stay_outside() {
        let inherited = [
            "PATH",
            "SLUICEGATE_RELAY_TOKEN",
            "SLUICEGATE_PROXY_TOKEN",
            "SLUICEGATE_RELAY_URL",
            "GESTALT_HOST_SERVICE_TOKEN",
            "GESTALT_CACHE_TOKEN",
            "GESTALT_CACHE_SOCKET",
            "GESTALT_HOST_SERVICES",
            "HTTPS_PROXY",
            "SSH_AUTH_SOCK",
            "SSL_CERT_FILE",
        ];
        let place = |service: &str, address: &str| Place {
            service: service.into(),
            address: Address::parse(address).unwrap(),
        };
        let services = [
            place("db", "tcp://127.0.0.1:5432"),
            place("cache:main", "unix:///run/x/cache.sock"),
        ];
        let own = [("A".to_owned(), "b".to_owned())];
        let proxy = Some("127.0.0.1:3128".parse().unwrap());
        let environment = of(
            inherited.map(str::to_owned).into_iter(),
            proxy,
            &services,
            &own,
        );
        let value = |name: &str| {
            let found = environment.set.iter().rfind(|(set, _)| set == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(
            environment.remove,
            [
                "SLUICEGATE_RELAY_TOKEN",
                "SLUICEGATE_PROXY_TOKEN",
                "SLUICEGATE_RELAY_URL",
                "GESTALT_HOST_SERVICE_TOKEN",
                "GESTALT_CACHE_TOKEN",
                "GESTALT_CACHE_SOCKET",
                "SSH_AUTH_SOCK"
            ]
        );
        assert_eq!(value("https_proxy"), Some("http://127.0.0.1:3128"));
        assert_eq!(value("SLUICEGATE_DB_PORT"), Some("5432"));
        assert_eq!(value("GESTALT_DB_SOCKET"), Some("tcp://127.0.0.1:5432"));
        assert_eq!(
            value("SLUICEGATE_CACHE_MAIN_SOCKET"),
            Some("unix:///run/x/cache.sock")
        );
        assert_eq!(value("GESTALT_HOST_SERVICES"), Some("db,cache"));
        assert_eq!(value("A"), Some("b"));
        let none = of(inherited.map(str::to_owned).into_iter(), None, &[], &[]);
        assert!(none.set.is_empty() && none.remove.contains(&"HTTPS_PROXY".to_owned()));
    }
}
