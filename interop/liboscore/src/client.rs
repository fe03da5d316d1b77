//! Sends what standard input asks for and prints what comes back: the protocol of ../aiocoap/words.py.
use crate::datagram::*;
use crate::seal::{self, RequestId};
use crate::{hex, unhex, Res, Words};
use liboscore::PrimitiveContext;
use std::io::BufRead;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

const RETRANSMIT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(15);

struct Client<'a> {
    socket: UdpSocket,
    ctx: PrimitiveContext,
    arguments: &'a Words,
    mid: u16,
}

fn request(method: &str, w: &Words) -> Res<Content> {
    let code = ["GET", "POST", "PUT", "DELETE", "FETCH"].iter().position(|m| *m == method).ok_or("unknown method")?;
    let mut o: Options = vec![];
    if let Some(v) = w.get("if-match") { o.push((IF_MATCH, hex(v))); }
    if w.flag("if-none-match") { o.push((IF_NONE_MATCH, vec![])); }
    if w.flag("observe") { o.push((OBSERVE, vec![])); }
    let path = w.get("path").ok_or("path= is missing")?;
    o.extend(path.split('/').skip(1).map(|s| (URI_PATH, s.into())));
    if w.flag("format") { o.push((CONTENT_FORMAT, uint(w.number("format", 0) as u32))); }
    if let Some(v) = w.get("query") { o.push((URI_QUERY, v.into())); }
    if w.flag("accept") { o.push((ACCEPT, uint(w.number("accept", 0) as u32))); }
    Ok(Content::new(code as u8 + 1, o, &w.bytes("payload", "")))
}

fn show(kind: &str, c: &Content, sealed: bool) {
    let number = |v: &[u8]| v.iter().fold(0u32, |n, b| n << 8 | *b as u32);
    let mut line = format!("{kind} code={} sealed={sealed}", dotted(c.code));
    if let Some(v) = c.option(CONTENT_FORMAT) { line += &format!(" format={}", number(v)); }
    if let Some(v) = c.option(ETAG) { line += &format!(" etag={}", unhex(v)); }
    if let Some(v) = c.option(MAX_AGE) { line += &format!(" max-age={}", number(v)); }
    if let Some(v) = c.option(OBSERVE) { line += &format!(" observe={}", number(v)); }
    println!("{line} payload={}", unhex(&c.payload));
}

impl Client<'_> {
    fn send(&self, d: &Datagram) -> Res<()> {
        self.socket.send(&d.encode()).map(drop).map_err(|e| e.to_string())
    }

    /// The next message with q's token; q is sent again until its first answer (RFC 7252 section 4.2).
    fn answer(&self, q: &Datagram, mut resend: bool) -> Res<Datagram> {
        let (end, mut again) = (Instant::now() + PATIENCE, Instant::now() + RETRANSMIT);
        let mut buf = [0u8; 2048];
        while Instant::now() < end {
            self.socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(|e| e.to_string())?;
            if resend && Instant::now() >= again {
                self.send(q)?;
                again = Instant::now() + 2 * RETRANSMIT;
            }
            let Ok(n) = self.socket.recv(&mut buf) else { continue };
            let Ok(d) = Datagram::parse(&buf[..n]) else { continue };
            if d.typ == CON {
                self.send(&d.acknowledge())?;
            }
            if d.typ == ACK && d.mid == q.mid {
                resend = false;
            }
            if d.typ == 3 && d.mid == q.mid {
                return Err("reset".into());
            }
            if d.code != 0 && d.token == q.token {
                return Ok(d);
            }
        }
        Err("timeout".into())
    }

    fn next_mid(&mut self) -> u16 {
        self.mid = self.mid.wrapping_add(1);
        self.mid
    }

    fn sealed(&mut self, inner: &Content, token: &[u8]) -> Res<(Datagram, RequestId)> {
        let (code, mut tail, id) = seal::protect_request(&mut self.ctx, inner)?;
        if self.arguments.flag("kidctx") {
            tail = seal::add_kid_context(&tail, &self.arguments.bytes("idctx", ""))?;
        }
        Ok((Datagram { typ: CON, code, mid: self.next_mid(), token: token.to_vec(), tail }, id))
    }

    /// Prints one response; gives it back if it was sealed and verified.
    fn print(&mut self, kind: &str, id: &mut RequestId, d: &Datagram) -> Res<Option<Content>> {
        if d.oscore().is_none() {
            show(kind, &d.content(), false);
            return Ok(None);
        }
        let c = seal::unprotect_response(&mut self.ctx, id, d)?;
        show(kind, &c, true);
        Ok(Some(c))
    }

    fn command(&mut self, line: &str) -> Res<()> {
        let mut parts = line.split_whitespace();
        let method = parts.next().ok_or("empty command")?;
        let w = Words::new(parts)?;
        let mut inner = request(method, &w)?;
        let token = [0x6f, (self.mid >> 8) as u8, self.mid as u8];
        if w.flag("plain") {
            let q = Datagram { typ: CON, code: inner.code, mid: self.next_mid(), token: token.into(), tail: inner.tail()? };
            self.send(&q)?;
            show("ANSWER", &self.answer(&q, true)?.content(), false);
            return Ok(());
        }
        let (mut q, mut id) = self.sealed(&inner, &token)?;
        self.send(&q)?;
        let mut d = self.answer(&q, true)?;
        let mut first = None;
        if d.oscore().is_some() {
            let mut c = seal::unprotect_response(&mut self.ctx, &mut id, &d)?;
            if let (0x81, Some(echo)) = (c.code, c.option(ECHO)) {
                // RFC 9175 section 2.3: once more, with the Echo
                println!("CHALLENGED {}", unhex(echo));
                inner.options.push((ECHO, echo.to_vec()));
                (q, id) = self.sealed(&inner, &token)?;
                self.send(&q)?;
                d = self.answer(&q, true)?;
                c = seal::unprotect_response(&mut self.ctx, &mut id, &d)?;
            }
            show("ANSWER", &c, true);
            first = Some(c);
        } else {
            show("ANSWER", &d.content(), false);
        }
        if w.flag("replay") {
            q.mid = self.next_mid();
            self.send(&q)?;
            let d = self.answer(&q, true)?;
            show("REPLAY", &d.content(), d.oscore().is_some());
        }
        if first.is_some_and(|c| c.option(OBSERVE).is_some()) {
            let mut going = true;
            for _ in 0..w.number("observe", 0) {
                let d = self.answer(&q, false)?;
                going = self.print("NOTE", &mut id, &d)?.is_some_and(|c| c.option(OBSERVE).is_some());
                if !going {
                    break;
                }
            }
            if going {
                inner.options.iter_mut().filter(|o| o.0 == OBSERVE).for_each(|o| o.1 = vec![1]);
                let (q, mut id) = self.sealed(&inner, &token)?;
                self.send(&q)?;
                let d = self.answer(&q, true)?;
                self.print("CANCELLED", &mut id, &d)?;
            }
        }
        Ok(())
    }
}

pub fn run(address: &str, arguments: &Words) -> Res<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    socket.connect(address).map_err(|e| format!("{address}: {e}"))?;
    let mut client = Client { socket, ctx: seal::context(arguments, "", "01")?, arguments, mid: 0x5d1f };
    println!("READY");
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        if let Err(e) = client.command(&line) {
            println!("ERROR {e}");
        }
        println!("END");
    }
    Ok(())
}
