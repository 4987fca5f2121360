//! Bytes and signs.

use super::*;

#[test]
pub(crate) fn v003_empty_labels() {
    LAB.run(3, async |lab, row| {
        let hosts = [
            "api.allowed.test..",
            ".api.allowed.test",
            "api..allowed.test",
            ".",
            "..",
            "..a.wild.test",
        ];
        malformed(lab, row, hosts).await;
    });
}

#[test]
pub(crate) fn v004_a_name_in_brackets() {
    LAB.run(4, async |lab, row| {
        let hosts = [
            "[api.allowed.test]",
            "[api.allowed.test",
            "api.allowed.test]",
            "[]",
            "[127.0.0.1]",
            "[v1.x]",
        ];
        malformed(lab, row, hosts).await;
    });
}

#[test]
pub(crate) fn v005_userinfo_in_connect() {
    LAB.run(5, async |lab, row| {
        let port = lab.api.port();
        let authorities = [
            "api.allowed.test@evil.test:443".to_owned(),
            "evil.test:443@api.allowed.test".to_owned(),
            format!("evil.test:443@api.allowed.test:{port}"),
            format!("@api.allowed.test:{port}"),
            format!(":@api.allowed.test:{port}"),
        ];
        for authority in authorities {
            for form in CONNECTS {
                lab.session
                    .refused_by(lab, row, form, authority.as_bytes(), Malformed)
                    .await;
            }
        }
    });
}

#[test]
pub(crate) fn v006_userinfo_in_absolute_form() {
    LAB.run(6, async |lab, row| {
        let plain = lab.plain_target();
        for authority in [
            "api.allowed.test@evil.test".to_owned(),
            format!("user:pass@{plain}"),
            format!("@{plain}"),
        ] {
            for form in FORWARDS {
                lab.session
                    .refused_by(lab, row, form, authority.as_bytes(), Malformed)
                    .await;
            }
        }
    });
}

#[test]
pub(crate) fn v007_a_port_inside_the_name() {
    LAB.run(7, async |lab, row| {
        let port = lab.api.port();
        for authority in [
            "evil.test:443.allowed.test".to_owned(),
            format!("evil.test:443.allowed.test:{port}"),
        ] {
            lab.session.refused(lab, row, authority, Malformed).await;
        }
    });
}

#[test]
pub(crate) fn v008_control_and_high_bytes() {
    LAB.run(8, async |lab, row| {
        let controls = (0..=32).chain(127..=255);
        // One byte of each kind in the middle; at the ends those that parsers like to trim.
        let middle = controls.map(|byte| [b"api.all", &[byte][..], b"owed.test"].concat());
        let ends = [0, 9, 10, 11, 13, 32, 127, 160, 255].map(|byte| {
            let (first, last) = (
                [&[byte][..], b"api.allowed.test"],
                [b"api.allowed.test", &[byte][..]],
            );
            [first.concat(), last.concat()]
        });
        malformed(lab, row, middle.chain(ends.into_iter().flatten())).await;
    });
}

#[test]
pub(crate) fn v009_percent_is_never_decoded() {
    LAB.run(9, async |lab, row| {
        let hosts = [
            "api.allowed.test%00",
            "api%2eallowed%2etest",
            "%61pi.allowed.test",
            "%25",
            "api.allowed.test%25",
            "api.allowed.test%2e",
            "api.allowed.test%",
            "evil.test%2fapi.allowed.test",
            "%31%32%37.0.0.1",
        ];
        malformed(lab, row, hosts).await;
    });
}

#[test]
pub(crate) fn v015_delimiters_in_the_authority() {
    LAB.run(15, async |lab, row| {
        // A slash or question mark ends an absolute-form's authority, which then is another target: refused all the same.
        for delimiter in [
            "#", "?", "/", "\\", ";", ",", "&", "=", "!", "$", "'", "(", ")", "*", "+", "<", ">",
            "\"", "^", "`", "{", "|", "}", "~",
        ] {
            let port = lab.api.port();
            for host in [
                format!("api{delimiter}.allowed.test"),
                format!("evil.test{delimiter}.allowed.test"),
            ] {
                let authority = format!("{host}:{port}");
                for form in FORMS {
                    let expect = if form.tunnels() { Malformed } else { Refused };
                    lab.session
                        .refused_by(lab, row, form, authority.as_bytes(), expect)
                        .await;
                }
            }
        }
    });
}

#[test]
pub(crate) fn v019_numeric_last_label() {
    LAB.run(19, async |lab, row| {
        let hosts = [
            "allowed.0x7f",
            "1.2.3.08",
            "a.1",
            "a.0X7F",
            "a.0x",
            "api.allowed.test.1",
            "1.2.3.4.5",
            "256.256.256.256",
            "a.00",
        ];
        malformed(lab, row, hosts).await;
    });
}
