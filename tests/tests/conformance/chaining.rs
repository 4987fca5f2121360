//! L. The operator's own proxy as the way out.

use e2e::{Answer, Forwarder};

use crate::forms::{FORMS, Form};
use crate::lab::{Lab, alone, settings};
use crate::sandbox::Expect::Denied;
use crate::sandbox::refusal_reason;
use crate::table::Front;

async fn behind(proxy: &Forwarder) -> Lab {
    let mut settings = settings();
    let address = proxy.address;
    // Everything of a lab is on loopback; the gateway's own probes would be asked for too.
    settings.more = format!(
        "upstreamProxy: {{url: \"http://{address}\", bypass: []}}\nprobe: {{interval: 0}}\n"
    );
    Lab::start(settings).await
}

#[test]
pub(crate) fn v140_addresses_are_judged_here() {
    alone(140, async |row| {
        let proxy = Forwarder::start().await;
        let lab = behind(&proxy).await;
        let target = lab.api_target();
        for answer in ["10.0.0.1", "169.254.169.254", "::1"] {
            let answers = Answer::Addresses(vec![answer.parse().unwrap()]);
            lab.dns.set("api.allowed.test", answers);
            let asked = proxy.asked();
            let expect = Denied(&["special_address", "metadata_address"]);
            lab.session
                .refused_once_resolved(&lab, row, &target, expect)
                .await;
            let kept = lab
                .plain_target()
                .replace("plain.allowed.test", "127.0.0.1");
            let since = proxy.asked().split_off(asked.len());
            assert!(since.iter().all(|one| *one == kept), "{answer}: {since:?}");
        }
        row.on(Front::Answer);
        lab.dns.point("api.allowed.test");
        lab.session
            .served(&lab, row, &target, &target, &lab.api)
            .await;
        // And what it is asked for is what was judged.
        let judged = format!("127.0.0.1:{}", lab.api.port());
        assert!(proxy.asked().contains(&judged), "{:?}", proxy.asked());
        assert!(!proxy.asked().contains(&target), "{:?}", proxy.asked());
    });
}

#[test]
pub(crate) fn v141_a_proxy_that_refuses() {
    alone(141, async |row| {
        let proxy = Forwarder::start().await;
        proxy.says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        let lab = behind(&proxy).await;
        let mark = lab.mark();
        let target = lab.api_target();
        // A kept connection would have to be served first.
        for form in FORMS.into_iter().filter(|form| *form != Form::ConnectKept) {
            if form == Form::Socks {
                let mut wire = lab.session.ready(&lab, form).await;
                wire.send(form.head(target.as_bytes(), &lab.session.credential()))
                    .await;
                let (answer, _) = wire.rest().await;
                assert_eq!(answer, [5, 2, 1, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
            } else {
                let (_, reply) = lab.session.reply(&lab, form, &target).await;
                let told = (reply.status(), refusal_reason(&reply));
                assert_eq!(told, (502, "upstream_proxy_refused".to_owned()), "{form:?}");
            }
            lab.nothing_dialled_since(&mark, "refused by the proxy");
            row.on(form.front());
        }
    });
}
