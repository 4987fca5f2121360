//! The command's environment: what it inherits, without the session's credentials, and with the ways that are there.

use std::{collections::BTreeMap, ffi::OsString, net::SocketAddr};

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
        | "CONTAINER_HOST"
        | "DBUS_SESSION_BUS_ADDRESS"
        | "DBUS_SYSTEM_BUS_ADDRESS"
        // The resolver's, of whoever started us: names and servers that are not there (resolv.conf(5), hostname(7)).
        | "LOCALDOMAIN"
        | "RES_OPTIONS"
        | "HOSTALIASES" => true,
        _ if name.starts_with("SLUICEGATE_") => true,
        _ if name.starts_with("GESTALT_") => credential("_TOKEN") || credential("_SOCKET"),
        _ => is_of_a_proxy(name),
    }
}

/// Proxies of whoever started us, which do not exist in the sandbox: those every program knows and those of one program
/// alone (npm_config_https_proxy, CARGO_HTTP_PROXY, PIP_PROXY, grpc_proxy), with what goes with them.
fn is_of_a_proxy(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let begins = [
        "HTTP_PROXY_",
        "HTTPS_PROXY_",
        "FTP_PROXY_",
        "ALL_PROXY_",
        "CONDA_PROXY_SERVERS_",
    ];
    match &*name {
        "NPM_CONFIG_NOPROXY" | "GIT_PROXY_COMMAND" | "SOCKS_SERVER" | "SOCKS5_SERVER" => true,
        // A file with a certificate.
        "X509_USER_PROXY" => false,
        _ => name.ends_with("_PROXY") || begins.iter().any(|begin| name.starts_with(begin)),
    }
}

/// Variables with options of Java's virtual machine, which may name a proxy among others.
const JAVA: [&str; 10] = [
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
    "JAVA_OPTS",
    "MAVEN_OPTS",
    "MAVEN_ARGS",
    "GRADLE_OPTS",
    "SBT_OPTS",
    "ANT_OPTS",
    "CATALINA_OPTS",
];

/// The options without those of a proxy; `None` where there are none of those.
fn without_proxies(options: &str) -> Option<String> {
    let of_a_proxy = |option: &str| {
        let option = option.trim_start_matches(['"', '\'']);
        let property = option.strip_prefix("-D").unwrap_or_default();
        let name = property.split('=').next().unwrap_or_default();
        name == "java.net.useSystemProxies"
            || name.starts_with("socksProxy")
            || name == "socksNonProxyHosts"
            || ["http.", "https.", "ftp."].iter().any(|scheme| {
                let rest = name.strip_prefix(scheme).unwrap_or_default();
                rest.starts_with("proxy") || rest == "nonProxyHosts"
            })
    };
    let mut quote = None;
    let options: Vec<&str> = options
        .split(|c: char| {
            match quote {
                Some(open) if c == open => quote = None,
                None if c == '"' || c == '\'' => quote = Some(c),
                _ => {}
            }
            quote.is_none() && c.is_whitespace()
        })
        .collect();
    let kept: Vec<&str> = options
        .iter()
        .copied()
        .filter(|option| !of_a_proxy(option))
        .collect();
    (kept.len() < options.len()).then(|| kept.join(" "))
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
    pub(super) remove: Vec<OsString>,
}

impl Environment {
    /// All there is in the end.
    pub(super) fn over(self, inherited: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
        let mut all: BTreeMap<_, _> = inherited.into_iter().collect();
        for name in &self.remove {
            all.remove(name);
        }
        let set = self.set.into_iter();
        all.extend(set.map(|(name, value)| (name.into(), value.into())));
        all.into_iter().collect()
    }
}

/// Of the variables there are, and where the proxy and the services are. `own` comes last and wins.
pub(super) fn of(
    inherited: impl Iterator<Item = (OsString, OsString)>,
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
    let mut remove = Vec::new();
    for (name, value) in inherited {
        // One whose name is not quite text may hold a credential as well.
        let text = name.to_string_lossy();
        if is_taken_away(&text) {
            remove.push(name);
        } else if JAVA.contains(&&*text)
            && let Some(rest) = value.to_str().and_then(without_proxies)
        {
            set.push((text.into_owned(), rest));
        }
    }
    set.extend(own.iter().cloned());
    remove.retain(|name| !set.iter().any(|(kept, _)| name == &**kept));
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

    use std::{ffi::OsString, os::unix::ffi::OsStringExt};

    use super::{Place, is_taken_away, of, without_proxies};
    use crate::listen::Address;

    #[test]
    fn every_proxy_of_the_caller_is_taken_away() {
        let proxies = [
            "HTTP_PROXY",
            "https_proxy",
            "All_Proxy",
            "FTP_PROXY",
            "no_proxy",
            "grpc_proxy",
            "npm_config_proxy",
            "npm_config_https_proxy",
            "NPM_CONFIG_NOPROXY",
            "NODE_USE_ENV_PROXY",
            "CARGO_HTTP_PROXY",
            "PIP_PROXY",
            "GIT_PROXY_COMMAND",
            "http_proxy_user",
            "HTTP_PROXY_PASS",
            "CONDA_PROXY_SERVERS__HTTPS",
            "SOCKS5_SERVER",
        ];
        let others = [
            "GOPROXY",
            "X509_USER_PROXY",
            "PROXYCHAINS_CONF_FILE",
            "PATH",
        ];
        for name in proxies {
            assert!(is_taken_away(name), "{name}");
        }
        for name in others {
            assert!(!is_taken_away(name), "{name}");
        }
    }

    #[test]
    fn javas_options_lose_their_proxies_and_nothing_else() {
        let table = [
            (
                "-Xmx1g -Dhttp.proxyHost=proxy.corp -Dhttps.proxyPort=3128 -Dfile.encoding=UTF-8",
                Some("-Xmx1g -Dfile.encoding=UTF-8"),
            ),
            (
                "\"-Dhttp.nonProxyHosts=a b|c\" '-Da=b c' -DsocksProxyHost=x",
                Some("'-Da=b c'"),
            ),
            ("-Djava.net.useSystemProxies=true", Some("")),
            ("-Xmx1g -Dhttp.agent=x -Dproxy=y", None),
        ];
        for (options, expected) in table {
            assert_eq!(without_proxies(options).as_deref(), expected, "{options}");
        }
    }

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
            "RES_OPTIONS",
            "CONTAINER_HOST",
        ];
        let place = |service: &str, address: &str| Place {
            service: service.into(),
            address: Address::parse(address).unwrap(),
        };
        let services = [
            place("db", "tcp://127.0.0.1:5432"),
            place("cache:main", "unix:///run/x/cache.sock"),
        ];
        let inherited = inherited.map(|name| (name.into(), "x".into()));
        let own = [("A".to_owned(), "b".to_owned())];
        let proxy = Some("127.0.0.1:3128".parse().unwrap());
        let environment = of(inherited.clone().into_iter(), proxy, &services, &own);
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
                "SSH_AUTH_SOCK",
                "RES_OPTIONS",
                "CONTAINER_HOST"
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
        let none = of(inherited.clone().into_iter(), None, &[], &[]);
        assert!(none.set.is_empty() && none.remove.contains(&"HTTPS_PROXY".into()));
        let none = of(inherited.clone().into_iter(), None, &[], &own);
        let rest = ["A", "GESTALT_HOST_SERVICES", "PATH", "SSL_CERT_FILE"].map(OsString::from);
        let all = none.over(inherited.to_vec());
        assert!(all.iter().map(|(name, _)| name).eq(&rest), "{all:?}");
        let odd = OsString::from_vec(b"SLUICEGATE_\xff_TOKEN".to_vec());
        let none = of([(odd.clone(), "x".into())].into_iter(), None, &[], &[]);
        assert_eq!(none.remove, [odd]);
    }
}
