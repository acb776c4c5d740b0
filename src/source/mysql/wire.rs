//! Bounds-checked reading of little-endian bytes from the network.
//!
//! Every parser of this folder reads through [`Wire`], so that a short or hostile event is a [`Fault`], never a panic.

use std::fmt;

/// Why bytes could not be read as what they should be, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub String);

impl Fault {
    pub fn new(finding: impl Into<String>) -> Self {
        Self(finding.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A cursor over bytes.
#[derive(Clone, Copy, Debug)]
pub struct Wire<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Wire<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub fn offset(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        if count > self.remaining() {
            return Err(self.short(count));
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    #[cold]
    fn short(&self, count: usize) -> Fault {
        Fault(format!("{count} bytes expected at offset {}, {} are left", self.at, self.remaining()))
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?[0])
    }

    #[inline]
    pub fn u16(&mut self) -> Result<u16, Fault> {
        Ok(self.unsigned(2)? as u16)
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32, Fault> {
        Ok(self.unsigned(4)? as u32)
    }

    #[inline]
    pub fn u64(&mut self) -> Result<u64, Fault> {
        self.unsigned(8)
    }

    /// A little-endian number of up to 8 bytes.
    #[inline]
    pub fn unsigned(&mut self, size: usize) -> Result<u64, Fault> {
        Ok(little_endian(self.take(size)?))
    }

    /// MySQL's length-encoded integer ("Protocol::LengthEncodedInteger").
    pub fn length_encoded(&mut self) -> Result<u64, Fault> {
        match self.u8()? {
            0xFC => self.unsigned(2),
            0xFD => self.unsigned(3),
            0xFE => self.unsigned(8),
            byte @ (0xFB | 0xFF) => Err(Fault(format!("{byte:#x} does not start a length-encoded number"))),
            byte => Ok(u64::from(byte)),
        }
    }

    /// A string after its length-encoded length.
    pub fn length_encoded_bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.length_encoded()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }
}

/// Up to 8 bytes, the lowest first.
#[inline]
pub fn little_endian(bytes: &[u8]) -> u64 {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(8).enumerate() {
        value |= u64::from(*byte) << (8 * index);
    }
    value
}

/// Up to 8 bytes, the highest first.
#[inline]
pub fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

/// Bit `index` of a bitmap whose lowest bit comes first.
#[inline]
pub fn bit(bitmap: &[u8], index: usize) -> bool {
    bitmap.get(index / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_little_endian() {
        let mut wire = Wire::new(&[1, 2, 3, 0xFC, 0x34, 0x12, 0xFD, 1, 0, 1]);
        assert_eq!(wire.unsigned(3), Ok(0x03_02_01));
        assert_eq!(wire.length_encoded(), Ok(0x1234));
        assert_eq!(wire.length_encoded(), Ok(0x01_00_01));
        assert!(wire.is_empty());
    }

    #[test]
    fn short_input_is_a_fault() {
        assert!(Wire::new(&[1]).u16().is_err());
        assert!(Wire::new(&[0xFE, 1]).length_encoded().is_err());
        assert!(Wire::new(&[0xFE, 255, 255, 255, 255, 255, 255, 255, 255, 0]).length_encoded_bytes().is_err());
        assert!(Wire::new(&[]).length_encoded().is_err());
    }
}
