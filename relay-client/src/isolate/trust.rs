//! Certificates of authorities that programs are pointed to, where they lie in what is hidden: the gateway that made the
//! session may be on this same machine, and keeps them in its state directory.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use super::{control::Hidden, hidden::covers};
use crate::variables::CA_FILES;

/// Variables with the file's path that programs have of their own, beside a session's.
const OTHERS: [&str; 6] = [
    "CARGO_HTTP_CAINFO",
    "PIP_CERT",
    "NPM_CONFIG_CAFILE",
    "npm_config_cafile",
    "DENO_CERT",
    "NIX_SSL_CERT_FILE",
];
/// All the system's roots are a quarter of a megabyte; a plan holds a few such files.
const LONGEST: u64 = 1 << 20;

/// Paths below hidden directories, and what is to stand there.
pub(super) fn kept(
    hidden: &[Hidden],
    variable: impl Fn(&str) -> Option<String>,
) -> Vec<(PathBuf, String)> {
    let is_hidden = |path: &Path| {
        hidden.iter().any(|one| match one {
            Hidden::Directory(over) => covers(over, path),
            Hidden::File(_) => false,
        })
    };
    let mut files = BTreeMap::new();
    for path in CA_FILES.into_iter().chain(OTHERS).filter_map(variable) {
        for path in names(Path::new(&path)) {
            if is_hidden(&path)
                && !files.contains_key(&path)
                && let Some(text) = certificates(&path)
            {
                files.insert(path, text);
            }
        }
    }
    files.into_iter().collect()
}

/// The file, and the link that is the way to it: both may lie in what is hidden.
fn names(path: &Path) -> Vec<PathBuf> {
    let absolute = std::path::absolute(path).ok();
    let parent = absolute.as_deref().and_then(Path::parent);
    let parent = parent.and_then(|parent| fs::canonicalize(parent).ok());
    let link = parent
        .zip(path.file_name())
        .map(|(parent, name)| parent.join(name));
    link.into_iter()
        .chain(fs::canonicalize(path).ok())
        .collect()
}

/// The text, where it is certificates and no secret.
fn certificates(path: &Path) -> Option<String> {
    let file = fs::File::open(path).ok()?;
    file.metadata().ok().filter(fs::Metadata::is_file)?;
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    (text.contains("CERTIFICATE-----") && !text.contains("PRIVATE KEY-----")).then_some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, os::unix::fs::symlink};

    use super::{Hidden, kept};

    #[test]
    fn certificates_stay_where_programs_look_and_nothing_else_does() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("state/ca")).unwrap();
        let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
        for (file, text) in [
            ("state/ca/bundle.pem", pem.to_owned()),
            ("state/both.pem", format!("{pem}{key}")),
            ("state/token", "secret".to_owned()),
            ("own.pem", pem.to_owned()),
        ] {
            fs::write(root.join(file), text).unwrap();
        }
        symlink("ca/bundle.pem", root.join("state/link.pem")).unwrap();
        let hidden = [Hidden::Directory(root.join("state"))];
        let variable = |name: &str| {
            let file = match name {
                "SSL_CERT_FILE" | "CURL_CA_BUNDLE" => "state/link.pem",
                "GIT_SSL_CAINFO" => "state/both.pem",
                "PIP_CERT" => "state/token",
                "NODE_EXTRA_CA_CERTS" => "own.pem",
                "AWS_CA_BUNDLE" => "state/none.pem",
                _ => return None,
            };
            Some(root.join(file).display().to_string())
        };
        let expected = ["state/ca/bundle.pem", "state/link.pem"];
        let expected = expected.map(|file| (root.join(file), pem.to_owned()));
        assert_eq!(kept(&hidden, variable), expected);
        assert_eq!(kept(&[], variable), []);
    }
}
