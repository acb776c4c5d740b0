//! Texts of stored values that have no number, date or character set: MariaDB's UUIDs and addresses, and hex.

use super::wire::Fault;

/// The text form of what has no lake type of its own: its bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// MariaDB's `UUID` as stored: servers keep versions 1 to 5 with their fields in reverse order, so that those of one
/// node sort by time (MariaDB KB "UUID Data Type"); the variant and version bits of the stored form tell which.
pub fn uuid(stored: &[u8]) -> Result<String, Fault> {
    let stored: [u8; 16] = stored.try_into().map_err(|_| Fault(format!("{} bytes are not a UUID", stored.len())))?;
    let reversed = stored[6] & 0x80 != 0 && (0x01..0x60).contains(&stored[8]);
    let bytes = if reversed {
        let mut bytes = [0; 16];
        bytes[0..4].copy_from_slice(&stored[12..16]);
        bytes[4..6].copy_from_slice(&stored[10..12]);
        bytes[6..8].copy_from_slice(&stored[8..10]);
        bytes[8..10].copy_from_slice(&stored[6..8]);
        bytes[10..16].copy_from_slice(&stored[0..6]);
        bytes
    } else {
        stored
    };
    Ok(uuid::Uuid::from_bytes(bytes).hyphenated().to_string())
}

pub fn inet4(stored: &[u8]) -> Result<String, Fault> {
    let bytes: [u8; 4] = stored.try_into().map_err(|_| Fault(format!("{} bytes are not an INET4", stored.len())))?;
    Ok(std::net::Ipv4Addr::from(bytes).to_string())
}

/// As MariaDB prints it: the first longest run of zero words becomes `::`, even a run of one, and addresses that embed
/// an IPv4 address show it dotted.
pub fn inet6(stored: &[u8]) -> Result<String, Fault> {
    let bytes: [u8; 16] = stored.try_into().map_err(|_| Fault(format!("{} bytes are not an INET6", stored.len())))?;
    let words = std::net::Ipv6Addr::from(bytes).segments();
    let (mut gap_at, mut gap_length) = (8, 0);
    let mut at = 0;
    while at < 8 {
        let length = words[at..].iter().take_while(|word| **word == 0).count();
        if length > gap_length {
            (gap_at, gap_length) = (at, length);
        }
        at += length.max(1);
    }
    let mut text = String::new();
    let mut at = 0;
    while at < 8 {
        if at == gap_at {
            if at == 0 {
                text.push(':');
            }
            text.push(':');
            at += gap_length;
            continue;
        }
        if at == 6 && gap_at == 0 && (gap_length == 6 || (gap_length == 5 && words[5] == 0xFFFF)) {
            text.push_str(&std::net::Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]).to_string());
            break;
        }
        text.push_str(&format!("{:x}", words[at]));
        if at != 7 {
            text.push(':');
        }
        at += 1;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M-21
    #[test]
    fn addresses_and_uuids_have_their_canonical_text() {
        let inet = |text: &str| inet6(&text.parse::<std::net::Ipv6Addr>().expect("valid").octets());
        for text in ["::", "::1", "1::", "2001:db8::ff00:42:8329", "::ffff:192.0.2.1", "::1.2.3.4", "1:2:3:4:5:6:7:8"] {
            assert_eq!(inet(text).as_deref(), Ok(text));
        }
        assert_eq!(inet("1:0:3:4:5:6:7:8").as_deref(), Ok("1::3:4:5:6:7:8"));
        assert_eq!(inet4(&[192, 0, 2, 0]).as_deref(), Ok("192.0.2.0"));
        let version_1 =
            [0x02, 0x42, 0xac, 0x13, 0x00, 0x02, 0x9a, 0x9d, 0x11, 0xeb, 0x2e, 0x1b, 0x12, 0x34, 0x56, 0x78];
        assert_eq!(uuid(&version_1).as_deref(), Ok("12345678-2e1b-11eb-9a9d-0242ac130002"));
        assert_eq!(uuid(&[0; 16]).as_deref(), Ok("00000000-0000-0000-0000-000000000000"));
        assert!(uuid(&[0; 15]).is_err() && inet6(&[0; 4]).is_err() && inet4(&[]).is_err());
    }
}
