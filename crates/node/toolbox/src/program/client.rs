//! Clients that show what was exchanged and how long it took.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::small::write_out;
use super::{Answer, dns};

/// How long a server has to take a connection.
pub const TIMEOUT: Duration = Duration::from_secs(5);
const USAGE: &str = "usage: client http URL | tcp HOST:PORT [TEXT] | udp HOST:PORT [TEXT]";
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// `client http URL | tcp HOST:PORT [TEXT] | udp HOST:PORT [TEXT]`
pub fn run(arguments: &[String]) -> Answer {
    let text = |at: usize| arguments.get(at).map(String::as_str);
    let target = text(1).ok_or(USAGE)?;
    let payload = text(2).unwrap_or("hello from the toolbox");
    let start = Instant::now();
    let (peer, answer) = match text(0) {
        Some("http") => {
            let (peer, answer) = http(target, TIMEOUT)?;
            (peer, [answer.head.as_bytes(), b"\n", &answer.body].concat())
        }
        Some("tcp") => tcp(target, payload)?,
        Some("udp") => udp(target, payload)?,
        _ => return Err(USAGE.to_owned()),
    };
    let took = start.elapsed().as_micros() as f64 / 1000.0;
    eprintln!("{} bytes from {peer} in {took:.1} ms", answer.len());
    write_out(&answer)?;
    Ok(0)
}

/// `get [-q] [-O FILE] [-T SECONDS] [--spider] URL`: the body only, fails unless the status is 2xx. Unlike wget's, the
/// body goes to standard output unless told otherwise.
pub fn get(arguments: &[String]) -> Answer {
    let (mut url, mut file, mut patience, mut silent) = (None, "-".to_owned(), TIMEOUT, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| format!("{argument} wants a value"));
        let seconds =
            |text: &str| text.parse().map(Duration::from_secs).map_err(|_| format!("{text:?} is no time"));
        match argument.as_str() {
            "-q" | "-S" | "-c" | "--quiet" => {}
            "-O" | "-qO" => file = value()?,
            "-T" => patience = seconds(&value()?)?.max(Duration::from_secs(1)),
            "-t" => drop(value()?),
            "--spider" => silent = true,
            text if text.starts_with("-qO") => file = text[3..].to_owned(),
            text if text.starts_with("-O") => file = text[2..].to_owned(),
            text if text.starts_with("--timeout=") => {
                patience = seconds(&text[10..])?.max(Duration::from_secs(1))
            }
            option if option.starts_with('-') => return Err(format!("unknown option {option:?}")),
            text => url = Some(text.to_owned()),
        }
    }
    let (_, answer) = http(&url.ok_or("usage: get URL")?, patience)?;
    match file.as_str() {
        _ if silent => {}
        "-" => drop(write_out(&answer.body)?),
        name => std::fs::write(name, &answer.body).map_err(|e| format!("{name}: {e}"))?,
    }
    let status: u16 = answer.head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    if (200..300).contains(&status) { Ok(0) } else { Err(format!("server answered {status}")) }
}

struct HttpAnswer {
    head: String,
    body: Vec<u8>,
}

fn http(url: &str, patience: Duration) -> Result<(SocketAddr, HttpAnswer), String> {
    if url.starts_with("https://") {
        return Err("https is not supported: use http".to_owned());
    }
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.find('/').map_or((rest, "/"), |i| rest.split_at(i));
    let mut stream = connect(host, 80, patience)?;
    let peer = stream.peer_addr().map_err(text)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: xebec-toolbox\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut bytes).map_err(text)?;
    let end =
        bytes.windows(4).position(|w| w == b"\r\n\r\n").ok_or("answer without an end of its headers")?;
    let head = String::from_utf8_lossy(&bytes[..end]).replace('\r', "") + "\n";
    let body = bytes.split_off(end + 4);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { dechunk(&body).ok_or("malformed chunks")? } else { body };
    Ok((peer, HttpAnswer { head, body }))
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        let start = end + 2;
        body.extend(rest.get(start..start.checked_add(size)?)?);
        rest = rest.get(start + size + 2..)?;
    }
}

fn tcp(target: &str, payload: &str) -> Result<(SocketAddr, Vec<u8>), String> {
    let mut stream = connect(target, 0, TIMEOUT)?;
    let peer = stream.peer_addr().map_err(text)?;
    stream.write_all(payload.as_bytes()).map_err(text)?;
    stream.shutdown(std::net::Shutdown::Write).map_err(text)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).map_err(text)?;
    if answer.is_empty() { Err(format!("{peer} closed without a byte")) } else { Ok((peer, answer)) }
}

/// A socket for datagrams to `HOST:PORT`.
pub fn udp_socket(target: &str) -> Result<UdpSocket, String> {
    let peer = *addresses(target, 0)?.first().ok_or("no address")?;
    let any = if peer.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).map_err(text)?;
    socket.connect(peer).map_err(text)?;
    Ok(socket)
}

fn udp(target: &str, payload: &str) -> Result<(SocketAddr, Vec<u8>), String> {
    let socket = udp_socket(target)?;
    let peer = socket.peer_addr().map_err(text)?;
    socket.set_read_timeout(Some(TIMEOUT)).map_err(text)?;
    socket.send(payload.as_bytes()).map_err(text)?;
    let mut buffer = vec![0; 65536];
    let n = socket.recv(&mut buffer).map_err(|e| format!("{peer}: no answer: {e}"))?;
    buffer.truncate(n);
    Ok((peer, buffer))
}

fn connect(target: &str, default_port: u16, patience: Duration) -> Result<TcpStream, String> {
    let stream = connect_within(target, default_port, patience)?;
    stream.set_read_timeout(Some(4 * patience)).map_err(text)?;
    Ok(stream)
}

/// Connects to `HOST:PORT`, trying one address after the other.
pub fn connect_within(target: &str, default_port: u16, patience: Duration) -> Result<TcpStream, String> {
    let mut last = format!("{target}: no address");
    for address in addresses(target, default_port)? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

fn addresses(target: &str, default_port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = target.parse() {
        return Ok(vec![address]);
    }
    let (host, port) = match target.rsplit_once(':').filter(|(h, _)| !h.contains(':') || h.ends_with(']')) {
        Some((host, port)) => (host, port.parse().map_err(|_| format!("{port:?} is no port"))?),
        None if default_port > 0 => (target, default_port),
        None => return Err(format!("{target:?} has no port")),
    };
    Ok(dns::resolve(host)?.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(dechunk(b"3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n").unwrap(), b"abcde");
        assert!(dechunk(b"ffffffffffffffff\r\nabc").is_none());
        assert!(dechunk(b"3\r\nab").is_none());
    }

    #[test]
    fn targets_have_ports() {
        assert_eq!(addresses("[::1]:80", 0).unwrap(), ["[::1]:80".parse().unwrap()]);
        assert_eq!(addresses("10.0.0.1", 80).unwrap(), ["10.0.0.1:80".parse().unwrap()]);
        assert!(addresses("10.0.0.1", 0).is_err());
    }
}
