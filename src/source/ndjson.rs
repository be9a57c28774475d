//! NDJSON, one message a line, from a file or standard input: for backfills, and to try things out.
//!
//! Memory stays bounded whatever the input looks like: a batch ends at a number of lines or bytes, and
//! of a line that is too long only the beginning is kept. Nothing is remembered about how far a file
//! was read: reading it again is harmless, since every message has its id.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    sync::Mutex,
};

use super::{Arrival, Beside, Handle, KEPT_BYTES_MAX, Settlement, Source, SourceError};
use crate::event::Metadata;

/// Bytes of a batch, beside its number of lines.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes read ahead.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Lines of a file or stream.
#[derive(Debug)]
pub struct Ndjson<R> {
    ingress: String,
    batch_max: usize,
    lines: Mutex<Lines<R>>,
    bytes_read: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Lines<R> {
    input: BufReader<R>,
    number: u64,
    bytes_read: Arc<AtomicU64>,
}

/// One line, without what ends it.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    number: u64,
    kept: Vec<u8>,
    size: u64,
}

impl<R: AsyncRead> Ndjson<R> {
    /// The lines of `input`, which is known as `name`, in batches of up to `batch_max`.
    #[must_use]
    pub fn new(name: &str, input: R, batch_max: usize) -> Self {
        let input = BufReader::with_capacity(BUFFER_BYTES, input);
        let bytes_read = Arc::<AtomicU64>::default();
        let lines = Mutex::new(Lines { input, number: 0, bytes_read: Arc::clone(&bytes_read) });
        Self { ingress: format!("ndjson:{name}"), batch_max, lines, bytes_read }
    }

    /// How many bytes were read so far; goes on counting.
    #[must_use]
    pub fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes_read)
    }

    fn arrival(&self, line: Line) -> Arrival {
        Arrival {
            body: line.kept,
            size: line.size,
            beside: Beside::default(),
            metadata: Metadata { ingress: Some(self.ingress.clone()), ..Metadata::default() },
            place: format!("line {}", line.number),
            group: None,
            handle: Handle::default(),
        }
    }
}

impl<R: AsyncRead + Unpin + Send + std::fmt::Debug + 'static> Source for Ndjson<R> {
    fn ingress(&self) -> &str {
        &self.ingress
    }

    fn batch_max(&self) -> usize {
        self.batch_max
    }

    fn hidden_for(&self) -> Option<Duration> {
        None
    }

    async fn receive(&self) -> Result<Vec<Arrival>, SourceError> {
        let mut lines = self.lines.lock().await;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < self.batch_max && bytes < BATCH_BYTES_MAX {
            let Some(line) = lines.next().await? else { break };
            if line.kept.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            bytes += line.kept.len();
            batch.push(self.arrival(line));
            if lines.input.buffer().is_empty() {
                // Whoever writes into the pipe may take a while to write more.
                break;
            }
        }
        Ok(batch)
    }

    async fn keep(&self, _: &[Handle]) {}

    async fn settle(&self, _: Vec<(Handle, Settlement)>) {}
}

impl<R: AsyncRead + Unpin> Lines<R> {
    async fn next(&mut self) -> std::io::Result<Option<Line>> {
        let mut line = Line { number: self.number + 1, kept: Vec::new(), size: 0 };
        loop {
            let buffer = self.input.fill_buf().await?;
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            let room = KEPT_BYTES_MAX.saturating_sub(line.kept.len());
            line.kept.extend_from_slice(&part[..part.len().min(room)]);
            line.size += part.len() as u64;
            let (ended, used) = (buffer.is_empty(), part.len() + usize::from(end.is_some()));
            self.input.consume(used);
            self.bytes_read.fetch_add(used as u64, Ordering::Relaxed);
            if end.is_some() || ended {
                if ended && line.size == 0 {
                    return Ok(None);
                }
                self.number = line.number;
                return Ok(Some(line.trimmed()));
            }
        }
    }
}

impl Line {
    /// Without the carriage return of Windows, and without the byte order mark some editors write.
    fn trimmed(mut self) -> Self {
        if self.kept.len() as u64 == self.size && self.kept.last() == Some(&b'\r') {
            self.kept.pop();
            self.size -= 1;
        }
        if self.number == 1 && self.kept.starts_with(b"\xef\xbb\xbf") {
            self.kept.drain(..3);
            self.size -= 3;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn lines(input: &[u8], capacity: usize) -> Vec<(u64, Vec<u8>, u64)> {
        let input = BufReader::with_capacity(capacity, input);
        let mut lines = Lines { input, number: 0, bytes_read: Arc::default() };
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push((line.number, line.kept, line.size));
        }
        found
    }

    #[tokio::test]
    async fn lines_are_the_same_however_the_bytes_come() {
        let input = b"\xef\xbb\xbfone\r\n\n two\nlast without an end";
        let expected = [(1, &b"one"[..], 3), (2, b"", 0), (3, b" two", 4), (4, b"last without an end", 19)];
        let expected = expected.map(|(number, text, size)| (number, text.to_vec(), size));
        for capacity in [1, 2, 3, 7, 1024] {
            assert_eq!(lines(input, capacity).await, expected, "{capacity}");
        }
        assert_eq!(lines(b"", 8).await, []);
        assert_eq!(lines(b"\n", 8).await, [(1, vec![], 0)]);
    }

    #[tokio::test]
    async fn of_a_line_that_is_too_long_the_beginning_is_kept() {
        let mut input = vec![b'x'; KEPT_BYTES_MAX + 5];
        input.extend(b"\nnext");
        let found = lines(&input, 4096).await;
        assert_eq!((found[0].1.len(), found[0].2), (KEPT_BYTES_MAX, KEPT_BYTES_MAX as u64 + 5));
        assert_eq!(found[1], (2, b"next".to_vec(), 4));
    }

    #[tokio::test]
    async fn batches_end_by_lines_and_by_bytes() {
        let source = Ndjson::new("a.ndjson", &b"1\n\n2\n3\n"[..], 2);
        let first = source.receive().await.unwrap();
        assert_eq!(first.iter().map(|it| it.place.as_str()).collect::<Vec<_>>(), ["line 1", "line 3"]);
        assert_eq!(first[0].metadata.ingress.as_deref(), Some("ndjson:a.ndjson"));
        assert_eq!(source.receive().await.unwrap().len(), 1);
        assert_eq!(source.receive().await.unwrap(), []);
        assert_eq!(source.bytes_read().load(Ordering::Relaxed), 7);

        let mut line = vec![b'x'; KEPT_BYTES_MAX];
        line.push(b'\n');
        let input: &'static [u8] = line.repeat(10).leak();
        let source = Ndjson::new("long", input, 500);
        assert_eq!(source.receive().await.unwrap().len(), 8);
        assert_eq!(source.receive().await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn lines_are_handed_out_before_the_next_is_written() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let source = Ndjson::new("stdin", reader, 500);
        writer.write_all(b"1\n2\n").await.unwrap();
        assert_eq!(source.receive().await.unwrap().len(), 2);
        writer.write_all(b"3\n").await.unwrap();
        assert_eq!(source.receive().await.unwrap().len(), 1);
    }
}
