//! HTTP/1.1 with little effort: a client that writes a request in one piece and reads the answer into a
//! buffer that is used again, so that the load costs the machine as little as it can.
//!
//! It understands what the service and the sink send, lengths but no chunks, and nothing else.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One connection that is kept alive, for one request at a time.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

/// The first part of a request or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Its bytes, with the empty line.
    pub(super) size: usize,
    /// The bytes that follow.
    pub(super) body: usize,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::new(), answer: Vec::new() })
    }

    /// Posts JSON; answers with the status and the body.
    pub(super) async fn post(&mut self, path: &str, body: &[u8]) -> io::Result<(u16, &[u8])> {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n"
        );
        self.request.clear();
        self.request.extend_from_slice(head.as_bytes());
        self.request.extend_from_slice(body);
        self.exchange().await
    }

    /// Gets; answers with the status and the body.
    pub(super) async fn get(&mut self, path: &str) -> io::Result<(u16, &[u8])> {
        self.request.clear();
        self.request.extend_from_slice(format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").as_bytes());
        self.exchange().await
    }

    async fn exchange(&mut self) -> io::Result<(u16, &[u8])> {
        self.stream.write_all(&self.request).await?;
        let head = read(&mut self.stream, &mut self.answer).await?;
        let head = head.ok_or_else(|| broken("the service closed the connection"))?;
        let status = self.answer.get(9..12).and_then(|it| std::str::from_utf8(it).ok());
        let status =
            status.and_then(|it| it.parse().ok()).ok_or_else(|| broken("the answer has no status"))?;
        Ok((status, &self.answer[head.size..head.size + head.body]))
    }
}

/// Reads one request or answer from the start of `buffer` on; none where the other side closed before it.
/// Nothing may follow it, since nobody here sends before the last answer came.
pub(super) async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Head>> {
    buffer.clear();
    loop {
        if let Some(head) = head(buffer)?
            && buffer.len() >= head.size + head.body
        {
            return Ok(Some(head));
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(broken("the connection broke off")) };
        }
    }
}

/// Where the head ends and how much follows; none while it is not whole.
fn head(buffer: &[u8]) -> io::Result<Option<Head>> {
    let Some(end) = buffer.windows(4).position(|it| it == b"\r\n\r\n") else { return Ok(None) };
    let mut body = 0;
    for line in buffer[..end].split(|&byte| byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"content-length") {
            let number = std::str::from_utf8(value).ok().and_then(|it| it.trim().parse().ok());
            body = number.ok_or_else(|| broken("the length is no number"))?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Err(broken("it came in chunks, which is not understood here"));
        }
    }
    Ok(Some(Head { size: end + 4, body }))
}

fn broken(problem: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_when_they_are_whole() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Some((38, 2))),
            ("POST / HTTP/1.1\r\ncontent-length:17\r\nhost: a\r\n\r\n", Some((47, 17))),
            ("HTTP/1.1 204 No Content\r\n\r\n", Some((27, 0))),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", None),
            ("", None),
        ] {
            let expected = expected.map(|(size, body)| Head { size, body });
            assert_eq!(head(text.as_bytes()).unwrap(), expected, "{text:?}");
        }
        assert!(head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(head(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n").is_err());
    }
}
