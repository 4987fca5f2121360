//! Whole conversations of real programs, with or without a gateway between: the same steps prove the harness
//! and test the product.

use std::path::Path;

use crate::origin::write_pattern;
use crate::program::{Program, tools};

/// git pushes a commit to `BASE/git/demo.git`, a repository below `root`, and clones it back.
///
/// `dress` gives each git its environment and a working directory, which is `directory`.
pub async fn git(base: &str, root: &Path, directory: &Path, dress: impl Fn(Program) -> Program) {
    let git = async |arguments: &[&str]| {
        let mut git = dress(Program::new("git").args(arguments));
        for role in ["AUTHOR", "COMMITTER"] {
            git = git.env(format!("GIT_{role}_NAME"), "e2e");
            git = git.env(format!("GIT_{role}_EMAIL"), "e2e@example.com");
        }
        let git = git
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        git.run().await.succeeded()
    };
    let bare = root.join("demo.git");
    let bare = bare.to_str().unwrap();
    git(&["init", "-q", "--bare", "-b", "main", bare]).await;
    git(&["-C", bare, "config", "http.receivepack", "true"]).await;
    git(&["init", "-q", "-b", "main", "seed"]).await;
    let mut content = Vec::new();
    write_pattern(2_000_000, &mut content).unwrap();
    std::fs::write(directory.join("seed/file"), &content).unwrap();
    git(&["-C", "seed", "add", "file"]).await;
    git(&["-C", "seed", "commit", "-q", "-m", "one"]).await;
    let url = format!("{base}/git/demo.git");
    git(&["-C", "seed", "push", "-q", &url, "main"]).await;
    git(&["clone", "-q", &url, "copy"]).await;
    let copy = std::fs::read(directory.join("copy/file")).unwrap();
    assert!(copy == content, "the clone has the pushed file");
}

/// pip downloads a wheel from the index `BASE/files/simple/`, made below `root`.
pub async fn pip(base: &str, root: &Path, directory: &Path, dress: impl Fn(Program) -> Program) {
    let make = Program::python("make_index.py").arg(root);
    make.run().await.succeeded();
    let index = format!("{base}/files/simple/");
    // --isolated ignores pip's own settings; the proxy and trust variables still count.
    let pip = Program::new(tools().join("venv/bin/python")).args(["-m", "pip", "download"]);
    let pip = pip.args([
        "--isolated",
        "--no-cache-dir",
        "--no-deps",
        "--disable-pip-version-check",
    ]);
    let pip = pip.args(["--retries", "0", "--dest", "out", "--index-url"]);
    let pip = pip.args([index.as_str(), "sluice-demo"]);
    dress(pip).run().await.succeeded();
    let name = "sluice_demo-1.0-py3-none-any.whl";
    let got = std::fs::read(directory.join("out").join(name)).unwrap();
    let sent = std::fs::read(root.join("simple/sluice-demo").join(name)).unwrap();
    assert!(got == sent, "the wheel arrived whole");
}
