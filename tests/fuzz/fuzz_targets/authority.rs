//! What is taken for an authority is the same one when written out.
#![no_main]
use sluicegate_policy::Target;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(target) = Target::from_authority(text) {
        assert_eq!(Target::from_authority(&target.to_string()), Ok(target));
    }
});
