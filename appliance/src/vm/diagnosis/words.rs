//! What the helper's checks are called, and which version is older.

/// What a check of the helper looks at; its own name where this version does not know it.
pub(super) fn title(id: &str) -> &str {
    match id {
        "root" => "sudo rule",
        "vhci" => "Kernel module vhci_hcd",
        "ports" => "vhci ports",
        "pi_conf" => "Pi named on the VM",
        "pi" => "Way back to the Pi",
        "drivers" => "Serial drivers",
        "modem_manager" => "ModemManager",
        other => other,
    }
}

/// Whether a version comes before another. What is no number counts as zero.
pub(super) fn is_older(version: &str, than: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        let core = text.split(['-', '+', '~']).next().unwrap_or_default();
        core.split('.')
            .map(|part| part.parse().unwrap_or(0))
            .collect()
    };
    numbers(version) < numbers(than)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (one, other, older) in [
            ("0.1.0", "0.1.0", false),
            ("0.1.0", "0.1.1", true),
            ("0.9.0", "0.10.0", true),
            ("1.0.0", "0.10.0", false),
            ("0.1", "0.1.0", true),
            ("0.2.0-rc1", "0.2.0", false),
            ("nonsense", "0.1.0", true),
        ] {
            assert_eq!(is_older(one, other), older, "{one} {other}");
        }
    }
}
