//! Inputs that stand beside the repository and are not part of it.

use std::path::{Path, PathBuf};

/// A folder of `../shared/corpora`. Absent, it is an error where `CI=true`; elsewhere a notice, and `None`.
pub fn folder(name: &str) -> Option<PathBuf> {
    let corpora = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpora");
    let folder = Path::new(corpora).join(name);
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
