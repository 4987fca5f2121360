//! What is asked for by `--allow` and cannot come of it: loopback is the sandbox's own inside.

use std::net::IpAddr;

/// What to say of these, before the command begins.
pub(super) fn warnings(allowed: &[String]) -> impl Iterator<Item = String> {
    allowed.iter().filter_map(|allowed| {
        let (host, port) = split(allowed);
        is_loopback(host).then(|| {
            let port = port.unwrap_or("PORT");
            format!(
                "--allow {allowed}: inside, {host} is the sandbox's own, and nothing that listens on the host's is there: --service \
                 NAME=tcp://127.0.0.1:{port}"
            )
        })
    })
}

/// Host and port as they are written; a range is known by where it begins.
fn split(allowed: &str) -> (&str, Option<&str>) {
    let (host, port) = match allowed
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match allowed.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (allowed, None),
        },
    };
    let host = host.split_once('/').map_or(host, |(host, _)| host);
    (host, port.filter(|port| port.parse::<u16>().is_ok()))
}

fn is_loopback(host: &str) -> bool {
    let address = host.parse::<IpAddr>().map(|ip| ip.to_canonical());
    // A name may end in the root's dot.
    let name = host.strip_suffix('.').unwrap_or(host);
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::warnings;

    #[test]
    fn loopback_is_told_of_and_nothing_else_is() {
        let told = |allowed: &str| warnings(&[allowed.to_owned()]).next();
        let cases = [
            ("localhost", "localhost", "PORT"),
            ("LocalHost:8080", "LocalHost", "8080"),
            ("localhost.:27800", "localhost.", "27800"),
            ("127.0.0.1:5432", "127.0.0.1", "5432"),
            ("127.0.0.0/8:*", "127.0.0.0", "PORT"),
            ("[::1]:80", "::1", "80"),
            ("[::ffff:127.0.0.1]:80", "::ffff:127.0.0.1", "80"),
        ];
        for (allowed, host, port) in cases {
            let expected = format!(
                "--allow {allowed}: inside, {host} is the sandbox's own, and nothing that listens on the host's is there: --service \
                 NAME=tcp://127.0.0.1:{port}"
            );
            assert_eq!(told(allowed), Some(expected));
        }
        for allowed in [
            "localhost.example.com",
            "localhost..:80",
            "*.localhost:80",
            "10.0.0.0/8:5432",
            "[2001:db8::1]:80",
            "api.example.com:443",
            "*",
        ] {
            assert_eq!(told(allowed), None, "{allowed}");
        }
    }
}
