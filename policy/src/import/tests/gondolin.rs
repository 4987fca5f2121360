//! Gondolin.

use super::*;

#[test]
fn v148_gondolin() {
    let gondolin = |source| kept(System::Gondolin, source);
    assert_eq!(
        gondolin("{}"),
        json!({"defaultAction": "allow"}),
        "absent: everything"
    );
    assert_eq!(
        gondolin("allowedHosts: []"),
        json!({"allowedHosts": []}),
        "empty: nothing"
    );
    assert_eq!(
        gondolin(
            "allowedHosts: [Example.com, '*.Example.org', ' x.test ', '**.deep.test']\nblockInternalRanges: true\n"
        ),
        json!({"allowedHosts": ["example.com:*", "*.example.org:*", "x.test:*", "*.deep.test:*"]})
    );
    assert_eq!(
        gondolin("allowedHosts: [a.test, '*']"),
        json!({"defaultAction": "allow"})
    );
    for entry in [
        "api.*.net",
        "a**b.com",
        "*foo.com",
        "foo.*",
        "*.*.com",
        "a.test:443",
        "https://a.test",
        "",
        "a.test.",
        "*.com",
    ] {
        let found = refused(System::Gondolin, &format!("allowedHosts:\n  - {entry:?}\n"));
        assert_eq!(found.len(), 1, "{entry}: {found:?}");
        assert!(
            found[0].starts_with("2:5: allowedHosts[0]: ")
                && found[0].contains(&format!("{entry:?}")),
            "{found:?}"
        );
    }
    for source in [
        "allowedHosts:\n",
        "blockInternalRanges: false\n",
        "allowedHosts: []\nsecrets: {K: {hosts: [a.test]}}\n",
    ] {
        assert_eq!(refused(System::Gondolin, source).len(), 1, "{source}");
    }
}
