//! redb takes some of what damage can do for a mistake of its own, and panics: to us it is damage like any other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use crate::store::StoreError;

/// What the work says; that the store is damaged where it panics. Nothing the work has touched may be used after that, but to
/// be dropped.
pub(super) fn guarded<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panicked| {
        let words = panicked.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panicked.downcast_ref::<&str>().copied());
        let found = format!("its pages make no sense: {}", words.unwrap_or("no words"));
        Err(StoreError::Damaged {
            path: path.into(),
            source: Box::new(redb::Error::Corrupted(found)),
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_panic_is_damage_and_says_its_words() {
        let path = Path::new("/s");
        assert_eq!(guarded(path, || Ok(7)).unwrap(), 7);
        let found = guarded(path, || -> Result<(), StoreError> { panic!("page {}", 3) });
        let Err(StoreError::Damaged { source, .. }) = found else {
            panic!("{found:?}")
        };
        assert!(source.to_string().contains("page 3"), "{source}");
    }
}
