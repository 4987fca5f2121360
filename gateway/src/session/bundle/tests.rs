#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use std::collections::BTreeMap;

use super::*;
use crate::session::{
    RegistryConfig,
    testing::{Fixture, config, request},
};

async fn bundle(
    context: BundleContext,
    source: &str,
) -> (BTreeMap<String, String>, Vec<(String, String)>) {
    let f = Fixture::with(RegistryConfig {
        bundle: context,
        ..config()
    });
    let bundle = f
        .registry
        .create("local".into(), request(source))
        .await
        .unwrap()
        .bundle
        .unwrap();
    (bundle.env.into_iter().collect(), bundle.files)
}

const SERVICES: &str = "{services: {'cache:main': 'unix:///a', 'cache:side': 'unix:///b', my-db.v2: 'tcp://127.0.0.1:1'}}";

#[tokio::test]
async fn proxies_are_given_in_both_cases_with_one_handle() {
    let (env, files) = bundle(config().bundle, "{}").await;
    let proxy = &env["HTTP_PROXY"];
    assert!(
        proxy.starts_with("http://sluicegate:sgh_") && proxy.ends_with("@127.0.0.1:3128"),
        "{proxy}"
    );
    for name in [
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ] {
        assert_eq!(&env[name], proxy, "{name}");
    }
    assert_eq!(env["NO_PROXY"], "localhost,127.0.0.1,::1");
    assert_eq!(env["no_proxy"], env["NO_PROXY"]);
    assert_eq!(env["NODE_USE_ENV_PROXY"], "1");
    assert!(
        proxy.parse::<http::Uri>().is_ok(),
        "a handle needs no escaping"
    );
    assert!(files.is_empty());
    assert_ne!(
        env["SLUICEGATE_PROXY_TOKEN"], env["SLUICEGATE_RELAY_TOKEN"],
        "each credential has its own audience"
    );
    assert!(
        !env.contains_key("GESTALT_HOST_SERVICES"),
        "unset means any there: better nothing at all"
    );
}

#[tokio::test]
async fn without_a_plain_listener_the_proxy_is_the_public_url() {
    let (env, _) = bundle(
        BundleContext {
            plain_proxy: None,
            ..config().bundle
        },
        "{}",
    )
    .await;
    assert!(env["https_proxy"].starts_with("https://sluicegate:"));
    assert!(env["https_proxy"].ends_with("@gateway.test:8443"));
}

#[tokio::test]
async fn services_are_named_for_both_ecosystems() {
    let (env, _) = bundle(config().bundle, SERVICES).await;
    assert_eq!(env["SLUICEGATE_RELAY_URL"], "https://gateway.test:8443");
    assert_eq!(env["SLUICEGATE_SERVICES"], "cache:main,cache:side,my-db.v2");
    assert_eq!(
        env["GESTALT_HOST_SERVICE_SOCKET"],
        "tls://gateway.test:8443"
    );
    assert_eq!(
        env["GESTALT_HOST_SERVICES"], "cache,my-db.v2",
        "bare names, once each"
    );
    for name in ["CACHE_MAIN", "CACHE_SIDE", "MY_DB_V2"] {
        assert_eq!(
            env[&format!("GESTALT_{name}_SOCKET")],
            "tls://gateway.test:8443"
        );
        assert_ne!(
            env[&format!("GESTALT_{name}_TOKEN")],
            env["GESTALT_HOST_SERVICE_TOKEN"]
        );
    }
}

#[tokio::test]
async fn a_private_ca_comes_as_a_file_and_its_variables() {
    let ca = CaFiles {
        path: "/state/ca-bundle.pem".into(),
        bundle_pem: "ROOTS+CA".into(),
        ca_pem: "CA".into(),
    };
    let (env, files) = bundle(
        BundleContext {
            ca: Some(ca),
            ..config().bundle
        },
        "{}",
    )
    .await;
    assert_eq!(
        files,
        [("/state/ca-bundle.pem".to_owned(), "ROOTS+CA".to_owned())]
    );
    for name in [
        "SSL_CERT_FILE",
        "GIT_PROXY_SSL_CAINFO",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        "SLUICEGATE_CA_FILE",
    ] {
        assert_eq!(env[name], "/state/ca-bundle.pem", "{name}");
    }
    assert_eq!(env["UV_NATIVE_TLS"], "1");
    assert_eq!(env["GESTALT_HOST_SERVICE_TLS_CA_PEM"], "CA");
}

#[tokio::test]
async fn names_that_make_one_variable_give_it_to_the_first() {
    let (env, _) = bundle(
        config().bundle,
        "{services: {a-b: 'unix:///1', a.b: 'unix:///2'}}",
    )
    .await;
    assert!(env.contains_key("GESTALT_A_B_TOKEN"));
    assert_eq!(env["SLUICEGATE_SERVICES"], "a-b,a.b");
}

#[test]
fn a_public_url_is_a_scheme_a_host_and_a_port() {
    let parse = |text| PublicUrl::parse(text).map(|url| (url.http(), url.socket()));
    let both = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
    assert_eq!(
        parse("https://g.test"),
        both("https://g.test:443", "tls://g.test:443")
    );
    assert_eq!(
        parse("http://127.0.0.1:3128/"),
        both("http://127.0.0.1:3128", "tcp://127.0.0.1:3128")
    );
    assert_eq!(
        parse("https://[::1]:8443"),
        both("https://[::1]:8443", "tls://[::1]:8443")
    );
    for bad in [
        "g.test",
        "ftp://g.test",
        "https://u@g.test",
        "https://g.test/x",
        "https://g.test/?q",
        "",
    ] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}
