//! What `deploy/` has: manifests that a cluster would take, a unit that systemd would, and configurations that the gateway does.
//! The recipes themselves run in `tests/containers`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::{Path, PathBuf};

use e2e::Program;
use e2e::program::{binary, present, tools};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// The configuration inside a ConfigMap: what stands behind `sluicegate.yaml: |`, unindented.
fn configuration(manifest: &str) -> String {
    let inside = manifest.split_once("sluicegate.yaml: |\n").unwrap().1;
    let lines = inside.lines().map_while(|line| line.strip_prefix("    "));
    lines.fold(String::new(), |all, line| all + line + "\n")
}

#[tokio::test]
async fn manifests_are_what_kubernetes_takes() {
    let validate = present(&tools().join("venv/bin/kubernetes-validate"));
    let folder = deploy().join("kubernetes");
    for (file, resources) in [("gateway.yaml", 5), ("sandbox.yaml", 3)] {
        let program = Program::new(&validate).arg("--strict");
        let finished = program.arg(folder.join(file)).run().await;
        let said = format!("{}{}", finished.text(), finished.stderr);
        finished.succeeded();
        assert_eq!(said.matches(" passed ").count(), resources, "{said}");
    }
    // A validator that takes anything proves nothing.
    let broken = std::fs::read_to_string(folder.join("sandbox.yaml")).unwrap();
    let broken = broken.replace("policyTypes:", "policyKinds:");
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("broken.yaml");
    std::fs::write(&file, broken).unwrap();
    let program = Program::new(&validate).arg("--strict").arg(&file);
    assert_ne!(program.run().await.code, Some(0));
}

#[tokio::test]
async fn configurations_are_what_the_gateway_takes() {
    let scratch = tempfile::tempdir().unwrap();
    let manifest = std::fs::read_to_string(deploy().join("kubernetes/gateway.yaml")).unwrap();
    let inside = scratch.path().join("sluicegate.yaml");
    std::fs::write(&inside, configuration(&manifest)).unwrap();
    for file in [inside, deploy().join("docker/sluicegate.yaml")] {
        let check = Program::new(binary("sluicegate")).arg("check").arg(&file);
        check.run().await.succeeded();
    }
}

#[tokio::test]
async fn the_unit_is_what_systemd_takes() {
    let unit = std::fs::read_to_string(deploy().join("systemd/sluicegate.service")).unwrap();
    let installed = binary("sluicegate").display().to_string();
    let unit = unit.replace("/usr/local/bin/sluicegate", &installed);
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("sluicegate.service");
    for (text, taken) in [(unit.clone(), true), (unit.replace("NoNew", "Knew"), false)] {
        std::fs::write(&file, text).unwrap();
        let verify = Program::new("systemd-analyze").arg("verify").arg(&file);
        let finished = verify.run().await;
        // What it does not know it says, and goes on.
        let said = finished.stderr.clone();
        finished.succeeded();
        assert_eq!(said.is_empty(), taken, "{said}");
    }
}
