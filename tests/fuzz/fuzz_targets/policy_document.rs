//! A document without faults compiles or says why, and reads back from its canonical form.
#![no_main]
use sluicegate_policy::{Ceiling, GrantDocument, text};

libfuzzer_sys::fuzz_target!(|source: &str| {
    let mut faults = text::Faults::default();
    let document = GrantDocument::read(&text::parse(source, &mut faults), &mut faults);
    let sound = faults.is_clean();
    let again = GrantDocument::read(&text::parse(&document.to_json(), &mut faults), &mut faults);
    assert!(
        !sound
            || (again == document
                && (document.compile(&Ceiling::local(), &mut faults).is_some()
                    || !faults.is_clean()))
    );
});
