//! Raw log bytes in, whole verified records out: for a secondary that receives the log in frames
//! of any size, and for a reader that loads it in blocks.

use crate::Cursor;
use crate::record::{self, Record, RecordError};

/// Collects raw log bytes that continue at a cursor and hands out whole records.
///
/// It holds at most one record beyond what was handed in and not taken out.
#[derive(Clone, Debug)]
pub struct RecordStream {
    at: Cursor,
    bytes: Vec<u8>,
    /// Bytes of `bytes` that were taken out already.
    taken: usize,
}

impl RecordStream {
    /// A stream whose next byte is that at `at`.
    pub const fn new(at: Cursor) -> Self {
        Self { at, bytes: Vec::new(), taken: 0 }
    }

    /// The cursor before the next record.
    pub const fn cursor(&self) -> Cursor {
        self.at
    }

    /// The position of the next raw byte to push.
    pub fn end(&self) -> crate::Lsn {
        self.at.lsn.plus(self.buffered() as u64)
    }

    /// Bytes pushed and not taken out.
    pub const fn buffered(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Adds the bytes that follow those pushed before.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole record; `None` when more bytes are needed.
    ///
    /// # Errors
    /// The bytes are not the record that belongs there; the stream is then of no further use.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, RecordError> {
        let bytes = &self.bytes[self.taken..];
        match record::decode(bytes, self.at) {
            Ok(record) => {
                self.taken += usize::try_from(record.end.lsn.since(record.lsn))
                    .expect("a record is below 4 GiB");
                self.at = record.end;
                Ok(Some(record))
            }
            Err(RecordError::Incomplete { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl RecordStream {
    /// The bytes of all whole records as their headers tell them, for whoever verifies their
    /// CRCs; empty when more bytes are needed.
    ///
    /// # Errors
    /// The bytes are not the records that belong there; the stream is then of no further use.
    pub fn take_whole(&mut self) -> Result<&[u8], RecordError> {
        let from = self.taken;
        loop {
            match record::decode_trusted(&self.bytes[self.taken..], self.at) {
                Ok(record) => {
                    self.taken += record::HEADER_LEN + record.body.len();
                    self.at = record.end;
                }
                Err(RecordError::Incomplete { .. }) => return Ok(&self.bytes[from..self.taken]),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lsn, ViewNum};

    #[test]
    fn records_come_out_whole_whatever_the_frames() {
        let (mut log, mut at) = (Vec::new(), Cursor::default());
        for len in [0_usize, 1, 100, 5000] {
            let body = vec![7; len];
            let (header, end) = record::encode(at, ViewNum(1), Lsn::ZERO, 9, &[&body]);
            log.extend_from_slice(&header);
            log.extend_from_slice(&body);
            at = end;
        }
        for size in [1, 31, 32, 33, 4096, 100_000] {
            let mut stream = RecordStream::new(Cursor::default());
            let mut bodies = Vec::new();
            for frame in log.chunks(size) {
                stream.push(frame);
                while let Some(record) = stream.next_record().unwrap() {
                    bodies.push(record.body.len());
                }
            }
            assert_eq!((bodies, stream.cursor()), (vec![0, 1, 100, 5000], at), "frames of {size}");
            assert_eq!(stream.buffered(), 0);

            let (mut stream, mut copy) = (RecordStream::new(Cursor::default()), Vec::new());
            for frame in log.chunks(size) {
                stream.push(frame);
                copy.extend_from_slice(stream.take_whole().unwrap());
            }
            assert_eq!((copy, stream.cursor()), (log.clone(), at), "frames of {size}");
        }
    }
}
