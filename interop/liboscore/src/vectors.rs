//! RFC 8613 Appendix C.4 to C.8, sealed and opened.
use crate::datagram::*;
use crate::seal::*;
use crate::{hex, unhex, Res, Words};

const C4: &str = "44025d1f00003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e";
const C5: &str = "440271c30000b932396c6f63616c686f737463091400ff4ed339a5a379b0b8bc731fffb0";
const C6: &str = "44022f8eef9bbf7a396c6f63616c686f73746b19140837cbf3210017a2d3ff72cd7273fd331ac45cffbe55c3";
const C7: &str = "64445d1f0000397490ffdbaad1e9a7e7b2a813d3c31524378303cdafae119106";
const C8: &str = "64445d1f00003974920100ff4d4c13669384b67354b2b6175ff4b8658c666a6cf88e";

fn check(name: &str, ok: bool, got: String) {
    println!("{} {name}: {got}", if ok { "PASS" } else { "FAIL" });
}

fn words(s: &str) -> Res<Words> {
    Words::new(s.split_whitespace())
}

pub fn run() -> Res<()> {
    let tv1 = Content::new(1, vec![(3, b"localhost".to_vec()), (URI_PATH, b"tv1".to_vec())], b"");
    for (name, arguments, sid, rid, mid, token, want) in [
        ("C.4", "seq=20", "", "01", 0x5d1f, "00003974", C4),
        ("C.5", "seq=20 salt=", "00", "01", 0x71c3, "0000b932", C5),
        ("C.6", "seq=20 idctx=37cbf3210017a2d3", "", "01", 0x2f8e, "ef9bbf7a", C6),
    ] {
        let w = words(arguments)?;
        let (code, mut tail, _) = protect_request(&mut context(&w, sid, rid)?, &tv1)?;
        if w.flag("idctx") {
            tail = add_kid_context(&tail, &w.bytes("idctx", ""))?;
        }
        let got = Datagram { typ: CON, code, mid, token: hex(token), tail }.encode();
        check(&format!("{name} sealed"), got == hex(want), unhex(&got));
        let opened = unprotect_request(&mut context(&w, rid, sid)?, &Datagram::parse(&hex(want))?).map_err(|e| e.1)?.1;
        check(&format!("{name} opened"), (opened.code, &opened.options) == (1, &tv1.options), dotted(opened.code));
    }
    let request = Datagram::parse(&hex(C4))?;
    let mut server = context(&words("")?, "01", "")?;
    let (mut server_id, _) = unprotect_request(&mut server, &request).map_err(|e| e.1)?;
    let mut client = context(&words("seq=20")?, "", "01")?;
    let mut client_id = protect_request(&mut client, &tv1)?.2;
    let hello = Content::new(CONTENT, vec![], b"Hello World!");
    for (name, want) in [("C.7", C7), ("C.8", C8)] {
        let tail = protect_response(&mut server, &mut server_id, &hello)?;
        let got = Datagram { typ: ACK, code: 0x44, tail, ..request.clone() }.encode();
        check(&format!("{name} sealed"), got == hex(want), unhex(&got));
        let opened = unprotect_response(&mut client, &mut client_id, &Datagram::parse(&hex(want))?)?;
        check(&format!("{name} opened"), (opened.code, &opened.payload) == (CONTENT, &hello.payload), dotted(opened.code));
    }
    let replayed = unprotect_request(&mut server, &request).map(drop);
    check("C.4 again", replayed == Err((0x81, "Replay detected".into())), format!("{replayed:?}"));
    Ok(())
}
