//! redb takes some of what damage can do for a mistake of its own, and panics: to us it is damage like any other.

use std::{
    cell::RefCell,
    io::{self, Write},
    mem,
    panic::{self, AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Once,
};

use crate::store::StoreError;

thread_local! {
    /// Where this thread's last panic was, while its panics are judged here; `None` while they are not.
    static JUDGED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What the work says; that the store is damaged where it panics, which nobody is told as a panic. Nothing the work has touched
/// may be used after that, but to be dropped.
pub(super) fn guarded<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    listen();
    let outer = JUDGED.replace(Some(String::new()));
    let done = catch_unwind(AssertUnwindSafe(work));
    let at = JUDGED.replace(outer).unwrap_or_default();
    done.unwrap_or_else(|panicked| {
        let words = panicked.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panicked.downcast_ref::<&str>().copied());
        let words = words.unwrap_or("no words");
        tracing::debug!(path = %path.display(), words, at, "pages that make no sense");
        let found = format!("its pages make no sense: {words}");
        Err(StoreError::Damaged {
            path: path.into(),
            source: Box::new(redb::Error::Corrupted(found)),
        })
    })
}

/// A panic that is judged is kept from whoever is told of panics, who would take it for the gateway's own. Not so one more before that is
/// caught: it comes from what the first leaves behind and ends the process, and these are its last words.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            // Of a thread that ends nothing is judged.
            let before = JUDGED.try_with(|judged| {
                let mut judged = judged.borrow_mut();
                let at = judged.as_mut()?;
                let here = panicked.location().map(ToString::to_string)?;
                Some(mem::replace(at, here))
            });
            match before {
                Ok(Some(before)) if before.is_empty() => {}
                Ok(Some(before)) => {
                    let _ = writeln!(io::stderr(), "after a panic at {before}:");
                    told(panicked);
                }
                Ok(None) | Err(_) => told(panicked),
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::{env, process::Command, thread};

    use rustix::process::{Resource, Rlimit, setrlimit};

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

    const CHILD: &str = "SLUICEGATE_TEST_GUARD";

    /// Did the test of this name end in order, in a process of its own, and what stood on its standard error?
    fn apart(name: &str) -> (bool, String) {
        let module = module_path!().split_once("::").unwrap().1;
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::{name}"), "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr).into_owned();
        (child.status.success(), said)
    }

    #[test]
    fn what_is_judged_is_not_told_as_a_panic_and_all_else_is() {
        if env::var_os(CHILD).is_some() {
            let work = || -> Result<(), StoreError> {
                guarded(Path::new("/inner"), || Ok(())).unwrap();
                panic!("of a page")
            };
            guarded(Path::new("/outer"), work).unwrap_err();
            thread::spawn(|| panic!("of a stranger"))
                .join()
                .unwrap_err();
            return;
        }
        let (in_order, said) = apart("what_is_judged_is_not_told_as_a_panic_and_all_else_is");
        assert!(in_order, "{said}");
        assert!(said.contains("of a stranger"), "{said}");
        assert!(!said.contains("of a page"), "{said}");
    }

    #[test]
    fn what_ends_the_process_is_told() {
        struct Left;
        impl Drop for Left {
            fn drop(&mut self) {
                panic!("of what is left")
            }
        }
        if env::var_os(CHILD).is_some() {
            let none = Rlimit {
                current: Some(0),
                maximum: Some(0),
            };
            setrlimit(Resource::Core, none).unwrap();
            let work = || -> Result<(), StoreError> {
                let _left = Left;
                panic!("of a page")
            };
            let _ = guarded(Path::new("/store"), work);
            return;
        }
        let (in_order, said) = apart("what_ends_the_process_is_told");
        assert!(!in_order, "{said}");
        assert!(said.contains("of what is left"), "{said}");
        assert!(said.contains("after a panic at "), "{said}");
    }
}
