#![allow(clippy::unwrap_used)]
use super::{
    Handshake, PathError, asked_name, egress_path, listener_path, name_path, service_path,
};
use proptest::prelude::*;

fn egress(host: &str, port: u16) -> Handshake {
    Handshake::Egress {
        host: host.into(),
        port,
    }
}

fn service(name: &str) -> Handshake {
    Handshake::Service { name: name.into() }
}

fn listener(name: &str) -> Handshake {
    Handshake::Listener { name: name.into() }
}

#[test]
fn paths_as_they_stand_on_the_wire() {
    assert_eq!(
        egress_path("api.example.com", 443),
        "/.well-known/masque/tcp/api.example.com/443/"
    );
    assert_eq!(
        egress_path("2001:db8::42", 80),
        "/.well-known/masque/tcp/2001%3Adb8%3A%3A42/80/"
    );
    assert_eq!(service_path("cache:main"), "/relay/v1/cache%3Amain");
    assert_eq!(listener_path("plugin"), "/relay/v1/listeners/plugin");
}

#[test]
fn good_paths() {
    let table = [
        ("/relay/v1/redis", service("redis")),
        ("/relay/v1/cache:main", service("cache:main")),
        ("/relay/v1/listeners", service("listeners")),
        ("/relay/v1/listeners/plugin", listener("plugin")),
        ("/relay/v1/cache%3amain", service("cache:main")),
        (
            "/.well-known/masque/tcp/192.0.2.1/65535/",
            egress("192.0.2.1", 65535),
        ),
        ("/.well-known/masque/tcp/%61.test/1/", egress("a.test", 1)),
        (
            "/.well-known/masque/tcp/2001%3adb8%3a%3a1/22/",
            egress("2001:db8::1", 22),
        ),
    ];
    for (path, wanted) in table {
        assert_eq!(Handshake::parse(path), Ok(wanted), "{path}");
    }
}

#[test]
fn bad_paths() {
    use PathError::{Port, Unknown, Variable};
    let table = [
        ("/", Unknown),
        ("/relay/v2/redis", Unknown),
        ("/relay/v1", Unknown),
        ("/relay/v1/", Variable),
        ("/relay/v1/a/b", Variable),
        ("/relay/v1/listeners/", Variable),
        ("/relay/v1/listeners/a/b", Variable),
        ("/relay/v1/listeners/a?x", Variable),
        ("/relay/v1/a/", Variable),
        ("/relay/v1/a?token=x", Variable),
        ("/relay/v1/%2e%2e%2fetc", Variable),
        ("/relay/v1/a%00", Variable),
        ("/relay/v1/a%2", Variable),
        ("/relay/v1/a%zz", Variable),
        ("/relay/v1/a%2561", Variable),
        ("/relay/v1/b\u{fc}cher", Variable),
        ("/.well-known/masque/tcp/a.test/443", Variable),
        ("/.well-known/masque/tcp/a.test/", Variable),
        ("/.well-known/masque/tcp//443/", Variable),
        ("/.well-known/masque/tcp/u@a.test/443/", Variable),
        ("/.well-known/masque/tcp/a.test/443/x/", Variable),
        ("/.well-known/masque/tcp/a.test/0/", Port),
        ("/.well-known/masque/tcp/a.test/0443/", Port),
        ("/.well-known/masque/tcp/a.test/+443/", Port),
        ("/.well-known/masque/tcp/a.test/65536/", Port),
        ("/.well-known/masque/tcp/a.test/https/", Port),
    ];
    for (path, wanted) in table {
        assert_eq!(Handshake::parse(path), Err(wanted), "{path}");
    }
}

proptest! {
    #[test]
    fn what_is_built_is_parsed(host in "[a-z0-9._:-]{1,200}", port in 1u16.., name in "[a-z0-9][a-z0-9._:-]{0,60}") {
        prop_assert_eq!(Handshake::parse(&egress_path(&host, port)).unwrap(), egress(&host, port));
        prop_assert_eq!(Handshake::parse(&service_path(&name)).unwrap(), service(&name));
        prop_assert_eq!(asked_name(&name_path(&host)).unwrap().unwrap(), host);
    }

    #[test]
    fn no_path_panics(path in ".{0,80}") {
        let _ = Handshake::parse(&path);
        let _ = Handshake::parse(&format!("/relay/v1/{path}"));
        let _ = asked_name(&format!("/egress/v1/names/{path}"));
        let _ = Handshake::parse(&format!("/.well-known/masque/tcp/{path}/1/"));
    }
}
