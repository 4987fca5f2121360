//! The way out where the network lets nothing else out: flags for what the configuration of `serve` has as `upstreamProxy`. Only who says so
//! goes by a proxy; whatever `HTTPS_PROXY` and its like name is not followed, and nothing is dialled beside the proxy that is named.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use sluicegate_policy::text::Fault;

use crate::config::{ProxyAsk, default_bypass};

/// What the proxy is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Ask {
    /// The address that was judged.
    Address,
    /// The name, for proxies with rules by name.
    Name,
}

/// The proxy, and what it takes to use it.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct UpstreamProxyArgs {
    /// Go out by this proxy, and never beside it: `http://HOST:PORT`, `https://HOST:PORT` or `socks5://HOST:PORT`. HTTPS_PROXY and
    /// its like are not followed.
    #[arg(long, value_name = "URL")]
    upstream_proxy: Option<String>,
    /// A file of mode 0600 with the `user:password` that the proxy wants; the command does not see it.
    #[arg(long, value_name = "FILE", requires = "upstream_proxy")]
    upstream_proxy_credential_file: Option<PathBuf>,
    /// PEM roots that an https proxy's certificate may chain to, beside the system's.
    #[arg(long, value_name = "FILE", requires = "upstream_proxy")]
    upstream_proxy_ca_file: Option<PathBuf>,
    /// What the proxy is asked for: the address that was judged (without this), or the name, which it resolves anew.
    #[arg(long, value_enum, value_name = "WHAT", requires = "upstream_proxy")]
    upstream_proxy_ask: Option<Ask>,
    /// A host or range that is dialled from here, as loopback is: `*.corp.example.com`, `10.0.0.0/8:*`.
    #[arg(long, value_name = "HOST[:PORT]", requires = "upstream_proxy")]
    upstream_proxy_bypass: Vec<String>,
}

impl UpstreamProxyArgs {
    /// As `upstreamProxy` of the configuration; `None` where there is no proxy.
    ///
    /// # Errors
    /// A path is relative, and there is no working directory.
    pub(super) fn document(&self) -> anyhow::Result<Option<Value>> {
        let Some(url) = &self.upstream_proxy else {
            return Ok(None);
        };
        let mut bypass = default_bypass();
        bypass.extend(self.upstream_proxy_bypass.iter().cloned());
        let mut proxy = Map::new();
        proxy.insert("url".into(), json!(url));
        proxy.insert("bypass".into(), json!(bypass));
        if let Some(ask) = self.upstream_proxy_ask {
            let ask = match ask {
                Ask::Address => ProxyAsk::Address,
                Ask::Name => ProxyAsk::Name,
            };
            proxy.insert("ask".into(), json!(ask.as_str()));
        }
        let files = [
            ("credentialFile", &self.upstream_proxy_credential_file),
            ("caFile", &self.upstream_proxy_ca_file),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                let path = std::path::absolute(file).context("--upstream-proxy")?;
                proxy.insert(key.into(), json!(path.display().to_string()));
            }
        }
        Ok(Some(proxy.into()))
    }

    /// A fault of what the flags were made into, as one of the flag that has it; `None` where it is of something else.
    pub(super) fn told(fault: &Fault) -> Option<String> {
        let key = fault.path.strip_prefix("upstreamProxy.")?;
        let key = key.split(['.', '[']).next().unwrap_or(key);
        let (flag, hint) = match key {
            "url" => {
                let instead = "put user:password into the file of --upstream-proxy-credential-file";
                ("--upstream-proxy", fault.hint.as_ref().map(|_| instead))
            }
            "credentialFile" => ("--upstream-proxy-credential-file", fault.hint.as_deref()),
            "caFile" => ("--upstream-proxy-ca-file", fault.hint.as_deref()),
            "ask" => ("--upstream-proxy-ask", fault.hint.as_deref()),
            "bypass" => ("--upstream-proxy-bypass", fault.hint.as_deref()),
            _ => return None,
        };
        let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
        Some(format!("{flag}: {}{hint}", fault.message))
    }

    /// The file of its credential, which is not for the command.
    pub(super) fn credential_file(&self) -> Option<&Path> {
        self.upstream_proxy_credential_file.as_deref()
    }

    /// The file of its roots.
    pub(super) fn ca_file(&self) -> Option<&Path> {
        self.upstream_proxy_ca_file.as_deref()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use clap::Parser;
    use serde_json::{Value, json};

    use super::UpstreamProxyArgs;
    use crate::config::Config;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        proxy: UpstreamProxyArgs,
    }

    fn document(flags: &[&str]) -> Option<Value> {
        let line = Line::try_parse_from([&["run"], flags].concat()).ok()?;
        line.proxy.document().unwrap()
    }

    #[test]
    fn flags_are_the_keys_of_the_configuration() {
        assert_eq!(document(&[]), None);
        // None of them means anything without the proxy.
        assert_eq!(document(&["--upstream-proxy-ask", "name"]), None);
        let url = ["--upstream-proxy", "http://proxy.corp.test:3128"];
        let loopback = ["127.0.0.0/8:*", "[::1]:*"];
        let expected = json!({"url": url[1], "bypass": loopback});
        assert_eq!(document(&url), Some(expected));
        let more = [
            "--upstream-proxy-ask=name",
            "--upstream-proxy-bypass=*.corp.test",
            "--upstream-proxy-bypass=10.0.0.0/8:*",
            "--upstream-proxy-credential-file=/c",
            "--upstream-proxy-ca-file=/a.pem",
        ];
        let expected = json!({
            "url": url[1],
            "bypass": [loopback[0], loopback[1], "*.corp.test", "10.0.0.0/8:*"],
            "ask": "name",
            "credentialFile": "/c",
            "caFile": "/a.pem",
        });
        assert_eq!(document(&[&url[..], &more].concat()), Some(expected));
    }

    #[test]
    fn a_fault_is_told_of_its_flag() {
        let told = |flags: &[&str]| -> Vec<String> {
            let source = json!({"upstreamProxy": document(flags).unwrap()}).to_string();
            let faults = Config::parse(&source).err().unwrap();
            let told = faults.errors.iter().map(UpstreamProxyArgs::told);
            told.map(Option::unwrap).collect()
        };
        let proxies = "expected http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT";
        assert_eq!(
            told(&["--upstream-proxy=proxy.test"]),
            [format!("--upstream-proxy: {proxies}, found \"proxy.test\"")]
        );
        assert_eq!(
            told(&["--upstream-proxy=http://u:p@proxy.test:3128"]),
            [
                "--upstream-proxy: a credential does not stand in a URL (put user:password into the file of --upstream-proxy-credential-file)"
            ]
        );
        let proxy = "--upstream-proxy=http://proxy.test";
        assert_eq!(
            told(&[proxy, "--upstream-proxy-ca-file=/a.pem"]),
            ["--upstream-proxy-ca-file: only an https proxy shows a certificate"]
        );
        let bypass = told(&[proxy, "--upstream-proxy-bypass=a.test:99999"]);
        assert_eq!(bypass.len(), 1, "{bypass:?}");
        assert!(
            bypass[0].starts_with("--upstream-proxy-bypass: "),
            "{bypass:?}"
        );
    }
}
