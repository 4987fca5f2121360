#![allow(clippy::unwrap_used)]
use super::{ConfigError, Exposed, Listen, Settings, default_directory};
use std::{io::Write, path::Path};

fn bundle(name: &str) -> Option<String> {
    let value = match name {
        "SLUICEGATE_RELAY_URL" => "https://gateway.test:8443",
        "SLUICEGATE_RELAY_TOKEN" => "secret-token",
        "SLUICEGATE_SERVICES" => "redis, cache:main",
        "SLUICEGATE_CA_FILE" => "",
        _ => return None,
    };
    Some(value.into())
}

#[test]
fn the_env_bundle_is_enough() {
    let config = Settings::from_env(bundle)
        .settle(Path::new("/run/s"))
        .unwrap();
    assert_eq!(
        (config.endpoint.to_string().as_str(), config.token.as_str()),
        ("https://gateway.test:8443", "secret-token")
    );
    assert_eq!(config.ca_file, None, "an empty variable is an absent one");
    let places: Vec<_> = config
        .listen
        .iter()
        .map(|l| format!("{} {}", l.service, l.address))
        .collect();
    assert_eq!(
        places,
        [
            "redis unix:///run/s/redis.sock",
            "cache:main unix:///run/s/cache:main.sock"
        ]
    );
    assert_eq!(config.directory.as_deref(), Some(Path::new("/run/s")));
}

#[test]
fn flags_win_over_the_file_over_the_environment() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(
        file,
        r#"{{"url": "https://file.test", "listen": ["redis=tcp://127.0.0.1:0"]}}"#
    )
    .unwrap();
    let flags = Settings {
        url: Some("https://flag.test".into()),
        ..Settings::default()
    };
    let settings = flags
        .over(Settings::read(file.path()).unwrap())
        .over(Settings::from_env(bundle));
    let config = settings.settle(Path::new("/")).unwrap();
    assert_eq!(config.endpoint.to_string(), "https://flag.test:443");
    assert_eq!((config.listen.len(), config.directory), (1, None));
    assert_eq!(config.token, "secret-token");
}

#[test]
fn a_token_file_given_by_flag_wins_over_the_environments_token() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "from-file").unwrap();
    let flags = Settings {
        token_file: Some(file.path().into()),
        ..Settings::default()
    };
    assert_eq!(
        flags
            .over(Settings::from_env(bundle))
            .settle(Path::new("/"))
            .unwrap()
            .token,
        "from-file"
    );
}

#[test]
fn what_is_missing_is_named() {
    let settle = |change: fn(&mut Settings)| {
        let mut settings = Settings::from_env(bundle);
        change(&mut settings);
        settings
            .settle(Path::new("/run/s"))
            .map(|_| ())
            .unwrap_err()
    };
    assert!(matches!(settle(|s| s.url = None), ConfigError::NoUrl));
    assert!(matches!(settle(|s| s.token = None), ConfigError::NoToken));
    assert!(matches!(
        settle(|s| s.services.clear()),
        ConfigError::NoServices
    ));
    assert!(matches!(
        settle(|s| s.listen = vec!["redis".into()]),
        ConfigError::Listen(_)
    ));
    assert!(matches!(
        settle(|s| s.listen = vec!["r=tcp://0.0.0.0:1".into()]),
        ConfigError::Listen(_)
    ));
    assert!(matches!(
        settle(|s| s.listen = vec!["r=unix:///a".into(), "q=unix:///a".into()]),
        ConfigError::Twice(_)
    ));
    for wrong in [
        "plugin",
        "p=tcp://127.0.0.1:0",
        "p=tcp://10.0.0.1:1",
        "a:b=unix:///s",
        "P=unix:///s",
    ] {
        let mut settings = Settings::from_env(bundle);
        settings.expose = vec![wrong.into()];
        let error = settings.settle(Path::new("/run/s")).unwrap_err();
        assert!(matches!(error, ConfigError::Expose(_)), "{wrong}: {error}");
    }
    assert!(matches!(
        settle(|s| s.expose = vec!["p=unix:///a".into(), "p=unix:///b".into()]),
        ConfigError::ExposedTwice(_)
    ));
}

#[test]
fn what_serves_everybody_is_known() {
    let mut settings = Settings::from_env(bundle);
    settings.listen = vec!["a=unix:///a".into(), "b=tcp://127.0.0.1:1".into()];
    let open = |settings: &Settings| {
        let config = settings.clone().settle(Path::new("/run/s")).unwrap();
        let open = config.open_to_all().into_iter().map(ToString::to_string);
        open.collect::<Vec<_>>()
    };
    assert_eq!(open(&settings), [""; 0]);
    settings.any_uid = true;
    assert_eq!(
        open(&settings),
        ["tcp://127.0.0.1:1"],
        "a unix socket has its mode"
    );
}

#[test]
fn what_cannot_be_a_token_is_a_fault_at_once() {
    let mut settings = Settings::from_env(bundle);
    settings.token = Some("abc def".into());
    let error = settings.settle(Path::new("/run/s")).unwrap_err();
    assert!(
        error.to_string().contains("SLUICEGATE_RELAY_TOKEN"),
        "{error}"
    );

    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "abc\ndef").unwrap();
    let given = |change: fn(&mut Settings, &Path)| {
        let mut settings = Settings {
            proxy: Some("127.0.0.1:0".into()),
            ..Settings::default()
        };
        change(&mut settings, file.path());
        let settings = settings.over(Settings::from_env(bundle));
        settings
            .settle(Path::new("/run/s"))
            .unwrap_err()
            .to_string()
    };
    for error in [
        given(|settings, path| settings.token_file = Some(path.into())),
        given(|settings, path| settings.proxy_token_file = Some(path.into())),
    ] {
        let named = error.contains(&*file.path().to_string_lossy());
        assert!(named && !error.contains("abc"), "{error}");
    }
}

#[test]
fn what_is_exposed_comes_by_flag_file_or_environment() {
    let from_env = Settings::from_env(|name| match name {
        "SLUICEGATE_EXPOSE" => Some("plugin=unix:///run/p.sock, db=tcp://localhost:5432".into()),
        "SLUICEGATE_SERVICES" => None,
        name => bundle(name),
    });
    let config = from_env.clone().settle(Path::new("/run/s")).unwrap();
    let told = |config: &super::Config| -> Vec<String> {
        let exposed = config.expose.iter();
        exposed
            .map(|e| format!("{}={}", e.listener, e.address))
            .collect()
    };
    assert_eq!(
        told(&config),
        ["plugin=unix:///run/p.sock", "db=tcp://127.0.0.1:5432"]
    );
    assert!(config.listen.is_empty(), "listeners alone are enough");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, r#"{{"expose": ["web=tcp://127.0.0.1:80"]}}"#).unwrap();
    let config = Settings::read(file.path())
        .unwrap()
        .over(from_env)
        .settle(Path::new("/run/s"))
        .unwrap();
    assert_eq!(told(&config), ["web=tcp://127.0.0.1:80"]);
}

#[test]
fn a_bad_file_says_where() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "{{\n \"token\": \"x\"}}").unwrap();
    let error = Settings::read(file.path()).unwrap_err().to_string();
    assert!(
        error.contains("unknown field `token`") && error.contains("line 2"),
        "{error}"
    );
}

#[test]
fn a_name_cannot_leave_the_directory() {
    let mut settings = Settings::from_env(bundle);
    settings.services = vec!["../../etc/passwd".into(), "..".into()];
    for listen in settings.settle(Path::new("/run/s")).unwrap().listen {
        let text = listen.address.to_string();
        assert!(
            text.starts_with("unix:///run/s/") && !text.contains("/.."),
            "{text}"
        );
    }
    assert_eq!(
        default_directory(|_| Some("/run/user/1".into())),
        Path::new("/run/user/1/sluicegate")
    );
}

#[test]
fn nothing_prints_the_token() {
    let settings = Settings::from_env(bundle);
    let shown = format!(
        "{settings:?} {:?}",
        settings.clone().settle(Path::new("/")).unwrap()
    );
    assert!(!shown.contains("secret-token"), "{shown}");
}

#[test]
fn the_proxy_has_a_place_and_a_credential_of_its_own() {
    let environment = |name: &str| match name {
        "SLUICEGATE_SERVICES" => None,
        "SLUICEGATE_PROXY_TOKEN" => Some("egress-token\n".to_owned()),
        other => bundle(other),
    };
    let settle = |proxy: &str| {
        let flags = Settings {
            proxy: Some(proxy.into()),
            ..Settings::default()
        };
        flags
            .over(Settings::from_env(environment))
            .settle(Path::new("/run/s"))
    };
    for (given, address) in [
        ("127.0.0.1:3128", "tcp://127.0.0.1:3128"),
        ("tcp://[::1]:0", "tcp://[::1]:0"),
        ("unix:///run/proxy.sock", "unix:///run/proxy.sock"),
    ] {
        let config = settle(given).unwrap();
        assert!(config.listen.is_empty(), "no services is no fault then");
        let proxy = config.proxy.unwrap();
        assert_eq!(proxy.address.to_string(), address);
        assert_eq!(proxy.token, "egress-token");
        assert_eq!(proxy.token_file, None);
        assert_eq!((config.any_uid, config.directory), (false, None));
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "from-file").unwrap();
    let flags = Settings {
        proxy: Some("127.0.0.1:3128".into()),
        proxy_token_file: Some(file.path().into()),
        ..Settings::default()
    };
    let config = flags.over(Settings::from_env(environment));
    let proxy = config.settle(Path::new("/run/s")).unwrap().proxy.unwrap();
    assert_eq!(proxy.token_file.as_deref(), Some(file.path()));
    let credential = proxy.credential();
    assert_eq!(&*credential.now(), "from-file");
    std::fs::write(file.path(), "next").unwrap();
    assert!(credential.reread());
    assert!(matches!(
        settle("0.0.0.0:3128"),
        Err(ConfigError::Listen(_))
    ));
    assert!(matches!(settle("3128"), Err(ConfigError::Listen(_))));
    let without = Settings {
        proxy: Some("127.0.0.1:3128".into()),
        ..Settings::from_env(bundle)
    };
    assert!(matches!(
        without.settle(Path::new("/")),
        Err(ConfigError::NoProxyToken)
    ));
}

#[test]
fn the_file_in_the_documents_is_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/relay.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("```json\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "{example}").unwrap();
    let settings = Settings::read(file.path()).unwrap();
    assert_eq!((settings.listen.len(), settings.expose.len()), (2, 1));
    for text in &settings.listen {
        assert!(Listen::parse(text).is_ok(), "{text}");
    }
    for text in &settings.expose {
        assert!(Exposed::parse(text).is_ok(), "{text}");
    }
    assert!(settings.proxy_token_file.is_some());
}
