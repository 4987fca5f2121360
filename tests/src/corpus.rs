//! Inputs that stand beside the repository and are not part of it.

use std::path::{Path, PathBuf};

/// A folder of `../shared/corpora` without which a test is no proof: absent, it is an error everywhere.
pub fn needed(name: &str) -> PathBuf {
    let folder = place(name);
    assert!(
        folder.is_dir(),
        "the corpus {} is missing",
        folder.display()
    );
    folder
}

fn place(name: &str) -> PathBuf {
    let corpora = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpora");
    Path::new(corpora).join(name)
}

/// A folder of `../shared/corpora`. Absent, it is an error where `CI=true`; elsewhere a notice, and `None`.
pub fn folder(name: &str) -> Option<PathBuf> {
    let folder = place(name);
    if folder.is_dir() {
        return Some(folder);
    }
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(
        !ci,
        "the corpus {} is missing, and CI skips nothing",
        folder.display()
    );
    eprintln!(
        "NOTICE: the corpus {} is missing: this test checked nothing",
        folder.display()
    );
    None
}
