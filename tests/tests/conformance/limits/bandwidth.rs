//! Bandwidth: so many bytes take at least so long, whatever carries them and in however many pieces.

use super::*;

const RATE: usize = 200_000;

/// Whatever may go at once, and what is under way, is less than this part of a second's worth.
const AT_ONCE: usize = RATE / 4;

pub(super) async fn kept(lab: &Lab, row: &mut Row) {
    one_long_tunnel(lab).await;
    one_slow_tunnel(lab).await;
    many_short_ones(lab, row).await;
    side_by_side(lab).await;
}

async fn limited_to(lab: &Lab, name: &str, bandwidth: usize) -> (Sandbox, RawOrigin, String) {
    lab.dns.point(name);
    let origin = RawOrigin::start().await;
    let target = format!("{name}:{}", origin.address.port());
    let egress = json!({"allowedHosts": [target], "allowedAddresses": ["127.0.0.0/8"]});
    let grant = json!({"egress": egress, "limits": {"bandwidth": bandwidth}});
    (lab.sandbox(grant).await, origin, target)
}

fn held_to(what: &str, bytes: usize, took: Duration) {
    let floor = Duration::from_secs_f64((bytes - AT_ONCE) as f64 / RATE as f64);
    assert!(took >= floor, "{what}: {bytes} bytes in {took:?}");
}

async fn one_long_tunnel(lab: &Lab) {
    const BYTES: usize = 400_000;
    let (session, origin, target) = limited_to(lab, "paced.allowed.test", RATE).await;
    for up in [true, false] {
        let mut near = session.tunnel(&target).await;
        near.send("\x01").await;
        let mut far = origin.accept().await;
        far.read_exact(&mut [0]).await.unwrap();
        let start = Instant::now();
        let (mut from, mut to) = if up {
            (near.stream, far)
        } else {
            (far, near.stream)
        };
        let mut seen = vec![0; BYTES];
        let moved = async {
            let sent = async { from.write_all(&vec![1; BYTES]).await };
            tokio::try_join!(sent, to.read_exact(&mut seen)).unwrap();
        };
        within("the bytes", moved).await;
        held_to(&format!("up: {up}"), BYTES, start.elapsed());
    }
}

/// No buffer's worth goes ahead of a limit that is smaller, and none of it is forgotten later.
async fn one_slow_tunnel(lab: &Lab) {
    let (session, origin, target) = limited_to(lab, "slow.allowed.test", 100).await;
    for up in [true, false] {
        let near = session.tunnel(&target).await;
        let far = origin.accept().await;
        let (mut from, mut to) = if up {
            (near.stream, far)
        } else {
            (far, near.stream)
        };
        // What goes while this is written is counted too.
        let (start, mut seen) = (Instant::now(), 0);
        from.write_all(&[1; 100_000]).await.unwrap();
        let read = async {
            let mut buffer = [0; 4096];
            while seen < 100 || start.elapsed() < Duration::from_secs(3) {
                seen += to.read(&mut buffer).await.unwrap();
            }
        };
        within("three seconds' worth", read).await;
        // A second's worth may go at once, and what came last may have come a moment ago.
        let most = 210.0 + 100.0 * start.elapsed().as_secs_f64();
        assert!(seen as f64 <= most, "up: {up}: {seen} bytes of {most}");
    }
}

/// Each new tunnel is held to what the ones before it moved.
async fn many_short_ones(lab: &Lab, row: &mut Row) {
    const EACH: usize = 30_000;
    const TUNNELS: usize = 6;
    let (session, origin, target) = limited_to(lab, "short.allowed.test", RATE).await;
    for form in FORMS.into_iter().filter(|form| form.tunnels()) {
        for up in [true, false] {
            let start = Instant::now();
            for _ in 0..TUNNELS {
                let mut near = session.opened(lab, form, &target, b"").await;
                let moved = async {
                    if up {
                        near.send(vec![1; EACH]).await;
                        near.finish().await;
                        let mut far = origin.accept().await;
                        assert_eq!(drain(&mut far).await, (vec![1; EACH], End::Fin));
                    } else {
                        let mut far = origin.accept().await;
                        far.write_all(&[1; EACH]).await.unwrap();
                        far.shutdown().await.unwrap();
                        assert_eq!(near.take(EACH).await, vec![1; EACH]);
                    }
                };
                within("a short tunnel", moved).await;
            }
            let what = format!("{form:?}, up: {up}");
            held_to(&what, EACH * TUNNELS, start.elapsed());
        }
        row.on(form.front());
    }
}

/// Tunnels that are open at once share it.
async fn side_by_side(lab: &Lab) {
    const EACH: usize = 20_000;
    let (session, origin, target) = limited_to(lab, "crowd.allowed.test", RATE).await;
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        near.push(session.tunnel(&target).await);
        far.push(origin.accept().await);
    }
    let start = Instant::now();
    for stream in &mut far {
        stream.write_all(&[1; EACH]).await.unwrap();
    }
    for wire in &mut near {
        within("its share", wire.take(EACH)).await;
    }
    held_to("side by side", EACH * 12, start.elapsed());
}
