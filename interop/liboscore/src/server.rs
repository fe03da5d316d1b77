//! The resources of the OSCORE interop specification, without what needs block-wise transfer.
use crate::datagram::*;
use crate::seal::{self, RequestId};
use crate::{Res, Words};
use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const CHALLENGE: [u8; 8] = [0xec, 0x40, 0x5e, 0xed, 1, 2, 3, 4];
const NOTIFY_AFTER: Duration = Duration::from_millis(200);
const REMEMBERED: usize = 16;
const HELLO: &[u8] = b"Hello World!";

/// A notification to come.
struct Note {
    due: Instant,
    to: SocketAddr,
    token: Vec<u8>,
    id: RequestId,
    step: usize,
    ends: bool,
}

/// Answers one request, as code, options and payload.
fn resource(q: &Content) -> Content {
    let text = (CONTENT_FORMAT, vec![]);
    let path = q.path();
    match (q.code, path.as_str()) {
        (1, "/oscore/hello/coap" | "/oscore/hello/1") => Content::new(CONTENT, vec![text], HELLO),
        (1, "/oscore/hello/2") if q.option(URI_QUERY) == Some(b"first=1") => {
            Content::new(CONTENT, vec![(ETAG, vec![0x2b]), text], HELLO)
        }
        (1, "/oscore/hello/3") if q.option(ACCEPT) == Some(b"") => {
            Content::new(CONTENT, vec![text, (MAX_AGE, uint(5))], HELLO)
        }
        (2, "/oscore/hello/6") => Content::new(0x44, vec![text], &q.payload),
        (3, "/oscore/hello/7") if q.option(IF_NONE_MATCH).is_some() => Content::new(0x8c, vec![], b""),
        (3, "/oscore/hello/7") if q.option(IF_MATCH) == Some(&[0x7b]) => Content::new(0x44, vec![], b""),
        (4, "/oscore/test") => Content::new(0x42, vec![], b""),
        (1, "/oscore/observe1" | "/oscore/observe2") => Content::new(CONTENT, vec![text], b"one"),
        (1, "/oscore/hello/2" | "/oscore/hello/3") => Content::new(0x80, vec![], b"not as specified"),
        (_, p) if p.starts_with("/oscore/") => Content::new(0x85, vec![], b""),
        _ => Content::new(0x84, vec![], b""),
    }
}

fn note(n: &Note) -> Content {
    match n.step {
        2 => Content::new(CONTENT, vec![(OBSERVE, vec![2]), (CONTENT_FORMAT, vec![])], b"two"),
        _ => Content::new(0xa0, vec![(CONTENT_FORMAT, vec![])], b"Terminate Observe"),
    }
}

pub fn run(address: &str, w: &Words) -> Res<()> {
    let socket = UdpSocket::bind(address).map_err(|e| format!("{address}: {e}"))?;
    let mut ctx = seal::context(w, "01", "")?;
    let mut challenge = w.flag("echo");
    let mut answered: VecDeque<(SocketAddr, u16, Vec<u8>)> = VecDeque::new();
    let mut notes: Vec<Note> = vec![];
    let mut mid = 0x7000u16;
    let mut buf = [0u8; 2048];
    println!("READY");
    loop {
        let now = Instant::now();
        let (due, later): (Vec<Note>, Vec<Note>) = notes.into_iter().partition(|n| n.due <= now);
        notes = later;
        for mut n in due {
            mid = mid.wrapping_add(1);
            let inner = note(&n);
            let tail = seal::protect_response(&mut ctx, &mut n.id, &inner)?;
            let d = Datagram { typ: NON, code: CONTENT, mid, token: n.token.clone(), tail };
            socket.send_to(&d.encode(), n.to).map_err(|e| e.to_string())?;
            if n.ends && n.step == 2 {
                notes.push(Note { due: now + NOTIFY_AFTER, step: 3, ..n });
            }
        }
        let wait = notes.iter().map(|n| n.due - now).min();
        socket.set_read_timeout(wait.map(|d| d.max(Duration::from_millis(1)))).map_err(|e| e.to_string())?;
        let Ok((n, from)) = socket.recv_from(&mut buf) else { continue };
        let Ok(d) = Datagram::parse(&buf[..n]) else { continue };
        if d.code == 0 && d.typ == CON {
            let pong = Datagram { typ: 3, ..d.acknowledge() };
            socket.send_to(&pong.encode(), from).map_err(|e| e.to_string())?;
        }
        if d.code == 0 || d.code >> 5 != 0 {
            continue; // empty, or a response
        }
        if let Some((_, _, bytes)) = answered.iter().find(|a| (a.0, a.1) == (from, d.mid)) {
            socket.send_to(bytes, from).map_err(|e| e.to_string())?;
            continue; // RFC 7252 section 4.5: a duplicate gets the same answer
        }
        let mut r = Datagram { typ: if d.typ == CON { ACK } else { NON }, code: 0x44, tail: vec![], ..d.clone() };
        let mut observation = None;
        match seal::unprotect_request(&mut ctx, &d) {
            Err((0x81, _)) if d.oscore().is_none() && d.content().path() == "/oscore/hello/coap" => {
                println!("HANDLED GET /oscore/hello/coap sealed=false");
                let open = resource(&d.content());
                (r.code, r.tail) = (open.code, open.tail()?);
            }
            Err((code, text)) => {
                println!("REFUSED {} {text}", dotted(code));
                r.code = code;
                r.tail = Content::new(code, vec![(MAX_AGE, vec![])], text.as_bytes()).tail()?;
            }
            Ok((mut id, q)) => {
                if w.flag("piv") {
                    id.is_first_use = false;
                }
                let inner = if challenge && q.option(ECHO) != Some(&CHALLENGE) {
                    id.is_first_use = false; // B.1.2: not the request's nonce here
                    Content::new(0x81, vec![(ECHO, CHALLENGE.to_vec())], b"")
                } else if q.option(INVALID).is_some() {
                    challenge = false;
                    Content::new(0x82, vec![], b"option unknown to libOSCORE")
                } else {
                    challenge = false;
                    println!("HANDLED {} {} sealed=true", dotted(q.code), q.path());
                    let mut a = resource(&q);
                    if q.option(OBSERVE) == Some(b"") && q.path().contains("/observe") && a.code == CONTENT {
                        r.code = CONTENT;
                        a.options.insert(0, (OBSERVE, vec![1]));
                        observation = Some(q.path().ends_with('1'));
                    }
                    if q.option(OBSERVE) == Some(&[1]) {
                        notes.retain(|n| n.to != from || n.token != d.token);
                    }
                    a
                };
                r.tail = seal::protect_response(&mut ctx, &mut id, &inner)?;
                if let Some(ends) = observation {
                    let due = Instant::now() + NOTIFY_AFTER;
                    notes.push(Note { due, to: from, token: d.token.clone(), id, step: 2, ends });
                }
            }
        }
        let bytes = r.encode();
        socket.send_to(&bytes, from).map_err(|e| e.to_string())?;
        answered.push_back((from, d.mid, bytes));
        if answered.len() > REMEMBERED {
            answered.pop_front();
        }
    }
}
