//! Names of XA transactions, in one form whichever way they come: `X'67',X'62',1`.
//!
//! The log has them as text in statements and as bytes in `XA_PREPARE`; both servers write the text as hex, so that any
//! bytes are possible. Two transactions are the same if global part, branch part and format are.

use std::fmt::Write;

use super::wire::{Fault, Wire};

/// The one form.
pub fn canonical(global: &[u8], branch: &[u8], format: u32) -> String {
    let mut text = String::with_capacity(2 * (global.len() + branch.len()) + 16);
    for part in [global, branch] {
        text.push_str("X'");
        for byte in part {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push_str("',");
    }
    let _ = write!(text, "{format}");
    text
}

/// The body of `XA_PREPARE_LOG_EVENT`, the same on both servers: whether it was committed in the same step, and the name.
pub fn prepare_event(body: &[u8]) -> Result<(bool, String), Fault> {
    let mut wire = Wire::new(body);
    let one_phase = wire.u8()? != 0;
    let (format, global, branch) = (wire.u32()?, wire.u32()?, wire.u32()?);
    let global = wire.take(global as usize)?;
    let branch = wire.take(branch as usize)?;
    Ok((one_phase, canonical(global, branch, format)))
}

/// The bytes of a hex literal's digits.
pub fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_and_the_statement_name_the_same_transaction() {
        let mut body = vec![0, 7, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0];
        body.extend([0, 0xFF, b'\'', b'b']);
        assert_eq!(prepare_event(&body), Ok((false, "X'00ff27',X'62',7".to_owned())));
        for end in 0..body.len() {
            assert!(prepare_event(&body[..end]).is_err());
        }
        assert!(prepare_event(&[1, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0]).is_err());
        assert_eq!(unhex("00fF27"), Some(vec![0, 0xFF, 0x27]));
        assert_eq!((unhex("0"), unhex("zz"), unhex("+1")), (None, None, None));
    }
}
