//! vhci's `status` files.

use protocol::{BusId, DevId};

use crate::failure::Error;

/// State of a port (`enum usbip_device_status`, drivers/usb/usbip/usbip_common.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortState {
    /// 4: nothing attached.
    Free,
    /// 5: attached, without an address yet.
    Enumerating,
    /// 6: attached.
    Used,
    /// 7: broken.
    Error,
}

/// One line of `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Number, counted over all controllers.
    pub number: u32,
    /// Whether it is for SuperSpeed devices.
    pub is_super: bool,
    /// State.
    pub state: PortState,
    /// The device; 0 unless the state is [`PortState::Used`].
    pub devid: DevId,
    /// The device's name here, when the state is [`PortState::Used`].
    pub local_busid: Option<BusId>,
}

/// Parse a `status` file: a heading, then `hs  0000 006 002 00010004 000003 3-1` for each port.
pub fn parse(text: &str) -> Result<Vec<Port>, Error> {
    text.lines()
        .filter(|line| line.starts_with("hs") || line.starts_with("ss"))
        .map(|line| parse_line(line).ok_or_else(|| Error::VhciStatus(line.to_owned())))
        .collect()
}

fn parse_line(line: &str) -> Option<Port> {
    let mut words = line.split_ascii_whitespace();
    let is_super = words.next()? == "ss";
    let number = words.next()?.parse().ok()?;
    let state = match words.next()? {
        "004" => PortState::Free,
        "005" => PortState::Enumerating,
        "006" => PortState::Used,
        "007" => PortState::Error,
        _ => return None,
    };
    let _speed = words.next()?;
    let devid = words.next()?.parse().ok()?;
    let _sockfd = words.next()?;
    Some(Port {
        number,
        is_super,
        state,
        devid,
        local_busid: words
            .next()
            .filter(|_| state == PortState::Used)
            .and_then(|word| word.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_understood() {
        let text = "hub port sta spd dev      sockfd local_busid\n\
                    hs  0000 006 002 00010004 000003 3-1\n\
                    hs  0001 005 000 00000000 000000 0-0\n\
                    ss  0008 004 000 00000000 000000 0-0\n";
        let ports = parse(text).unwrap();
        assert_eq!(ports.len(), 3);
        assert_eq!(
            ports[0],
            Port {
                number: 0,
                is_super: false,
                state: PortState::Used,
                devid: DevId(0x0001_0004),
                local_busid: Some("3-1".parse().unwrap()),
            }
        );
        assert_eq!(
            (ports[1].state, ports[1].local_busid.clone()),
            (PortState::Enumerating, None)
        );
        assert!(ports[2].is_super && ports[2].state == PortState::Free);
    }

    #[test]
    fn another_form_is_an_error_that_shows_it() {
        let error = parse("hs  0000 009 002 00010004 000003 3-1").unwrap_err();
        assert!(error.to_string().contains("0000 009"), "{error}");
    }
}
