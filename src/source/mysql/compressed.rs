//! Compressed parts of the log: MySQL's whole transactions (`binlog_transaction_compression`), MariaDB's events
//! (`log_bin_compress`) and MariaDB's `COMPRESSED` columns.
//!
//! Each is decoded to exactly the bytes that an uncompressed log would hold, or it is a [`Fault`]: nothing is taken for
//! empty, nothing is cut short. Declared lengths are not believed: memory grows with what really comes out, up to
//! [`BYTES_MAX`], and must then equal what was declared.
//!
//! Public sources: MySQL's `libbinlogevents/include/control_events.h` (`Transaction_payload_event`); MariaDB's `log_event.cc`
//! (`binlog_buf_uncompress`, `query_event_uncompress`, `row_log_event_uncompress`) and `field_comp.cc`.

use std::borrow::Cow;
use std::io::{BufReader, Read};

use super::wire::{Fault, Wire, big_endian};

/// No event, and so nothing inside one, is larger.
const BYTES_MAX: u64 = 1 << 30;

/// The head of every event of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub kind: u8,
    pub flags: u16,
    pub server_id: u32,
    /// Seconds since 1970; 0 when not told.
    pub timestamp: u32,
    /// Where the event ends in its file, its lowest 32 bits; 0 for events that are in no file.
    pub log_pos: u32,
}

const HEAD_BYTES: usize = 19;

/// The events of one compressed transaction, one after the other.
pub struct Payload<'a> {
    inner: Inner<'a>,
    /// Of decompressed bytes, as declared, less those read; `None` when nothing was declared.
    left: Option<u64>,
    body: Vec<u8>,
}

enum Inner<'a> {
    Plain(&'a [u8]),
    Zstd(Box<BufReader<zstd::stream::read::Decoder<'a, &'a [u8]>>>),
}

impl Read for Inner<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(bytes) => bytes.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

impl<'a> Payload<'a> {
    /// Reads the fields that go before the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, Fault> {
        let mut wire = Wire::new(body);
        let (mut size, mut compression, mut uncompressed) = (None, None, None);
        loop {
            let field = wire.length_encoded()?;
            if field == 0 {
                break;
            }
            let mut value = Wire::new(wire.length_encoded_bytes()?);
            match field {
                1 => size = Some(value.length_encoded()?),
                2 => compression = Some(value.length_encoded()?),
                3 => uncompressed = Some(value.length_encoded()?),
                // Fields of later servers only describe.
                _ => {}
            }
        }
        let size = size.ok_or_else(|| Fault::new("its size is not told"))?;
        let payload = wire.take(usize::try_from(size).unwrap_or(usize::MAX))?;
        if !wire.is_empty() {
            return Err(Fault(format!("{} bytes follow the payload", wire.remaining())));
        }
        let inner = match compression {
            Some(0) => {
                let decoder = zstd::stream::read::Decoder::with_buffer(payload).map_err(|error| unreadable(&error))?;
                Inner::Zstd(Box::new(BufReader::new(decoder)))
            }
            Some(255) => Inner::Plain(payload),
            Some(other) => return Err(Fault(format!("compression of type {other} is unknown to this release"))),
            None => return Err(Fault::new("its compression is not told")),
        };
        Ok(Self { inner, left: uncompressed, body: Vec::new() })
    }

    /// The next event; `None` after the last. One that is cut off is a fault.
    pub fn next(&mut self) -> Result<Option<(Head, &[u8])>, Fault> {
        let mut head = [0; HEAD_BYTES];
        let mut filled = 0;
        while filled < HEAD_BYTES {
            match self.inner.read(&mut head[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) => return Err(unreadable(&error)),
            }
        }
        if filled == 0 {
            return match self.left {
                Some(left) if left > 0 => Err(Fault(format!("{left} bytes are missing at its end"))),
                _ => Ok(None),
            };
        }
        let mut wire = Wire::new(head.get(..filled).unwrap_or_default());
        let (timestamp, kind, server_id) = (wire.u32()?, wire.u8()?, wire.u32()?);
        let (size, log_pos, flags) = (u64::from(wire.u32()?), wire.u32()?, wire.u16()?);
        let size = size.checked_sub(HEAD_BYTES as u64).filter(|size| *size <= BYTES_MAX);
        let size = size.ok_or_else(|| Fault(format!("an event of type {kind} in it has an impossible size")))?;
        if let Some(left) = &mut self.left {
            *left =
                left.checked_sub(size + HEAD_BYTES as u64).ok_or_else(|| Fault::new("it holds more than declared"))?;
        }
        self.body.clear();
        let read = (&mut self.inner).take(size).read_to_end(&mut self.body).map_err(|error| unreadable(&error))?;
        if read as u64 != size {
            return Err(Fault(format!("an event of type {kind} in it is cut off")));
        }
        Ok(Some((Head { kind, flags, server_id, timestamp, log_pos }, &self.body)))
    }
}

#[cold]
fn unreadable(error: &std::io::Error) -> Fault {
    Fault(format!("its compressed bytes can't be read: {error}"))
}

/// Reads until the end and compares with the declared length.
fn exactly(reader: impl Read, declared: u64) -> Result<Vec<u8>, Fault> {
    if declared > BYTES_MAX {
        return Err(Fault(format!("{declared} bytes are declared, more than an event can hold")));
    }
    let mut bytes = Vec::with_capacity(declared.min(1 << 16) as usize);
    reader.take(declared + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 != declared {
        let more = if bytes.len() as u64 > declared { "more" } else { "fewer" };
        return Err(Fault(format!("{declared} bytes are declared, {more} are there")));
    }
    Ok(bytes)
}

/// What MariaDB compressed inside an event: a byte with the method and the size of the length, the length (big-endian),
/// and a zlib stream.
pub fn event_part(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut wire = Wire::new(bytes);
    let head = wire.u8()?;
    let (method, length_bytes) = ((head & 0x70) >> 4, usize::from(head & 0x07));
    if head & 0x80 == 0 || method != 0 {
        return Err(Fault(format!("compression of type {head:#x} is unknown to this release")));
    }
    if !(1..=4).contains(&length_bytes) {
        return Err(Fault(format!("a length of {length_bytes} bytes")));
    }
    let declared = big_endian(wire.take(length_bytes)?);
    exactly(flate2::read::ZlibDecoder::new(wire.rest()), declared)
}

/// The body of a `QUERY_EVENT` out of that of a `QUERY_COMPRESSED_EVENT`: all of it but the statement is plain.
pub fn query(body: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut wire = Wire::new(body);
    wire.take(8)?;
    let schema_length = usize::from(wire.u8()?);
    wire.u16()?;
    let status_length = usize::from(wire.u16()?);
    wire.take(status_length + schema_length + 1)?;
    let plain = body.get(..wire.offset()).unwrap_or_default();
    let statement = event_part(wire.rest())?;
    Ok([plain, &statement].concat())
}

/// A value of a MariaDB `COMPRESSED` column. Short ones are stored as they are.
pub fn value(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Fault> {
    // The empty value has no head.
    let Some((head, rest)) = bytes.split_first() else { return Ok(Cow::Borrowed(bytes)) };
    match head >> 4 {
        0 => Ok(Cow::Borrowed(rest)),
        8 => {
            let mut wire = Wire::new(rest);
            let declared = big_endian(wire.take(usize::from(head & 0x07))?);
            let plain = if head & 0x08 != 0 {
                exactly(flate2::read::DeflateDecoder::new(wire.rest()), declared)?
            } else {
                exactly(flate2::read::ZlibDecoder::new(wire.rest()), declared)?
            };
            Ok(Cow::Owned(plain))
        }
        other => Err(Fault(format!("a COMPRESSED value of the unknown method {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("to memory")
    }

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("to memory")
    }

    fn inner_event(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut event = vec![1, 0, 0, 0, kind, 7, 0, 0, 0];
        event.extend((body.len() as u32 + HEAD_BYTES as u32).to_le_bytes());
        event.extend([0; 6]);
        event.extend(body);
        event
    }

    fn payload(compression: u8, plain: &[u8], declared: usize) -> Vec<u8> {
        let bytes = if compression == 0 { zstd::encode_all(plain, 3).expect("to memory") } else { plain.to_vec() };
        let number = |value: usize| {
            let mut out = vec![0xFD];
            out.extend(&(value as u32).to_le_bytes()[..3]);
            out
        };
        let mut body = vec![2, 1];
        body.push(if compression == 255 { 0xFC } else { compression });
        if compression == 255 {
            body[1] = 3;
            body.extend([255, 0]);
        }
        for (field, value) in [(3, declared), (1, bytes.len())] {
            body.extend([field, 4]);
            body.extend(number(value));
        }
        body.push(0);
        body.extend(bytes);
        body
    }

    fn kinds(body: &[u8]) -> Result<Vec<(u8, usize)>, Fault> {
        let mut payload = Payload::parse(body)?;
        let mut kinds = Vec::new();
        while let Some((head, body)) = payload.next()? {
            kinds.push((head.kind, body.len()));
        }
        Ok(kinds)
    }

    #[test]
    fn a_compressed_transaction_gives_every_event_or_a_fault() {
        let plain = [inner_event(2, b"BEGIN"), inner_event(30, &[9; 70_000]), inner_event(16, &[0; 8])].concat();
        let expected = vec![(2, 5), (30, 70_000), (16, 8)];
        for compression in [0, 255] {
            assert_eq!(kinds(&payload(compression, &plain, plain.len())), Ok(expected.clone()));
        }
        // Cut off, too long, too short, of another kind, with something behind.
        assert!(kinds(&payload(0, &plain[..plain.len() - 3], plain.len())).is_err());
        assert!(kinds(&payload(0, &plain, plain.len() - 1)).is_err());
        assert!(kinds(&payload(0, &plain, plain.len() + 1)).is_err());
        let unknown = kinds(&payload(7, &plain, plain.len())).map_err(|fault| fault.0);
        assert_eq!(unknown, Err("compression of type 7 is unknown to this release".to_owned()));
        let mut longer = payload(0, &plain, plain.len());
        longer.push(0);
        assert!(kinds(&longer).is_err());
        let whole = payload(0, &plain, plain.len());
        for end in 0..whole.len() {
            assert!(kinds(&whole[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_hostile_length_is_no_allocation() {
        let bomb = zlib(&vec![0; 1 << 20]);
        let with = |head: &[u8]| [head, &bomb].concat();
        assert_eq!(event_part(&with(&[0x83, 0x10, 0, 0])).map(|bytes| bytes.len()), Ok(1 << 20));
        assert!(event_part(&with(&[0x84, 0xFF, 0xFF, 0xFF, 0xFF])).is_err());
        assert!(event_part(&with(&[0x84, 0x3F, 0xFF, 0xFF, 0xFF])).is_err());
        assert!(event_part(&with(&[0x81, 9])).is_err());
        assert!(event_part(&with(&[0x93, 0x10, 0, 0])).is_err());
        assert!(event_part(&[0x80]).is_err() && event_part(&[]).is_err());
        assert!(value(&[0x8F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]).is_err());
    }

    #[test]
    fn a_compressed_statement_keeps_its_plain_head() {
        let mut body = vec![0; 8];
        body.extend([4, 0, 0, 2, 0, 9, 9]);
        body.extend(b"shop\0");
        let plain = [body.as_slice(), b"TRUNCATE t"].concat();
        body.extend([0x81, 10]);
        body.extend(zlib(b"TRUNCATE t"));
        assert_eq!(query(&body), Ok(plain));
        assert!(query(&body[..18]).is_err());
    }

    /// M-25
    #[test]
    fn compressed_values_come_in_three_forms() {
        let text = b"x".repeat(500);
        assert_eq!(value(&[]).as_deref(), Ok([].as_slice()));
        assert_eq!(value(b"\x00short").as_deref(), Ok(b"short".as_slice()));
        assert_eq!(value(&[&[0x8A, 0x01, 0xF4], deflate(&text).as_slice()].concat()).as_deref(), Ok(text.as_slice()));
        assert_eq!(value(&[&[0x82, 0x01, 0xF4], zlib(&text).as_slice()].concat()).as_deref(), Ok(text.as_slice()));
        assert!(value(&[0x8A, 0x01, 0xF4, 1, 2, 3]).is_err());
        assert!(value(&[0x10]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = kinds(&bytes);
            let _ = event_part(&bytes);
            let _ = query(&bytes);
            let _ = value(&bytes);
        }
    }
}
