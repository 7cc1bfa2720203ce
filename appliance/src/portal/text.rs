//! Texts from devices and the VM, made fit to be shown.

/// Longer texts are cut, in characters. A USB string descriptor has at most 126.
const LONGEST: usize = 300;

/// A text from a device, the network or the VM, for people to read: what would be invisible or
/// reorder its surroundings becomes U+FFFD, line breaks and tabs become spaces, and too long ones are cut. Escaping is the page's.
pub(super) fn shown(text: &str) -> String {
    let mut characters = text.trim().chars();
    let mut shown: String = characters
        .by_ref()
        .take(LONGEST)
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() || is_invisible(c) => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Characters that show nothing themselves and change what is shown around them: Unicode's
/// `Bidi_Control` and the zero-width and separating ones of general categories Cf, Zl and Zp.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_texts_stay_as_they_are() {
        for text in [
            "CP2102N USB to UART Bridge",
            "Gerät Nr. 5",
            "日本語",
            "مسلسل",
            "a<b>&\"c\"",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn nothing_invisible_is_left() {
        assert_eq!(
            shown("a\u{202e}b\u{2066}c\u{200f}"),
            "a\u{fffd}b\u{fffd}c\u{fffd}"
        );
        assert_eq!(
            shown(" a\nb\r\tc\u{0}\u{1b}[2J "),
            "a b  c\u{fffd}\u{fffd}[2J"
        );
        assert_eq!(
            shown("a\u{2028}b\u{feff}c\u{e0041}"),
            "a\u{fffd}b\u{fffd}c\u{fffd}"
        );
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shown(&"é".repeat(126)), "é".repeat(126));
        let cut = shown(&"é".repeat(100_000));
        assert_eq!(cut.chars().count(), LONGEST + 1);
        assert!(cut.ends_with('…'));
    }
}
